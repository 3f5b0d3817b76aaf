"""What lies between the matrix products: norms, gates, and taking products apart, with derivatives written by hand.

Decides their arithmetic only. By itself XLA's CPU backend makes a padded sum of the derivative of every slice and keeps
every intermediate; by hand the update takes two thirds of the time (`bench/trainer.py`).

Letters: M rows (tokens of all sequences), D width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp


def _gelu_tanh(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    inner = 0.7978845608028654 * (x + 0.044715 * x**3)
    t = jnp.tanh(inner)
    slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * 0.7978845608028654 * (1 + 3 * 0.044715 * x * x)
    return 0.5 * x * (1 + t), slope


def _gelu(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    below = 0.5 * (1 + jax.lax.erf(x * 0.7071067811865476))
    return x * below, below + x * jnp.exp(-0.5 * x * x) * 0.3989422804014327


def _silu(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    s = jax.nn.sigmoid(x)
    return x * s, s * (1 + x * (1 - s))


GATES: dict[str, Callable[[jax.Array], tuple[jax.Array, jax.Array]]] = {
    "silu": _silu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
}
"""Name -> value and slope."""


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def gated(h: jax.Array, gate: str) -> jax.Array:
    """gate(left half) x right half (arXiv 2002.05202): [M, 2 H] -> [M, H]."""
    left, right = jnp.split(h.astype(jnp.float32), 2, -1)
    return (GATES[gate](left)[0] * right).astype(h.dtype)


def _gated_backward(gate: str, h: jax.Array, d: jax.Array) -> tuple[jax.Array]:
    left, right = jnp.split(h.astype(jnp.float32), 2, -1)
    value, slope = GATES[gate](left)
    d = d.astype(jnp.float32)
    return (jnp.concatenate([d * right * slope, d * value], -1).astype(h.dtype),)


gated.defvjp(lambda h, gate: (gated(h, gate), h), _gated_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def rms_norm(x: jax.Array, scale: jax.Array, epsilon: float) -> jax.Array:
    """x / sqrt(mean(x^2) + epsilon) x scale over the last axis (arXiv 1910.07467)."""
    return _norm_forward(x, scale, epsilon)[0]


def _norm_forward(x: jax.Array, scale: jax.Array, epsilon: float):
    wide = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(wide * wide, -1, keepdims=True) + epsilon)
    return (wide * inverse * scale).astype(x.dtype), (x, inverse, scale)


def _norm_backward(epsilon: float, kept, d: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, inverse, scale = kept
    d = d.astype(jnp.float32)
    normal, by_scale = x.astype(jnp.float32) * inverse, d * scale
    d_scale = jnp.sum(d * normal, tuple(range(d.ndim - 1)))
    d_x = inverse * (by_scale - normal * jnp.mean(by_scale * normal, -1, keepdims=True))
    return d_x.astype(x.dtype), d_scale


rms_norm.defvjp(_norm_forward, _norm_backward)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def split(h: jax.Array, widths: tuple[int, ...], axis: int = -1) -> tuple[jax.Array, ...]:
    """[..., sum(widths), ...] -> one [..., width, ...] each, along `axis`."""
    ends = [sum(widths[: i + 1]) for i in range(len(widths))]
    pairs = zip(widths, ends, strict=True)
    return tuple(jax.lax.slice_in_dim(h, end - width, end, axis=axis) for width, end in pairs)


split.defvjp(
    lambda h, widths, axis: (split(h, widths, axis), None), lambda widths, axis, _, d: (jnp.concatenate(d, axis),)
)
