"""Reward `accuracy`: 1 for a right response, 0 for any other."""

from __future__ import annotations

from dataclasses import replace

from ratchet_trainer.algorithm.slots import Context
from ratchet_trainer.algorithm.types import Group


class Accuracy:
    def score(self, group: Group, ctx: Context) -> Group:
        return replace(group, rewards=tuple(r.outcome.accuracy for r in group.rollouts))
