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
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ratchet_api.verifiers import config_map_folder
from ratchet_trainer.algorithm.outcome import Case, Finish, Outcome
from ratchet_trainer.algorithm.verifiers import steps
from ratchet_trainer.algorithm.verifiers.extract import extract
from ratchet_trainer.algorithm.verifiers.spec import VerifierSpec
from ratchet_trainer.errors import ConfigurationInvalid

VERSION = "1"


@dataclass(frozen=True)
class UserCase:
    """What the user's function gets: a case, what was extracted from the response, its steps where it checks these."""

    item: Mapping[str, Any]
    prompt: str
    response: str
    finish: Finish
    extracted: str | None
    steps: Sequence[str] | None = None


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
        parts = steps.of_response(spec, case.response)
        own = None if parts is None else list(parts)  # what the function does to its list changes no verdict
        said = function(UserCase(case.item, case.prompt, case.response, case.finish, found, own))
        return steps.meant(said, found, parts, spec.pure)

    return verify
