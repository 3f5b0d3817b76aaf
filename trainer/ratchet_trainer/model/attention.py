"""Attention of response tokens to a shared prompt and to themselves, and rotary positions.

Decides the arithmetic only. A prompt's keys and values exist once for its whole group of G responses, and those of a
group of query heads once for it: they are read in place, never repeated. What is kept between calls is in `kv_cache`.
Derivatives are written by hand (see `activations`): the weights are kept, the scores are not.

Letters: P prompts, G responses of each, T new tokens, S own slots, C prompt slots, N query heads in M groups of R,
K head width, X = R T.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from ratchet_trainer.model.architecture import Rope

MASKED = -1e30

Turn = tuple[jax.Array, jax.Array]
"""Cosine and sine of every token's angles, [..., P, G or 1, T, 1, 1, K / 2] each."""


def turn(positions: jax.Array, rope: Rope, width: int, alive: jax.Array) -> Turn:
    """The angles of `positions` [..., P, G or 1, T] for heads of this width.

    They depend on `alive`, bool[], true and not known before the program runs: else XLA's CPU backend computes the
    cosine anew wherever something is turned, for every response and head, which took a seventh of a generation's time.
    """
    angle = positions[..., None, None, None].astype(jnp.float32) * rope.frequencies(width)
    made = lambda: (rope.attention * jnp.cos(angle), rope.attention * jnp.sin(angle))  # noqa: E731
    return jax.lax.cond(alive, made, lambda: (angle, angle))


@jax.custom_vjp
def rotate(x: jax.Array, by: Turn) -> jax.Array:
    """Rotary embedding, halves layout: x [P, G, T, N, K] -> like x."""
    return _rotated(x, *by)


def _rotated(x: jax.Array, cosine: jax.Array, sine: jax.Array) -> jax.Array:
    halves = x.reshape(*x.shape[:-1], 2, x.shape[-1] // 2)
    left, right = halves[..., :1, :], halves[..., 1:, :]
    turned = jnp.concatenate([left * cosine - right * sine, right * cosine + left * sine], -2)
    return turned.reshape(x.shape).astype(x.dtype)


rotate.defvjp(lambda x, by: (rotate(x, by), by), lambda by, d: (_rotated(d, by[0], -by[1]), None))


def attend(
    query: jax.Array,
    own: tuple[jax.Array, jax.Array],
    first: jax.Array | int,
    context: tuple[jax.Array, jax.Array] | None,
    context_length: jax.Array | None,
    window: int | None = None,
    cap: float | None = None,
) -> jax.Array:
    """Softmax attention; `query` is scaled already. Scores and softmax are float32, products in the query's format.

    query [P, G, T, N, K]; own = keys and values [P, M, G, S, K] of which new token t sees slots 0..first+t, where
    `first` is one number or int32[P];
    context = keys and values [P, M, C, K] of which the first context_length[p] are real. Of both, at most the latest
    `window` are seen. Returns [P, G, T, N, K].
    """
    p, g, t, n, k = query.shape
    m, s = own[0].shape[1], own[0].shape[3]
    grouped = query.reshape(p, g, t, m, n // m, k).transpose(0, 3, 1, 4, 2, 5).reshape(p, m, g, n // m * t, k)
    at = jnp.tile(
        jnp.asarray(first)[..., None] + jnp.arange(t), n // m
    )  # own slot of each of the X queries, [X] or [P, X]
    visible = jnp.arange(s) <= at[..., None]
    if context is None:
        context, seen = (jnp.zeros((p, m, 0, k), query.dtype),) * 2, jnp.ones((1, 1, 1, 1, 0), bool)
    else:
        assert context_length is not None
        slot = jnp.arange(context[0].shape[2])
        seen = (slot < context_length[:, None])[:, None, None, None, :]
        if window is not None:
            apart = context_length[:, None, None] + at[..., None] - slot
            seen = seen & (apart < window)[:, None, None]
    if window is not None:
        visible = visible & (at[..., None] - jnp.arange(s) < window)
    if at.ndim > 1:
        visible = visible[:, None, None]
    out = _attend(grouped, *own, *context, visible, seen, cap)
    return out.reshape(p, m, g, n // m, t, k).transpose(0, 2, 4, 1, 3, 5).reshape(p, g, t, n, k)


def _scores(query: jax.Array, keys: jax.Array, cap: float | None, letters: str) -> tuple[jax.Array, jax.Array | None]:
    """Scores and, with a cap, their slope."""
    scores = jnp.einsum(letters, query, keys, preferred_element_type=jnp.float32)
    if cap is None:
        return scores, None
    bent = jnp.tanh(scores / cap)
    return cap * bent, 1 - bent * bent


def _forward(query, keys, values, past_keys, past_values, visible, seen, cap):
    own, own_slope = _scores(query, keys, cap, "pmgxk,pmgsk->pmgxs")
    past, past_slope = _scores(query, past_keys, cap, "pmgxk,pmck->pmgxc")
    own, past = jnp.where(visible, own, MASKED), jnp.where(seen, past, MASKED)
    highest = jnp.maximum(own.max(-1, keepdims=True), past.max(-1, keepdims=True, initial=MASKED))
    own, past = jnp.exp(own - highest), jnp.exp(past - highest)
    total = own.sum(-1, keepdims=True) + past.sum(-1, keepdims=True)
    own, past = ((x / total).astype(query.dtype) for x in (own, past))
    out = jnp.einsum("pmgxs,pmgsk->pmgxk", own, values) + jnp.einsum("pmgxc,pmck->pmgxk", past, past_values)
    return out, (own, past, own_slope, past_slope)


@partial(jax.custom_vjp, nondiff_argnums=(7,))
def _attend(query, keys, values, past_keys, past_values, visible, seen, cap):
    return _forward(query, keys, values, past_keys, past_values, visible, seen, cap)[0]


def _attend_forward(query, keys, values, past_keys, past_values, visible, seen, cap):
    out, kept = _forward(query, keys, values, past_keys, past_values, visible, seen, cap)
    return out, (query, keys, values, past_keys, past_values, out, *kept)


def _attend_backward(cap, kept, d):
    query, keys, values, past_keys, past_values, out, own, past, own_slope, past_slope = kept
    product = partial(jnp.einsum, preferred_element_type=jnp.float32)
    shared = jnp.sum((d * out).astype(jnp.float32), -1, keepdims=True)
    d_own = own * (product("pmgxk,pmgsk->pmgxs", d, values) - shared)
    d_past = past * (product("pmgxk,pmck->pmgxc", d, past_values) - shared)
    if cap is not None:
        d_own, d_past = d_own * own_slope, d_past * past_slope
    d_own, d_past = d_own.astype(query.dtype), d_past.astype(query.dtype)
    return (
        jnp.einsum("pmgxs,pmgsk->pmgxk", d_own, keys) + jnp.einsum("pmgxc,pmck->pmgxk", d_past, past_keys),
        jnp.einsum("pmgxs,pmgxk->pmgsk", d_own, query),
        jnp.einsum("pmgxs,pmgxk->pmgsk", own, d),
        jnp.einsum("pmgxc,pmgxk->pmck", d_past, query),
        jnp.einsum("pmgxc,pmgxk->pmck", past, d),
        None,
        None,
    )


_attend.defvjp(_attend_forward, _attend_backward)
