"""The verifier `code`: the program in a response is right if it passes the item's unit tests. Impure; in a worker.

Decides which part of a response is the program and what its tests are worth: `score` is the share of tests that pass,
`accuracy` whether all do. Programs run locked up (`sandbox`), or, where the manifest says `sandbox: Unsandboxed`, with
limits only. Processor time is for all tests together; when it is used up, the rest have failed and the status is
`timeout`. Without `answer` in the manifest the program is the last fenced block of code, or all of the response.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from typing import Any

from ratchet_trainer.algorithm.outcome import Case, NoOutcome, Outcome, unparsable
from ratchet_trainer.algorithm.verifiers import code_runner
from ratchet_trainer.algorithm.verifiers.code_tests import BadTests, passes, read_tests
from ratchet_trainer.algorithm.verifiers.extract import extract
from ratchet_trainer.algorithm.verifiers.frames import framed, read_frame, write_all
from ratchet_trainer.algorithm.verifiers.preflight import no_sandbox
from ratchet_trainer.algorithm.verifiers.spec import VerifierSpec
from ratchet_trainer.errors import ConfigurationInvalid

VERSION = "1"
PROGRAM_MAX = 100_000
WALL = 3.0
"""Seconds on the clock for each second of processor time, and one more: machines are shared."""

_FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)

log = logging.getLogger(__name__)


def build(spec: VerifierSpec) -> Callable[[Case], Outcome]:
    """The verifier. Raises ConfigurationInvalid where programs cannot be locked up and have to be."""
    sandboxed = spec.settings["sandbox"] == "Required"
    if sandboxed and (refused := no_sandbox()) is not None:
        raise ConfigurationInvalid(refused)
    write, read = code_runner.start()

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        write_all(write, framed(json.dumps(request).encode()))
        answer = read_frame(read)
        if answer is None:
            raise RuntimeError("the process that starts programs is gone")
        said: dict[str, Any] = json.loads(answer)
        return said

    def verify(case: Case) -> Outcome:
        found = program_in(spec, case.response)
        if found is None or len(found) > PROGRAM_MAX:
            return unparsable(None, pure=False)
        field = spec.settings["tests"]
        try:
            tests = read_tests(case.item.get(field))
        except BadTests as error:
            raise ConfigurationInvalid(
                f"its field {field}: {error}; mend the item, or name the field with its tests in code.tests"
            ) from error
        left, passed, late = float(spec.settings["timeoutSeconds"]), 0, False
        for test in tests:
            report = ask(
                {
                    "program": found,
                    "setup": test.setup,
                    "values": test.values,
                    "stdin": test.stdin,
                    "cpuSeconds": left,
                    "wallSeconds": WALL * left + 1.0,
                    "memoryMiB": spec.settings["memoryMiB"],
                    "sandboxed": sandboxed,
                }
            )
            if report["ended"] == "locked":
                raise NoOutcome(f"the program could not be locked up: {report['why']}")
            passed += passes(test, report)
            left -= report["cpuSeconds"]
            late = late or report["ended"] == "time"
            if late or left <= 0:
                late = True
                break
        score = passed / len(tests)
        return Outcome(
            accuracy=float(passed == len(tests)),
            score=score,
            extracted=found,
            parts={"tests": float(len(tests)), "passed": float(passed)},
            status="timeout" if late and passed < len(tests) else "ok",
            pure=False,
        )

    return verify


def program_in(spec: VerifierSpec, response: str) -> str | None:
    """The program in a response."""
    if spec.extraction.kind != "auto":
        return extract(spec.extraction, response)
    blocks = [(match[1].lower(), match[2]) for match in _FENCE.finditer(response)]
    chosen = [text for language, text in blocks if language in ("python", "py", "python3")] or [b for _, b in blocks]
    text = chosen[-1] if chosen else response
    return text if text.strip() else None
