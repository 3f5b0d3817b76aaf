"""How much a reward part counts: its weight, in a cycle of steps where it has one (ProRL v2: 100 steps on, 500 off)."""

from __future__ import annotations

from dataclasses import dataclass

from ratchet_api.rewards import Reward
from ratchet_trainer.algorithm.slots import Context


@dataclass(frozen=True)
class Weight:
    """`size` for `on` steps, then 0 for `off` steps, and so on from the first step of the stage; off = 0: always."""

    size: float
    on: int = 1
    off: int = 0

    @staticmethod
    def of(reward: Reward) -> Weight:
        if reward.cycle is None:
            return Weight(float(reward.weight))
        return Weight(float(reward.weight), reward.cycle.on, reward.cycle.off)

    def at(self, ctx: Context) -> float:
        """At step ctx.step. Follows from the step's number alone, so a restart is in the same place of the cycle."""
        since_start = ctx.step - ctx.start_step - 1  # 0 at the stage's first step
        return self.size if since_start % (self.on + self.off) < self.on else 0.0
