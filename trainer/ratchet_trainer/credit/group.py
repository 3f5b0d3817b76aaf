"""Credit `group`: each token of a response earns how much better it was than its group (GRPO, arXiv 2402.03300, 4.1.2).

Decides advantages and each group's fate. Statistics are float64 on the host, left to right, so that they are the same
on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ratchet_trainer.rollout.types import Batch, Group, Rounds
from ratchet_trainer.slots import Context


def group_advantages(rewards: Sequence[float], delta: float) -> np.ndarray:
    """(r - mean) / (std + delta), std with ddof 1; float64[n] for n >= 2 rewards of one prompt.

    A group whose rewards are all equal gets exactly 0: by the formula, rounding of the mean over a tiny delta would
    become an advantage.
    """
    if len(rewards) < 2:
        raise ValueError("a group of one has nothing to be compared with")
    if max(rewards) == min(rewards):
        return np.zeros(len(rewards))
    mean = sum(map(float, rewards)) / len(rewards)
    variance = sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1)
    return np.array([(r - mean) / (variance**0.5 + delta) for r in rewards])


@dataclass(frozen=True)
class GroupAdvantage:
    delta: float = 1e-6

    def assign(self, groups: Sequence[Group], ctx: Context) -> Rounds[Batch]:
        rollouts = tuple(r for g in groups for r in g.rollouts)
        of_rows = np.concatenate([group_advantages(g.rewards, self.delta) for g in groups])
        slots = ctx.rl.max_response_tokens
        return Batch(rollouts, np.broadcast_to(of_rows[:, None], (len(rollouts), slots)))
        yield  # a generator that needs no round

    def fate(self, group: Group) -> Group:
        """Constant groups teach nothing (their advantages are 0) but count in denominators."""
        if max(group.rewards) > min(group.rewards):
            return replace(group, fate="trained")
        right = all(r.outcome.accuracy == 1.0 for r in group.rollouts)
        return replace(group, fate="all_right" if right else "all_wrong")
