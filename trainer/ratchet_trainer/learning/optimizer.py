"""The optimizer: AdamW (arXiv 1711.05101) behind a gradient norm limit; rates outside its state.

Decides how a gradient becomes new parameters.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ratchet_api.stages import Optimizer
from ratchet_trainer.learning.learning_rate import learning_rate
from ratchet_trainer.model.sharding import Params

B1, B2, EPSILON = 0.9, 0.999, 1e-8


class Moments(NamedTuple):
    """The state: how many updates were made, and the averages of the gradient and of its square."""

    count: jax.Array  # type: ignore[assignment]  # as optax calls it, and so every checkpoint
    mu: Params
    nu: Params


def init(params: Params) -> Moments:
    """A fresh state: zero moments, shapes as the parameters."""
    return Moments(jnp.zeros((), jnp.int32), *(jax.tree.map(jnp.zeros_like, params) for _ in range(2)))


def numbers(settings: Optimizer, updates: int) -> dict[str, float]:
    """The arguments of `step`: numbers, so that changing them compiles nothing."""
    return {
        "learning_rate": learning_rate(settings, updates),
        "weight_decay": float(settings.weight_decay),
        "clip_norm": float(settings.clip_norm),
    }


def step(
    gradient: Params, loss: jax.Array, state: Any, params: Params, settings: dict[str, jax.Array]
) -> tuple[Params, Any, jax.Array]:
    """New parameters, new state and the gradient's norm before the limit. Matrices decay, vectors do not. Where loss or
    norm is no number, parameters and state are the old ones."""
    import optax  # when something is traced: it takes long to import

    norm = optax.tree.norm(gradient)
    sound = jnp.isfinite(norm) & jnp.isfinite(loss)
    # A product, not optax's quotient: XLA computes it again wherever it is used, and keeps no second gradient.
    within = settings["clip_norm"] / jnp.maximum(norm, settings["clip_norm"])
    # Always 1, which no compiler can know. XLA's CPU backend puts a cheap expression into each of its users: parameters
    # would be moved by moments computed a second time, from a copy of the old ones. A quotient is computed once.
    one = jnp.where(state.count >= 0, 1.0, 2.0)

    def averaged(old: jax.Array, decay: float, new: jax.Array) -> jax.Array:
        return jnp.where(sound, decay * old + (1 - decay) * new, old) / one

    first = jax.tree.map(lambda m, g: averaged(m, B1, g * within), state.mu, gradient)
    second = jax.tree.map(lambda v, g: averaged(v, B2, jnp.square(g * within)), state.nu, gradient)
    count = jnp.where(sound, state.count + 1, state.count)
    unbiased = [1 / (1 - decay ** count.astype(jnp.float32)) for decay in (B1, B2)]

    def moved(p: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
        direction = m * unbiased[0] / (jnp.sqrt(v * unbiased[1]) + EPSILON)
        decay = settings["weight_decay"] * p if p.ndim > 1 else 0.0
        return jnp.where(sound, p - settings["learning_rate"] * (direction + decay), p)

    return jax.tree.map(moved, params, first, second), state._replace(count=count, mu=first, nu=second), norm
