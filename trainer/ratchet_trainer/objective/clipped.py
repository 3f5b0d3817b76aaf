"""Objective `clipped`: the clipped ratio surrogate (PPO, arXiv 1707.06347, equation 7) on each token, averaged over
each response and then over responses, as GRPO does (arXiv 2402.03300, equation 3)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import jax
import jax.numpy as jnp
import numpy as np

from ratchet_trainer.slots import Metrics, Micro

LOG_RATIO_LIMIT = 20.0
"""Beyond it exp would overflow; the ratio is clipped there anyway, or its surrogate's gradient is lost."""


def sequence_mean_token_mean(lengths: np.ndarray, slots: int) -> np.ndarray:
    """1 / (responses x own length) for each real token; float64[R, T] from int[R]."""
    lengths = np.asarray(lengths, np.int64)
    real = np.arange(slots) < lengths[:, None]
    responses = max(1, int((lengths > 0).sum()))
    return real / (responses * np.maximum(lengths, 1)[:, None].astype(np.float64))


def surrogate(log_ratio: jax.Array, advantages: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """min(rho A, clip(rho, 1 - low, 1 + high) A), elementwise, to be maximised."""
    ratio = jnp.exp(jnp.clip(log_ratio, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))
    return jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - low, 1 + high) * advantages)


@dataclass(frozen=True)
class ClippedRatio:
    clip_low: float
    clip_high: float

    def settings(self) -> dict[str, float]:
        return asdict(self)

    def weights(self, lengths: np.ndarray, slots: int) -> np.ndarray:
        return sequence_mean_token_mean(lengths, slots)

    def loss(self, log_probs: jax.Array, micro: Micro, settings: Metrics) -> tuple[jax.Array, Metrics]:
        old = jax.lax.stop_gradient(log_probs) if micro.old is None else micro.old
        low, high = settings["clip_low"], settings["clip_high"]
        log_ratio = log_probs - old
        gain = surrogate(log_ratio, micro.advantages, low, high)
        unclipped = jnp.exp(jnp.clip(log_ratio, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)) * micro.advantages
        return -jnp.sum(micro.weight * gain), {"clipped": jnp.sum(micro.weight * (gain < unclipped))}
