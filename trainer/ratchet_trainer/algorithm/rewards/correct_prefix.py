"""Reward part `correctPrefix`: a wrong response earns by its steps before the first wrong one (SGPO, arXiv 2505.11595).

With RTS the share of a response's steps before its first wrong one, as a checker says (`verifiers.steps`):

    r = 1 / (1 + exp(-beta (RTS - gamma)))

so r rises with RTS and lies between 0 and 1, which a right response earns by its accuracy. A right response gets
0 here. The sign is that of the paper's text; a public implementation has the other one, by which longer right prefixes
earn less. Which wrong responses earn it is `scope`: those of a group without a right one, or all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ratchet_api.rewards import CorrectPrefixReward
from ratchet_trainer.algorithm.slots import Context
from ratchet_trainer.algorithm.types import Group


def worth(share: float, beta: float, gamma: float) -> float:
    """What a share of right steps in [0, 1] earns, in [0, 1]."""
    x = beta * (share - gamma)
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))  # neither overflows


@dataclass(frozen=True)
class CorrectPrefix:
    name: str
    beta: float
    gamma: float
    scope: Literal["failedGroups", "wrongResponses"]

    @staticmethod
    def of_settings(name: str, settings: CorrectPrefixReward) -> CorrectPrefix:
        return CorrectPrefix(name, float(settings.beta), float(settings.gamma), settings.scope)

    def of(self, group: Group, ctx: Context) -> Sequence[float]:
        right = [r.outcome.accuracy == 1.0 for r in group.rollouts]
        if any(right) and self.scope == "failedGroups":
            return [0.0] * len(right)
        shares = [r.outcome.parts.get(self.name, 0.0) for r in group.rollouts]
        return [
            0.0 if is_right else worth(share, self.beta, self.gamma)
            for is_right, share in zip(right, shares, strict=True)
        ]
