"""`plain` for XLA's CPU backend: the same functions, with what makes them fast there. Every trick of that kind is here.

Decides how, never what: `tests/trainer/test_paths.py` holds both to the same numbers. The tricks, measured by
`bench/trainer.py` and `bench/memory.py`:

* Derivatives written by hand. By itself the backend makes a padded sum of the derivative of every slice and keeps
  every intermediate; by hand the update takes two thirds of the time. Attention keeps its weights, not its scores.
* Keys and values of a prompt and of a group of query heads are read in place, never repeated.
* Angles behind a condition that always holds: else their cosine is computed anew wherever something is turned.
* Activation checkpointing by a choice that no compiler can see through, because the backend drops the barrier by which
  `jax.checkpoint` keeps both computations apart, merges them and keeps everything.

Letters as in `plain`; R query heads share one of M, X = R T.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ratchet_trainer.model import plain
from ratchet_trainer.model.architecture import Rope
from ratchet_trainer.model.plain import MASKED, Pair, Turn
from ratchet_trainer.model.visibility import Sight

Kept = tuple[jax.Array, ...]
"""What a derivative needs of its function."""

# Gates


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
    left, right = jnp.split(h.astype(jnp.float32), 2, -1)
    return (GATES[gate](left)[0] * right).astype(h.dtype)


def _gated_backward(gate: str, h: jax.Array, d: jax.Array) -> tuple[jax.Array]:
    left, right = jnp.split(h.astype(jnp.float32), 2, -1)
    value, slope = GATES[gate](left)
    d = d.astype(jnp.float32)
    return (jnp.concatenate([d * right * slope, d * value], -1).astype(h.dtype),)


gated.defvjp(lambda h, gate: (gated(h, gate), h), _gated_backward)

# Norms


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def rms_norm(x: jax.Array, scale: jax.Array, epsilon: float) -> jax.Array:
    return _norm_forward(x, scale, epsilon)[0]


def _norm_forward(x: jax.Array, scale: jax.Array, epsilon: float) -> tuple[jax.Array, Kept]:
    wide = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(wide * wide, -1, keepdims=True) + epsilon)
    return (wide * inverse * scale).astype(x.dtype), (x, inverse, scale)


def _norm_backward(epsilon: float, kept: Kept, d: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, inverse, scale = kept
    d = d.astype(jnp.float32)
    normal, by_scale = x.astype(jnp.float32) * inverse, d * scale
    d_scale = jnp.sum(d * normal, tuple(range(d.ndim - 1)))
    d_x = inverse * (by_scale - normal * jnp.mean(by_scale * normal, -1, keepdims=True))
    return d_x.astype(x.dtype), d_scale


rms_norm.defvjp(_norm_forward, _norm_backward)

# Taking apart

split = jax.custom_vjp(plain.split, nondiff_argnums=(1, 2))
split.defvjp(
    lambda h, widths, axis: (split(h, widths, axis), None), lambda widths, axis, _, d: (jnp.concatenate(d, axis),)
)

# Rotary positions


def turn(positions: jax.Array, rope: Rope, width: int, alive: jax.Array) -> Turn:
    """The angles depend on `alive`, bool[], true and not known before the program runs: else the cosine is computed
    anew wherever something is turned, for every response and head, which took a seventh of a generation's time."""
    angle = positions[..., None, None, None].astype(jnp.float32) * rope.frequencies(width)
    made = lambda: (rope.attention * jnp.cos(angle), rope.attention * jnp.sin(angle))  # noqa: E731
    found: Turn = jax.lax.cond(alive, made, lambda: (angle, angle))
    return found


rotate = jax.custom_vjp(plain.rotate)
rotate.defvjp(lambda x, by: (rotate(x, by), by), lambda by, d: (plain.rotate(d, (by[0], -by[1])), None))

# Attention


def attend(
    query: jax.Array, own: Pair, prompt: Pair | None, sight: Sight, cap: float | None, mesh: Mesh | None = None
) -> jax.Array:
    visible, seen = sight.masks()
    p, g, t, n, k = query.shape
    m = own[0].shape[1]
    grouped = query.reshape(p, g, t, m, n // m, k).transpose(0, 3, 1, 4, 2, 5).reshape(p, m, g, n // m * t, k)
    visible = jnp.tile(visible, (1, n // m, 1))[:, None, None]
    if prompt is None:
        prompt, seen = (jnp.zeros((p, m, 0, k), query.dtype),) * 2, jnp.ones((1, 1, 0), bool)
    assert seen is not None
    seen = (seen if seen.shape[1] == 1 else jnp.tile(seen, (1, n // m, 1)))[:, None, None]
    out: jax.Array = _attend(grouped, *own, *prompt, visible, seen, cap)
    return out.reshape(p, m, g, n // m, t, k).transpose(0, 2, 4, 1, 3, 5).reshape(p, g, t, n, k)


def _scores(query: jax.Array, keys: jax.Array, cap: float | None, letters: str) -> tuple[jax.Array, jax.Array | None]:
    """Scores and, with a cap, their slope."""
    scores = jnp.einsum(letters, query, keys, preferred_element_type=jnp.float32)
    if cap is None:
        return scores, None
    bent = jnp.tanh(scores / cap)
    return cap * bent, 1 - bent * bent


def _forward(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    past_keys: jax.Array,
    past_values: jax.Array,
    visible: jax.Array,
    seen: jax.Array,
    cap: float | None,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array | None, jax.Array | None]]:
    """What attention gives, and what its derivative needs: weights, and with a cap the slopes of the scores."""
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
def _attend(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    past_keys: jax.Array,
    past_values: jax.Array,
    visible: jax.Array,
    seen: jax.Array,
    cap: float | None,
) -> jax.Array:
    return _forward(query, keys, values, past_keys, past_values, visible, seen, cap)[0]


def _attend_forward(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    past_keys: jax.Array,
    past_values: jax.Array,
    visible: jax.Array,
    seen: jax.Array,
    cap: float | None,
) -> tuple[jax.Array, tuple[Any, ...]]:
    out, kept = _forward(query, keys, values, past_keys, past_values, visible, seen, cap)
    return out, (query, keys, values, past_keys, past_values, out, *kept)


def _attend_backward(cap: float | None, kept: tuple[Any, ...], d: jax.Array) -> tuple[jax.Array | None, ...]:
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

# Activation checkpointing


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def recomputed(
    function: Callable[[Any, jax.Array, Any], jax.Array], weights: Any, x: jax.Array, others: Any, alive: jax.Array
) -> jax.Array:
    """The second computation starts from a choice between what went in and the gradient that comes back, made by
    `alive`, bool[], true and not known before the program runs. So nothing is merged with the first, and nothing begins
    before the gradient is there."""
    return function(weights, x, others)


def _recomputed_forward(function: Any, weights: Any, x: jax.Array, others: Any, alive: jax.Array) -> Any:
    return function(weights, x, others), (weights, x, others, alive)


def _recomputed_backward(function: Any, kept: Any, d: jax.Array) -> tuple[Any, jax.Array, None, None]:
    weights, x, others, alive = kept
    _, back = jax.vjp(lambda weights, x: function(weights, x, others), weights, jnp.where(alive, x, d))
    return *back(d), None, None


recomputed.defvjp(_recomputed_forward, _recomputed_backward)
