"""Reward part `accuracy`: what the verifier said. 1 or 0, or its score, which may lie in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ratchet_trainer.algorithm.slots import Context
from ratchet_trainer.algorithm.types import Group


@dataclass(frozen=True)
class Accuracy:
    name: str = "accuracy"
    of_what: Literal["accuracy", "score"] = "accuracy"

    def of(self, group: Group, ctx: Context) -> Sequence[float]:
        return [getattr(r.outcome, self.of_what) for r in group.rollouts]
