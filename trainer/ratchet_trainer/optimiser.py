"""The optimiser: AdamW behind a gradient norm limit, as optax has them; rates outside its state.

Decides how a gradient becomes new parameters. The learning rate is a function of the updates made in this stage,
computed on the host: inside the optax state a reset optimiser would restart the warm-up at rate 0.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ratchet_api.stages import Optimiser
from ratchet_trainer.model.policy import Params

FLOOR = 0.1
"""What is left of the peak rate after the decay."""


def learning_rate(settings: Optimiser, updates: int) -> float:
    """The rate of the update that follows `updates` updates of this stage: linear warm-up, then linear decay if any."""
    rise = min(1.0, (updates + 1) / (settings.warmup_updates + 1))
    fallen = (
        min(1.0, max(0, updates - settings.warmup_updates) / settings.decay_updates) if settings.decay_updates else 0.0
    )
    return float(settings.learning_rate) * rise * (1.0 - (1.0 - FLOOR) * fallen)


def init(params: Params) -> Any:
    """A fresh state: zero moments, shapes as the parameters."""
    return optax.scale_by_adam().init(params)


def numbers(settings: Optimiser, updates: int) -> dict[str, float]:
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
    norm = optax.tree.norm(gradient)
    sound = jnp.isfinite(norm) & jnp.isfinite(loss)
    before = state
    gradient, _ = optax.clip_by_global_norm(settings["clip_norm"]).update(gradient, optax.EmptyState())
    direction, state = optax.scale_by_adam().update(gradient, state, params)

    def move(p: jax.Array, d: jax.Array) -> jax.Array:
        decay = settings["weight_decay"] * p if p.ndim > 1 else 0.0
        return jnp.where(sound, p - settings["learning_rate"] * (d + decay), p)

    state = jax.tree.map(lambda new, old: jnp.where(sound, new, old), state, before)
    return jax.tree.map(move, params, direction), state, norm
