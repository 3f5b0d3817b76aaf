"""The rewards slot: a response is worth the weighted sum of its parts, added in the manifest's order in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ratchet_trainer.algorithm.rewards.weight import Weight
from ratchet_trainer.algorithm.slots import Context, RewardPart
from ratchet_trainer.algorithm.types import Group


@dataclass(frozen=True)
class Weighted:
    """`parts` and their weights."""

    parts: Sequence[tuple[Weight, RewardPart]]

    def score(self, group: Group, ctx: Context) -> Group:
        """The group with `rewards` and `parts`."""
        values = {part.name: tuple(map(float, part.of(group, ctx))) for _, part in self.parts}
        rewards = [0.0] * len(group.rollouts)
        for weight, part in self.parts:
            size = weight.at(ctx)
            rewards = [total + size * value for total, value in zip(rewards, values[part.name], strict=True)]
        return replace(group, rewards=tuple(rewards), parts=values)
