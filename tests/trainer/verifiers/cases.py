"""Cases to verify, and what to verify them with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ratchet_trainer.algorithm.outcome import Case, Finish, Outcome
from ratchet_trainer.algorithm.verifiers.pool import VerifierPool
from ratchet_trainer.algorithm.verifiers.spec import Extraction, VerifierSpec


def case(response: str, answer: Any = "5", *, index: int = 0, finish: Finish = "end", **fields: Any) -> Case:
    item = {"question": "2 + 3 =", "answer": answer, "index": index, **fields}
    return Case(item, prompt=str(item["question"]), response=response, finish=finish)


def spec(name: str, extract: str = "auto", argument: str = "", **settings: Any) -> VerifierSpec:
    pure = name not in ("http", "code")
    return VerifierSpec(name, "test", pure, Extraction(extract, argument), settings)  # type: ignore[arg-type]


def python_spec(entrypoint: str, **settings: Any) -> VerifierSpec:
    known = {"entrypoint": entrypoint, "configMap": None, "timeoutSeconds": 1, "memoryMiB": 1024} | settings
    return VerifierSpec("python", "test", True, Extraction("whole"), known)


def verified(pool: VerifierPool, cases: Sequence[Case]) -> list[Outcome]:
    handle = pool.submit(cases)
    while (outcomes := pool.poll(handle, 0.5)) is None:
        pass
    return outcomes
