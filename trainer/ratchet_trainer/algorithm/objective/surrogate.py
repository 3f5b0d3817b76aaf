"""What each token gains when the policy moves: the Grad of the unified objective, one function a surrogate.

Decides ratios and their clipping. All arrays are [P, G, T]; padding holds finite values without meaning.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

LOG_RATIO_LIMIT = 20.0
"""Beyond it exp would overflow; the ratio is clipped there anyway, or its surrogate's gradient is lost."""

Gain = tuple[jax.Array, jax.Array]
"""What is to be maximized at each token, and at which side its ratio was clipped: -1 low, 1 high, 0 not at all."""


def ratio_of(log_ratio: jax.Array) -> jax.Array:
    return jnp.exp(jnp.clip(log_ratio, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))


def clipped(log_ratio: jax.Array, advantages: jax.Array, low: jax.Array, high: jax.Array) -> Gain:
    """min(rho A, clip(rho, 1 - low, 1 + high) A), elementwise (PPO, arXiv 1707.06347, equation 7)."""
    ratio = ratio_of(log_ratio)
    free, bound = ratio * advantages, jnp.clip(ratio, 1 - low, 1 + high) * advantages
    return jnp.minimum(free, bound), jnp.where(bound < free, jnp.sign(advantages), 0.0)


def ppo(
    log_probs: jax.Array,
    log_ratio: jax.Array,
    real: jax.Array,
    advantages: jax.Array,
    low: jax.Array,
    high: jax.Array,
) -> Gain:
    """The clipped ratio of each token."""
    return clipped(log_ratio, advantages, low, high)


def gspo(
    log_probs: jax.Array,
    log_ratio: jax.Array,
    real: jax.Array,
    advantages: jax.Array,
    low: jax.Array,
    high: jax.Array,
) -> Gain:
    """The clipped ratio of the whole response, s = exp(mean log rho) (GSPO, arXiv 2507.18071), in its token form:
    log s_t = sg(log s) + log pi - sg(log pi). Averaged over each response it has the value and gradient of the
    response's own form, so only the aggregation seq-mean-token-mean is right with it."""
    length = jnp.maximum(1.0, jnp.sum(real, -1, keepdims=True))
    log_s = jnp.sum(jnp.where(real, log_ratio, 0.0), -1, keepdims=True) / length
    return clipped(stop_gradient(log_s) + log_probs - stop_gradient(log_probs), advantages, low, high)


def cispo(
    log_probs: jax.Array,
    log_ratio: jax.Array,
    real: jax.Array,
    advantages: jax.Array,
    low: jax.Array,
    high: jax.Array,
) -> Gain:
    """sg(clip(rho, 1 - low, 1 + high)) A log pi: no token loses its gradient (MiniMax-M1, arXiv 2506.13585).

    Both widths are distances from 1. Elsewhere (TRL) the upper one is the bound itself: an `epsilon_high` of 5.0 there
    is a `high` of 4.0 here.
    """
    ratio = stop_gradient(ratio_of(log_ratio))
    bound = jnp.clip(ratio, 1 - low, 1 + high)
    return bound * advantages * log_probs, jnp.sign(ratio - bound)


SURROGATES: dict[str, Callable[..., Gain]] = {"ppo": ppo, "gspo": gspo, "cispo": cispo}


def dual_clipped(gain: jax.Array, advantages: jax.Array, limit: jax.Array) -> jax.Array:
    """max(gain, limit A) where A < 0: a token that the policy now likes far better than it did is not pushed down
    without bound (arXiv 1912.09729, equation 5)."""
    return jnp.where(advantages < 0, jnp.maximum(gain, limit * advantages), gain)


def importance(log_ratio: jax.Array, cap: jax.Array) -> jax.Array:
    """min(pi_old / pi_behaviour, cap): what makes good for a sampler that is not quite the trainer's old policy."""
    return stop_gradient(jnp.minimum(ratio_of(log_ratio), cap))


def mean_of_response(values: jax.Array, real: jax.Array) -> jax.Array:
    """The mean over a response's tokens, at each of them."""
    length = jnp.maximum(1.0, jnp.sum(real, -1, keepdims=True))
    mean = jnp.sum(jnp.where(real, values, 0.0), -1, keepdims=True) / length
    return jnp.broadcast_to(mean, values.shape)
