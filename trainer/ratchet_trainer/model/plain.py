"""What lies between the matrix products, written as it is meant: norms, gates, rotation, attention.

The path of accelerators: JAX differentiates it, XLA fuses it, `jax.checkpoint` and `jax.nn.dot_product_attention` do
what they are there for. `cpu` has the same functions with the same meaning, and what XLA's CPU backend needs to be
fast. Decides arithmetic only; which of the two a model uses, `computation` says.

Letters: M rows (tokens of all sequences), D width, P prompts, G responses of each, T new tokens, S own slots, C prompt
slots, N query heads in groups that share one of M heads of keys and values, K head width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ratchet_trainer.model.architecture import Rope
from ratchet_trainer.model.visibility import Sight

MASKED = -1e30

Turn = tuple[jax.Array, jax.Array]
"""Cosine and sine of every token's angles, [..., P, G or 1, T, 1, 1, K / 2] each."""
Pair = tuple[jax.Array, jax.Array]

GATES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "silu": jax.nn.silu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
}


def gated(h: jax.Array, gate: str) -> jax.Array:
    """gate(left half) x right half (arXiv 2002.05202): [M, 2 H] -> [M, H]."""
    left, right = jnp.split(h.astype(jnp.float32), 2, -1)
    return (GATES[gate](left) * right).astype(h.dtype)


def rms_norm(x: jax.Array, scale: jax.Array, epsilon: float) -> jax.Array:
    """x / sqrt(mean(x^2) + epsilon) x scale over the last axis (arXiv 1910.07467)."""
    wide = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(wide * wide, -1, keepdims=True) + epsilon)
    return (wide * inverse * scale).astype(x.dtype)


def split(h: jax.Array, widths: tuple[int, ...], axis: int = -1) -> tuple[jax.Array, ...]:
    """[..., sum(widths), ...] -> one [..., width, ...] each, along `axis`."""
    ends = [sum(widths[: i + 1]) for i in range(len(widths))]
    pairs = zip(widths, ends, strict=True)
    return tuple(jax.lax.slice_in_dim(h, end - width, end, axis=axis) for width, end in pairs)


def turn(positions: jax.Array, rope: Rope, width: int, alive: jax.Array) -> Turn:
    """The angles of `positions` [..., P, G or 1, T] for heads of this width. `alive` is for `cpu` alone."""
    angle = positions[..., None, None, None].astype(jnp.float32) * rope.frequencies(width)
    return rope.attention * jnp.cos(angle), rope.attention * jnp.sin(angle)


def rotate(x: jax.Array, by: Turn) -> jax.Array:
    """Rotary embedding, halves layout: x [P, G, T, N, K] -> like x."""
    cosine, sine = by
    halves = x.reshape(*x.shape[:-1], 2, x.shape[-1] // 2)
    left, right = halves[..., :1, :], halves[..., 1:, :]
    turned = jnp.concatenate([left * cosine - right * sine, right * cosine + left * sine], -2)
    return turned.reshape(x.shape).astype(x.dtype)


def attend(
    query: jax.Array, own: Pair, prompt: Pair | None, sight: Sight, cap: float | None, mesh: Mesh | None = None
) -> jax.Array:
    """Softmax attention of `query` [P, G, T, N, K], scaled already, to own keys and values [P, M, G, S, K] and to those
    of the prompt [P, M, C, K], as far as they are in `sight`; scores are capped by cap x tanh(score / cap). `mesh` is
    for `tpu` alone.

    Many new tokens get keys and values of prompt and response side by side, repeated for each response. A single one
    reads the prompt's once for its whole group: reading is all that decoding waits for.
    """
    visible, seen = sight.masks()
    if query.shape[2] == 1 or cap is not None:
        return _attend_in_two_parts(query, own, prompt, visible, seen, cap)
    p, g, t, n, k = query.shape

    def rows(x: jax.Array) -> jax.Array:
        return x.transpose(0, 2, 3, 1, 4).reshape(p * g, -1, x.shape[1], k)

    both, mask = [rows(x) for x in own], jnp.broadcast_to(visible, (p, t, visible.shape[-1]))
    if prompt is not None:
        assert seen is not None, "there are prompt slots"
        repeated = [jnp.broadcast_to(x[:, :, None], (*x.shape[:2], g, *x.shape[2:])) for x in prompt]
        both = [jnp.concatenate([rows(a), b], 1) for a, b in zip(repeated, both, strict=True)]
        mask = jnp.concatenate([jnp.broadcast_to(seen, (p, t, seen.shape[-1])), mask], -1)
    mask = jnp.repeat(mask, g, 0)[:, None]
    keys, values = both
    found = jax.nn.dot_product_attention(query.reshape(p * g, t, n, k), keys, values, mask=mask, scale=1.0)
    return found.reshape(query.shape)


def _attend_in_two_parts(
    query: jax.Array, own: Pair, prompt: Pair | None, visible: jax.Array, seen: jax.Array | None, cap: float | None
) -> jax.Array:
    """One softmax over the scores of both; those of each are a product of its own."""
    p, g, t, n, k = query.shape
    query = query.reshape(p, g, t, own[0].shape[1], -1, k)

    def scores(letters: str, keys: jax.Array, mask: jax.Array) -> jax.Array:
        found = jnp.einsum(letters, query, keys, preferred_element_type=jnp.float32)
        found = found if cap is None else cap * jnp.tanh(found / cap)
        return jnp.where(mask[:, None, :, None, None], found, MASKED)

    parts = [scores("pgtmrk,pmgsk->pgtmrs", own[0], visible)]
    if prompt is not None:
        assert seen is not None, "there are prompt slots"
        parts.append(scores("pgtmrk,pmck->pgtmrc", prompt[0], seen))
    weights = jax.nn.softmax(jnp.concatenate(parts, -1), -1).astype(query.dtype)
    out = jnp.einsum("pgtmrs,pmgsk->pgtmrk", weights[..., : visible.shape[-1]], own[1])
    if prompt is not None:
        out = out + jnp.einsum("pgtmrc,pmck->pgtmrk", weights[..., visible.shape[-1] :], prompt[1])
    return out.reshape(p, g, t, n, k)


def recomputed(
    function: Callable[[Any, jax.Array, Any], jax.Array], weights: Any, x: jax.Array, others: Any, alive: jax.Array
) -> jax.Array:
    """function(weights, x, others), of which the gradient's pass computes the inside again. `alive` is for `cpu`
    alone."""
    found: jax.Array = jax.checkpoint(function)(weights, x, others)
    return found
