"""Advantage `gae`: each token earns how much better things went from there than the critic expected (generalized
advantage estimation, arXiv 1506.02438, as PPO uses it).

Decides advantages and what the critic learns from; the critic itself is in `critic`. Float64 on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ratchet_api.stages import Rl
from ratchet_trainer.algorithm.advantage.group import penalties, without_cut
from ratchet_trainer.algorithm.advantage.statistics import real_tokens, whitened
from ratchet_trainer.algorithm.objective.drift import Kl
from ratchet_trainer.algorithm.slots import Context, CriticSettings, ModelOutputs
from ratchet_trainer.algorithm.types import Batch, Group, Rounds


def gae(
    rewards: np.ndarray, values: np.ndarray, lengths: np.ndarray, gamma: float, lambda_: float
) -> tuple[np.ndarray, np.ndarray]:
    """Advantages (not whitened) and returns = advantages + values, float64[R, T], 0 where no token is.

    rewards, values [R, T]: at token t, what it was given and what was expected before it; lengths int[R]. After the
    last token nothing is expected, whether the response ended there or was cut.
    """
    real = real_tokens(lengths, values.shape[1])
    advantages = np.zeros(values.shape)
    later, expected = np.zeros(len(values)), np.zeros(len(values))
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * expected - values[:, t]
        later = np.where(real[:, t], delta + gamma * lambda_ * later, 0.0)
        expected = np.where(real[:, t], values[:, t], 0.0)
        advantages[:, t] = later
    return advantages, np.where(real, advantages + values, 0.0)


@dataclass(frozen=True)
class Gae:
    """A response's reward comes with its last token; with `penalty`, drift comes off at each. Advantages are whitened
    over the batch's tokens; the returns are those before that. `masks_cut`: as `without_cut`."""

    gamma: float
    lambda_: float
    critic: CriticSettings
    penalty: Kl | None = None
    masks_cut: bool = False

    def samples(self, rl: Rl) -> tuple[int, ...]:
        return ()

    def assign(self, groups: Sequence[Group], outputs: ModelOutputs, ctx: Context) -> Rounds[Batch]:
        assert outputs.values is not None, "a critic judges first"
        rollouts = tuple(r for g in groups for r in g.rollouts)
        lengths = np.array([len(r.response) for r in rollouts])
        real = real_tokens(lengths, ctx.rl.max_response_tokens, np.array([r.forced for r in rollouts]))
        rewards = np.zeros(real.shape)
        rewards[np.arange(len(lengths)), lengths - 1] = [reward for g in groups for reward in g.rewards]
        if self.penalty is not None:
            rewards -= penalties(self.penalty, outputs, real)
        advantages, returns = gae(rewards, outputs.values, lengths, self.gamma, self.lambda_)
        white = whitened(advantages, real)
        return Batch(rollouts, without_cut(white, rollouts) if self.masks_cut else white, returns, outputs.values)
        yield  # a generator that needs no round

    def disposition(self, group: Group) -> Group:
        """A critic expects something of every response, so every group teaches."""
        return replace(group, disposition="trained")
