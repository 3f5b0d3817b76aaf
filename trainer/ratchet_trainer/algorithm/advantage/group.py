"""Advantage by group: each token of a response earns how much better the response was than its group.

Decides advantages and each group's fate. Statistics are float64 on the host, left to right, so that they are the same
on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter

import numpy as np

from ratchet_api.stages import Rl
from ratchet_trainer.algorithm.advantage.statistics import real_tokens, whitened
from ratchet_trainer.algorithm.objective.drift import Kl, estimate
from ratchet_trainer.algorithm.slots import Context, CriticSettings, ModelOutputs
from ratchet_trainer.algorithm.types import Batch, Group, Rollout, Rounds

DELTA = 1e-6
"""Added to a group's standard deviation."""


def _over_std(rewards: Sequence[float], mean: float, delta: float) -> list[float]:
    variance = sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1)
    return [(r - mean) / (variance**0.5 + delta) for r in rewards]


ESTIMATORS: dict[str, Callable[[Sequence[float], float, float], list[float]]] = {
    # estimator -> advantages from rewards, their mean and delta
    "mean-std": _over_std,  # GRPO, arXiv 2402.03300, section 4.1.2; ddof 1
    "mean": lambda rewards, mean, delta: [r - mean for r in rewards],  # Dr. GRPO, arXiv 2503.20783
    # RLOO, arXiv 2402.14740: the mean of the others is the baseline.
    "leave-one-out": lambda rewards, mean, delta: [r - (sum(rewards) - r) / (len(rewards) - 1) for r in rewards],
    # REINFORCE++-baseline, arXiv 2501.03262: whitened afterwards, over all tokens of the batch.
    "batch-whitened": lambda rewards, mean, delta: [r - mean for r in rewards],
}


def group_advantages(rewards: Sequence[float], estimator: str = "mean-std", delta: float = DELTA) -> np.ndarray:
    """How much better each of n >= 2 rewards of one prompt is than its group, float64[n].

    A group whose rewards are all equal gets exactly 0: by the formulas, rounding of the mean over a tiny delta would
    become an advantage.
    """
    if len(rewards) < 2:
        raise ValueError("a group of one has nothing to be compared with")
    if max(rewards) == min(rewards):
        return np.zeros(len(rewards))
    rewards = [float(r) for r in rewards]
    return np.array(ESTIMATORS[estimator](rewards, sum(rewards) / len(rewards), delta))


def token_advantages(
    rewards: Sequence[Sequence[float]],
    lengths: np.ndarray,
    slots: int,
    estimator: str,
    delta: float,
    forced: np.ndarray | int = 0,
) -> np.ndarray:
    """Advantages of a whole batch, float64[R, slots], from the rewards of each group and the responses' lengths
    int[R]; 0 where no token is, and at the first `forced` of a response, which nobody chose."""
    real = real_tokens(lengths, slots, forced)
    of_rows = np.concatenate([group_advantages(group, estimator, delta) for group in rewards])
    advantages = np.where(real, of_rows[:, None], 0.0)
    return whitened(advantages, real) if estimator == "batch-whitened" else advantages


def penalties(penalty: Kl, outputs: ModelOutputs, real: np.ndarray) -> np.ndarray:
    """What drift takes off the reward at each token, float64[R, T]; 0 where no token is."""
    drift = estimate(penalty.estimator, outputs.old, outputs.reference, penalty.limit, np)
    return np.where(real, penalty.coefficient * drift, 0.0)


def without_cut(advantages: np.ndarray, rollouts: Sequence[Rollout]) -> np.ndarray:
    """Advantages [R, T] where a response that the length limit cut earns nothing (SRPO, arXiv 2504.14286). Its reward
    has had its part in all statistics, and its tokens keep theirs in the loss's denominator."""
    cut = np.array([r.finish == "length" for r in rollouts], bool)
    return np.where(cut[:, None], 0.0, advantages)


@dataclass(frozen=True)
class GroupAdvantage:
    """Advantage of `estimator` (a row of ESTIMATORS). With `penalty`, a response's drift, summed over its tokens, comes
    off its reward before the comparison. `masks_cut`: as `without_cut`. `by_tag`: a response is compared with those of
    the same tag in its group, so with those to the same template."""

    estimator: str
    delta: float = DELTA
    penalty: Kl | None = None
    masks_cut: bool = False
    by_tag: bool = False

    @property
    def critic(self) -> CriticSettings | None:
        return None

    def samples(self, rl: Rl) -> tuple[int, ...]:
        return ()

    def assign(self, groups: Sequence[Group], outputs: ModelOutputs, ctx: Context) -> Rounds[Batch]:
        rollouts = tuple(r for g in groups for r in g.rollouts)
        lengths = np.array([len(r.response) for r in rollouts])
        slots, forced = ctx.rl.max_response_tokens, np.array([r.forced for r in rollouts])
        rewards = [compared for g in groups for compared in self._compared(g)]
        if self.penalty is not None:
            real = real_tokens(lengths, slots, forced)
            off = iter(np.add.accumulate(penalties(self.penalty, outputs, real), 1)[:, -1])
            rewards = [[reward - float(next(off)) for reward in group] for group in rewards]
        advantages = token_advantages(rewards, lengths, slots, self.estimator, self.delta, forced)
        return Batch(rollouts, without_cut(advantages, rollouts) if self.masks_cut else advantages)
        yield  # a generator that needs no round

    def _compared(self, group: Group) -> list[list[float]]:
        """The rewards of a group, in order, by those that are compared with one another."""
        if not self.by_tag:
            return [list(group.rewards)]
        pairs = zip((r.request.tag for r in group.rollouts), group.rewards, strict=True)
        return [[reward for _, reward in same] for _, same in groupby(pairs, key=itemgetter(0))]

    def disposition(self, group: Group) -> Group:
        """Constant groups teach nothing (their advantages are 0) but count in denominators; where drift or the batch
        have a say in advantages, every group teaches."""
        differs = any(max(rewards) > min(rewards) for rewards in self._compared(group))
        if differs or self.penalty is not None or self.estimator == "batch-whitened":
            return replace(group, disposition="trained")
        right = all(r.outcome.accuracy == 1.0 for r in group.rollouts)
        return replace(group, disposition="all_right" if right else "all_wrong")
