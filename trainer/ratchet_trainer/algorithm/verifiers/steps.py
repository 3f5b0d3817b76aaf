"""Steps of a response: how it is split into them, and what a checker's answer about them means.

A checker is a verifier `python` or `http` whose settings have `steps`. It is asked about all steps at once, and may
answer in three ways: a list with a verdict for each step, the index of the first wrong one, or the share itself. The
score of its outcome is RTS of SGPO (arXiv 2505.11595): right steps before the first wrong one, over all steps. The
paper does not say whether a length is counted in steps or in tokens; here it is steps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ratchet_trainer.algorithm.outcome import Outcome
from ratchet_trainer.algorithm.verifiers import user_replies
from ratchet_trainer.algorithm.verifiers.spec import VerifierSpec
from ratchet_trainer.algorithm.verifiers.user_replies import BadAnswer, finite

VERSION = "1"
ANSWERS = "one verdict a step, {firstWrong: index or null}, {steps: [verdicts]}, or the share of right steps"

SPLIT: Mapping[str, Callable[[str], list[str]]] = {
    # what the manifest says -> the pieces of a text; none of these takes more than linear time
    "lines": lambda text: text.split("\n"),
    "sentences": lambda text: re.split(r"(?<=[.!?])\s", text),
    "paragraphs": lambda text: re.split(r"\n[ \t\r]*\n", text),
    "words": lambda text: text.split(),
}


def split(text: str, how: str) -> list[str]:
    """The steps of a response, white space around each left out; empty ones are none."""
    return [step for piece in SPLIT[how](text) if (step := piece.strip())]


def checking(spec: VerifierSpec, how: str) -> VerifierSpec:
    """The verifier as a checker of steps, which are split so."""
    return replace(spec, version=f"{spec.version} steps {VERSION}", settings={**spec.settings, "steps": how})


def of_response(spec: VerifierSpec, response: str) -> list[str] | None:
    """The steps that a checker is asked about; None for a verifier that is none."""
    return split(response, spec.settings["steps"]) if "steps" in spec.settings else None


def meant(said: Any, extracted: str | None, steps: Sequence[str] | None, pure: bool) -> Outcome:
    """The outcome that an answer means: about steps, or, where these are None, about the response. Raises BadAnswer."""
    if steps is None:
        return user_replies.outcome_of(said, extracted, pure)
    share = right_share(said, steps)
    return Outcome(accuracy=float(share == 1.0), score=share, pure=pure)


def right_share(said: Any, steps: Sequence[str]) -> float:
    """What a checker said, as a share of the steps in [0, 1]; 0 where there are none. Raises BadAnswer."""
    if isinstance(said, Mapping):
        known = said.keys() & {"firstWrong", "steps", "score"}
        if len(known) != 1:
            raise BadAnswer(f"it said {sorted(map(str, said))}; say {ANSWERS}")
        if "firstWrong" in said:
            return _before(said["firstWrong"], steps)
        said = said[known.pop()]
    if isinstance(said, list | tuple):
        return _of_verdicts(said, steps)
    share = finite("the share of right steps", said)
    if not 0.0 <= share <= 1.0:
        raise BadAnswer(f"the share of right steps is {share:g}, not between 0 and 1; say {ANSWERS}")
    return share if steps else 0.0


def _of_verdicts(verdicts: Sequence[Any], steps: Sequence[str]) -> float:
    if len(verdicts) != len(steps):
        raise BadAnswer(f"it said {len(verdicts)} verdicts of {len(steps)} steps; say one for each")
    for verdict in verdicts:
        if verdict not in (True, False):
            raise BadAnswer(f"a verdict is {verdict!r:.100}; say true or false")
    return _before(next((i for i, verdict in enumerate(verdicts) if not verdict), None), steps)


def _before(first_wrong: Any, steps: Sequence[str]) -> float:
    if not steps:
        return 0.0
    if first_wrong is None:
        return 1.0
    if isinstance(first_wrong, bool) or not isinstance(first_wrong, int) or not 0 <= first_wrong < len(steps):
        raise BadAnswer(
            f"firstWrong is {first_wrong!r:.100}, which is no step of {len(steps)}; say an index from 0, or null where "
            "all are right"
        )
    return first_wrong / len(steps)
