"""Activation checkpointing: of a block's pass only what goes in is kept, the rest is computed again for the gradient.

Decides how the second computation is kept apart from the first. `jax.checkpoint` says so by an optimization barrier,
which XLA's CPU backend drops before it merges equal expressions and orders what is left: the block is computed once
and all of it kept. Here the second computation starts from a choice between what went in and the gradient that comes
back, made by a number of the run: no compiler can know how it ends, so nothing is merged, and nothing begins before the
gradient is there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def recomputed(
    function: Callable[[Any, jax.Array, Any], jax.Array], weights: Any, x: jax.Array, others: Any, alive: jax.Array
) -> jax.Array:
    """function(weights, x, others), an array like x, which is differentiated by the first two. `alive`: bool[], true,
    and not known before the program runs."""
    return function(weights, x, others)


def _forward(function: Any, weights: Any, x: jax.Array, others: Any, alive: jax.Array) -> tuple[jax.Array, Any]:
    return function(weights, x, others), (weights, x, others, alive)


def _backward(function: Any, kept: Any, d: jax.Array) -> tuple[Any, jax.Array, None, None]:
    weights, x, others, alive = kept
    _, back = jax.vjp(lambda weights, x: function(weights, x, others), weights, jnp.where(alive, x, d))
    return *back(d), None, None


recomputed.defvjp(_forward, _backward)
