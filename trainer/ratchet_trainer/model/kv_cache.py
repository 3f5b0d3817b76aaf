"""What a decoder remembers between calls: keys and values of a prompt and of the responses to it.

Decides layout and slots; attention reads them. `Prompt` is written once by a prefill and shared by the group; a
response's own slots are written token by token. Both have one pair for each run of layers (`depth`), with the run's n
layers along the second axis, and are written in place; own slots of a single layer have no such axis: with one, XLA's
CPU backend copied them three times a token. Heads come before slots: so attention reads them without moving anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

Pair = tuple[jax.Array, jax.Array]
SINGLE = 5
"""Axes of the own slots of a single layer."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prompt:
    """Keys and values of prompts, right-padded: pairs [P, n, M, C, K], of which the first `length[p]` slots are
    real."""

    runs: tuple[Pair, ...]
    length: jax.Array


def own_layer(own: Pair, i: jax.Array | int, reach: int | None = None) -> Pair:
    """The own slots of one layer of a run, [P, M, G, S, K]; with `reach` the first so many. One slice takes both: the
    first slots of all layers would be an array of their own on TPUs, made for every layer."""
    key, value = (_own_layer(x, i, reach) for x in own)
    return key, value


def _own_layer(own: jax.Array, i: jax.Array | int, reach: int | None) -> jax.Array:
    slots = own.shape[-2] if reach is None else min(reach, own.shape[-2])
    if own.ndim == SINGLE:
        return own if slots == own.shape[-2] else own[..., :slots, :]
    p, _, m, g, _, k = own.shape
    return jax.lax.dynamic_slice(own, (0, i, 0, 0, 0, 0), (p, 1, m, g, slots, k)).squeeze(1)


def layer(pair: Pair, i: jax.Array | int) -> Pair:
    """The pair of one layer of a run, [P, M, ...]."""
    if pair[0].shape[1] == 1:
        return pair[0].squeeze(1), pair[1].squeeze(1)
    key, value = (jax.lax.dynamic_index_in_dim(x, i, 1, keepdims=False) for x in pair)
    return key, value


def write(own: Pair, new: Pair, i: jax.Array | int, at: jax.Array | int) -> Pair:
    """`own` [P, n, M, G, S, K], or [P, M, G, S, K] of a single layer, with the new tokens' keys and values [P, M, G, T,
    K] of layer i in slots at..at+T-1, where `at` is one number or int32[P]."""
    key, value = (_write(o, n, i, at) for o, n in zip(own, new, strict=True))
    return key, value


def _write(own: jax.Array, new: jax.Array, i: jax.Array | int, at: jax.Array | int) -> jax.Array:
    before: tuple[jax.Array | int, ...] = (0, 0)
    if own.ndim != SINGLE:
        new, before = new[:, None], (i, 0, 0)
    if jnp.ndim(at) == 0:
        return jax.lax.dynamic_update_slice(own, new, (0, *before, at, 0))

    def one(own: jax.Array, new: jax.Array, at: jax.Array | int) -> jax.Array:
        return jax.lax.dynamic_update_slice(own, new, (*before, at, 0))

    return jax.vmap(one)(own, new, at)


def joined(pairs: Sequence[Pair]) -> Pair:
    """What a scan made of each place of a run's pattern, pairs [times, P, ...] each, in the order of the layers: a
    pair [P, n, ...]."""
    key, value = (jnp.stack(x, 1).reshape(-1, *x[0].shape[1:]).swapaxes(0, 1) for x in zip(*pairs, strict=True))
    return key, value


def empty(layers: Sequence[int], shape: tuple[int, int, int, int, int], dtype: str) -> tuple[Pair, ...]:
    """Own caches without a token: for each run of so many layers zeros of `shape` = (P, M, G, S, K) a layer."""
    zeros = partial(jnp.zeros, dtype=dtype)
    wholes = [shape if n == 1 else (shape[0], n, *shape[1:]) for n in layers]
    return tuple((zeros(whole), zeros(whole)) for whole in wholes)
