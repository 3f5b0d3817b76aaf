"""How learnable a prompt is: p (1 - p), with p the share of its responses that are right (SFL and LILO, arXiv
2502.12272). It is the variance of 0/1 rewards (ddof 0), highest where half are right.

Decides scores and their order: highest first, ties by the item's id, so neither arrival nor processes matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.types import Group, Rollout, StepSamples

ANSWERED = ("ok", "unparsable")
"""Status of an outcome that says whether the response is right."""
OWN = (Purpose.TRAIN, Purpose.SCORE)
"""What a response is sampled for that answers its prompt without help."""


def right_of(rollouts: Sequence[Rollout]) -> tuple[int, int]:
    """How many of the rollouts are right, and of how many a verifier said so. Those with a hint, or from a state in the
    middle of another response, say nothing of the prompt and do not count."""
    own = [r.outcome for r in rollouts if r.request.purpose in OWN]
    said = [outcome.accuracy for outcome in own if outcome.status in ANSWERED]
    return sum(accuracy == 1.0 for accuracy in said), len(said)


def counted(samples: StepSamples) -> dict[int, tuple[int, int]]:
    """Item -> right and answered responses, of all draws that got their disposition in a step, in draw order. A draw
    that is carried over gets it later."""
    found: dict[int, tuple[int, int]] = {}
    for group in samples.groups:
        if group.disposition not in (None, "carried"):
            right, answered = right_of(group.rollouts)
            before = found.get(group.draw.item, (0, 0))
            found[group.draw.item] = before[0] + right, before[1] + answered
    return found


def learnability(right: int, answered: int) -> float:
    """p (1 - p) in [0, 0.25]; NaN where nothing is known. From whole numbers, so that p and 1 - p score the same."""
    return right * (answered - right) / answered**2 if answered else math.nan


def most_learnable(groups: Sequence[Group], first: int) -> list[Group]:
    """The groups by the score of their `first` rollouts, highest first; one without a score comes after all that have
    one, and a second group of an item after the first groups of all."""

    def place(group: Group) -> tuple[bool, float, int, int]:
        score = learnability(*right_of(group.rollouts[:first]))
        return math.isnan(score), -score if score == score else 0.0, group.draw.item, group.draw.ordinal

    firsts: dict[int, Group] = {}
    others = []
    for group in sorted(groups, key=place):
        if firsts.setdefault(group.draw.item, group) is not group:
            others.append(group)
    return [*firsts.values(), *others]
