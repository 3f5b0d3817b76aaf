"""Attention of response tokens to a shared prompt and to themselves, and rotary positions.

Decides the arithmetic only. A prompt's keys and values exist once for its whole group of G responses: they are read in
place, never repeated (G times less memory and work). What is kept between calls is in `kv_cache`.

Letters: P prompts, G responses of each, T new tokens, S own slots, C prompt slots, N heads, K head width.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

MASKED = -1e30


def rotate(x: jax.Array, positions: jax.Array, base: float) -> jax.Array:
    """Rotary embedding (arXiv 2104.09864), halves layout. x [P, G, T, N, K], positions [P, G, T] -> like x."""
    half = x.shape[-1] // 2
    frequency = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions[..., None, None].astype(jnp.float32) * frequency
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * jnp.cos(angle) - b * jnp.sin(angle), b * jnp.cos(angle) + a * jnp.sin(angle)], -1)


def attend(
    query: jax.Array,
    own: tuple[jax.Array, jax.Array],
    first: jax.Array | int,
    context: tuple[jax.Array, jax.Array] | None,
    context_length: jax.Array | None,
) -> jax.Array:
    """Softmax attention, float32.

    query [P, G, T, N, K]; own = keys and values [P, G, S, N, K] of which new token t sees slots 0..first+t;
    context = keys and values [P, C, N, K] of which the first context_length[p] are real. Returns [P, G, T, N, K].
    """
    keys, values = own
    scale = query.shape[-1] ** -0.5
    t, s = query.shape[2], keys.shape[2]
    scores = jnp.einsum("pgtnk,pgsnk->pgnts", query, keys) * scale
    visible = jnp.arange(s)[None, :] <= first + jnp.arange(t)[:, None]
    scores = jnp.where(visible, scores, MASKED)
    if context is None:
        return jnp.einsum("pgnts,pgsnk->pgtnk", jax.nn.softmax(scores, -1), values)
    past_keys, past_values = context
    past = jnp.einsum("pgtnk,pcnk->pgntc", query, past_keys) * scale
    real = jnp.arange(past_keys.shape[1])[None, :] < context_length[:, None]
    past = jnp.where(real[:, None, None, None, :], past, MASKED)
    weights = jax.nn.softmax(jnp.concatenate([past, scores], -1), -1)
    split = past_keys.shape[1]
    return jnp.einsum("pgntc,pcnk->pgtnk", weights[..., :split], past_values) + jnp.einsum(
        "pgnts,pgsnk->pgtnk", weights[..., split:], values
    )
