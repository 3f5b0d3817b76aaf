"""What a decoder remembers between calls: keys and values of a prompt and of the responses to it.

Decides layout and slots; attention reads them. `Prompt` is written once by a prefill and shared by the group; a
response's own slots are written token by token. Both are pytrees with one (key, value) pair a layer. Heads come before
slots: so attention reads them without moving anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

Pair = tuple[jax.Array, jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prompt:
    """Keys and values of prompts, right-padded: pairs [P, M, C, K], of which the first `length[p]` slots are real."""

    layers: tuple[Pair, ...]
    length: jax.Array


def write(own: Pair, new: Pair, at: jax.Array | int) -> Pair:
    """`own` [P, M, G, S, K] with the new tokens' keys and values [P, M, G, T, K] in slots at..at+T-1, where `at` is one
    number or int32[P]."""
    if jnp.ndim(at) == 0:
        one = partial(jax.lax.dynamic_update_slice_in_dim, axis=3)
    else:
        one = jax.vmap(partial(jax.lax.dynamic_update_slice_in_dim, axis=2))
    key, value = (one(o, n, at) for o, n in zip(own, new, strict=True))
    return key, value


def empty(layers: int, shape: tuple[int, int, int, int, int], dtype: str) -> tuple[Pair, ...]:
    """Own caches without a token: `layers` pairs of zeros of `shape` = (P, M, G, S, K)."""
    return tuple((jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(layers))
