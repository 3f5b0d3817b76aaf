"""All verifiers: from what a data set says to a function that judges a case.

Decides which verifier a data set has where it says nothing, where a verifier runs (inline or in a worker) and how long
and large a case may get there. Adding a verifier: a file with `VERSION` and `build(spec)`, a row in `_TABLE`, a name in
`ratchet_api.verifiers.VerifierName`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet_api.verifiers import Answer, CodeVerifier, HttpVerifier, config_map_folder, secret_variable
from ratchet_trainer.algorithm.outcome import Case, Outcome
from ratchet_trainer.algorithm.verifiers import choice, exact, number, reasoning_gym
from ratchet_trainer.algorithm.verifiers.extract import wrapped
from ratchet_trainer.algorithm.verifiers.spec import Extraction, VerifierSpec

Verify = Callable[[Case], Outcome]


@dataclass(frozen=True)
class Row:
    """`default`: the extraction where the manifest has none. `seconds`: what a case takes at most, as expected.
    `build` is given for what runs inline; others are modules that a worker imports."""

    default: Extraction
    build: Callable[[VerifierSpec], Verify] | None = None
    seconds: float = 1.0
    memory_mib: int = 4096


def _plain(verify: Callable[[VerifierSpec, Case], Outcome]) -> Callable[[VerifierSpec], Verify]:
    return lambda spec: lambda case: verify(spec, case)


_TABLE: dict[str, Row] = {
    "exact": Row(Extraction("whole"), _plain(exact.verify_case)),
    "number": Row(Extraction("lastNumber"), _plain(number.verify)),
    "choice": Row(Extraction("auto"), _plain(choice.verify)),
    "reasoningGym": Row(Extraction("auto"), reasoning_gym.build, seconds=3.0),
    "math": Row(Extraction("auto")),
    "python": Row(Extraction("whole")),
    "http": Row(Extraction("whole")),
    "code": Row(Extraction("auto")),
}


def resolve(dataset: Any) -> VerifierSpec:
    """The verifier of a data set (`ratchet_api.datasets.Dataset`).

    Raises ConfigurationInvalid for a task of reasoning-gym that cannot be verified.
    """
    gym = dataset.reasoning_gym
    name = dataset.verifier or ("reasoningGym" if gym is not None else "exact")
    settings: dict[str, Any] = {}
    version, pure = "", True
    if name == "reasoningGym":
        reasoning_gym.task_of(gym.task)
        settings = {"task": gym.task, "config": dict(gym.config)}
    elif name == "python":
        told = dataset.python
        extraction = extraction_of(dataset.answer, name)
        return python_spec(
            told.entrypoint, told.config_map, told.pure, told.timeout_seconds, told.memory_mi_b, extraction
        )
    elif name == "http":
        return http_spec(dataset.http, secret_variable(dataset.name), extraction_of(dataset.answer, name))
    elif name == "code":
        told = dataset.code or CodeVerifier()
        settings = {
            "timeoutSeconds": told.timeout_seconds,
            "memoryMiB": told.memory_mi_b,
            "tests": told.tests,
            "sandbox": told.sandbox,
        }
        pure = False
    extraction = extraction_of(dataset.answer, name)
    return VerifierSpec(name, f"{_module(name).VERSION} {version}".strip(), pure, extraction, settings)


def python_spec(
    entrypoint: str,
    config_map: str | None,
    pure: bool,
    timeout_seconds: int,
    memory_mib: int,
    extraction: Extraction | None = None,
) -> VerifierSpec:
    """The verifier that runs a function of the user's own; its version follows from the source."""
    version = _source_digest(entrypoint.partition(":")[0], config_map)
    settings = {
        "entrypoint": entrypoint,
        "configMap": config_map,
        "timeoutSeconds": timeout_seconds,
        "memoryMiB": memory_mib,
    }
    kind = extraction or Extraction("whole")
    return VerifierSpec("python", f"{_module('python').VERSION} {version}".strip(), pure, kind, settings)


def http_spec(told: HttpVerifier, variable: str, extraction: Extraction | None = None) -> VerifierSpec:
    """The verifier that asks an endpoint. `variable`: of the environment, for its secret if it has one."""
    settings = {
        "url": told.url,
        "secretVariable": variable if told.secret is not None else None,
        "timeoutSeconds": told.timeout_seconds,
        "retries": told.retries,
    }
    return VerifierSpec("http", _module("http").VERSION, False, extraction or Extraction("whole"), settings)


def extraction_of(answer: Answer | None, verifier: str) -> Extraction:
    """What `answer` of a data set says, or the verifier's own way."""
    if answer is None:
        return _TABLE[verifier].default
    return Extraction(answer.extract, answer.tag or answer.after or "")


def verify_inline(spec: VerifierSpec) -> bool:
    """Whether a verifier runs in the caller's process: cheap, pure and safe whatever the response."""
    if spec.name == "reasoningGym":
        return reasoning_gym.in_process(spec.settings["task"])
    return _TABLE[spec.name].build is not None


def build(spec: VerifierSpec) -> Verify:
    """The function that judges a case. Raises ConfigurationInvalid where it cannot be had.

    In the trainer's process only for what `verify_inline`; workers call it for the rest.
    """
    made: Callable[[VerifierSpec], Verify] = _TABLE[spec.name].build or _module(spec.name).build
    return made(spec)


def deadline(spec: VerifierSpec) -> float:
    """Seconds after which a worker with a case is killed: ten times what the case should take at most."""
    if spec.name == "http":
        from ratchet_trainer.algorithm.verifiers.http import longest

        return longest(dict(spec.settings)) + 30.0
    if spec.name in ("python", "code"):
        return 10.0 * float(spec.settings["timeoutSeconds"])
    return 10.0 * _TABLE[spec.name].seconds


def memory_mib(spec: VerifierSpec) -> int:
    """Address space of a worker in MiB."""
    own = int(spec.settings.get("memoryMiB", 0))
    if spec.name == "python":
        return own
    return _TABLE[spec.name].memory_mib + own  # of code, its programs' memory comes on top


def expected_response(spec: VerifierSpec, answer: str) -> str | None:
    """A response that gives the expected answer in the way that the data set asks for: what a preflight verifies.

    None where the expected answer is not what a response should hold: programs, and what only the user knows.
    """
    if spec.name in ("python", "http", "code"):
        return None
    boxed = spec.name == "math" and spec.extraction.kind == "auto"
    return wrapped(Extraction("boxed") if boxed else spec.extraction, answer)


def _module(name: str) -> Any:
    file = {"reasoningGym": "reasoning_gym"}.get(name, name)
    return importlib.import_module(f"ratchet_trainer.algorithm.verifiers.{file}")


def _source_digest(module: str, config_map: str | None) -> str:
    """12 hex digits over the user's source, as far as it is found without importing it."""
    top = module.partition(".")[0]
    roots = [Path(config_map_folder(config_map))] if config_map else []
    if not roots:
        try:
            found = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            found = None
        roots = [Path(p) for p in (found.submodule_search_locations or [found.origin or ""])] if found else []
    files = sorted(f for root in roots for f in ([root] if root.is_file() else root.rglob("*.py")))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12] if files else ""
