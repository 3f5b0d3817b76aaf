'''The verifier `python`: a function of the user's own. Runs in a worker: it may hang, crash, print or fork.

Decides how the function is found, what it gets and what its answer means. A verifier of one's own, whole:

    # verifiers/short.py, in a ConfigMap named short
    def verify(case):
        """Right if the number is right; the score falls with the length of the answer."""
        given, expected = case.extracted, case.item["answer"]
        if given is None or given.strip() != expected:
            return 0.0
        score = max(0.5, 1.0 - len(case.response) / 2000)
        return {"score": score, "accuracy": 1.0, "parts": {"characters": len(case.response)}}

    # in the job
    datasets:
    - name: sums
      reasoningGym: {task: chain_sum}
      answer: {extract: lastNumber}
      verifier: python
      python: {entrypoint: "short:verify", configMap: short}

`case` has `item` (question, answer, index and the item's other fields), `prompt`, `response`, `finish` and
`extracted`. A number is a score; `accuracy` is then 1.0 if it is at least 1. A number that is NaN or infinite, or
anything else, is a crash of the verifier and named.
'''

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ratchet_api.verifiers import config_map_folder
from ratchet_trainer.algorithm.outcome import Case, Finish, NoOutcome, Outcome
from ratchet_trainer.algorithm.verifiers.extract import extract
from ratchet_trainer.algorithm.verifiers.spec import VerifierSpec
from ratchet_trainer.errors import ConfigurationInvalid

VERSION = "1"


class BadAnswer(NoOutcome):
    """A verifier said something that is no score; the message says what."""


@dataclass(frozen=True)
class UserCase:
    """What the user's function gets: a case, and what was extracted from its response."""

    item: Mapping[str, Any]
    prompt: str
    response: str
    finish: Finish
    extracted: str | None


def build(spec: VerifierSpec) -> Callable[[Case], Outcome]:
    """The verifier around the user's function. Raises ConfigurationInvalid if there is no such function."""
    place = f"verifier python, entrypoint {spec.settings['entrypoint']}"
    module, _, name = spec.settings["entrypoint"].partition(":")
    folder = config_map_folder(spec.settings["configMap"]) if spec.settings.get("configMap") else None
    if folder:
        sys.path.insert(0, folder)
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:
        where = f" (looked in {folder}, too)" if folder else ""
        raise ConfigurationInvalid(
            f"{place}: cannot be imported{where}: {type(error).__name__}: {error}; put the module into the image or "
            "name its ConfigMap in python.configMap"
        ) from error
    if not callable(function):
        raise ConfigurationInvalid(f"{place}: is no function; name one")

    def verify(case: Case) -> Outcome:
        found = extract(spec.extraction, case.response)
        said = function(UserCase(case.item, case.prompt, case.response, case.finish, found))
        return outcome_of(said, found, spec.pure)

    return verify


def outcome_of(said: Any, extracted: str | None, pure: bool) -> Outcome:
    """The outcome that a number or a mapping {score, accuracy?, parts?, extracted?} means. Raises BadAnswer."""
    if isinstance(said, Outcome):
        said = {"score": said.score, "accuracy": said.accuracy, "parts": said.parts, "extracted": said.extracted}
    if not isinstance(said, Mapping):
        said = {"score": said}
    if unknown := said.keys() - {"score", "accuracy", "parts", "extracted"}:
        raise BadAnswer(f"it said {sorted(map(str, unknown))}; known are score, accuracy, parts and extracted")
    if "score" not in said:
        raise BadAnswer("it said no score")
    score = finite("score", said["score"])
    accuracy = finite("accuracy", said.get("accuracy", float(score >= 1.0)))
    if accuracy not in (0.0, 1.0):
        raise BadAnswer(f"accuracy is {accuracy}, which is neither 0 nor 1; say it as score")
    parts = said.get("parts", {})
    if not isinstance(parts, Mapping):
        raise BadAnswer("parts is no mapping from names to numbers")
    text = said.get("extracted", extracted)
    return Outcome(
        accuracy=accuracy,
        score=score,
        extracted=None if text is None else str(text),
        parts={str(name): finite(f"part {name}", value) for name, value in parts.items()},
        pure=pure,
    )


def finite(name: str, value: Any) -> float:
    """A number as a float. Raises BadAnswer for what is none, NaN or infinite. Booleans are 0 and 1."""
    try:
        number = float(value) if not isinstance(value, str | bytes) else None
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None:
        raise BadAnswer(f"{name} is {value!r:.100}, which is no number")
    if not math.isfinite(number):
        raise BadAnswer(f"{name} is {number}; say 0 for an answer that is worth nothing")
    return number
