"""Randomness is keyed, never streamed: a sample's key is a pure function of what is sampled.

The key is threefry2x32(seed) folded with purpose, ordinal, tag, sample and token, in this order (64-bit numbers as two
uint32 words, high first: `fold_in` takes 32 bits). Neither the step, the slot in a batch, the process nor the weights
are in it, so lost rollouts regenerate to the same tokens wherever they are made.
"""

from __future__ import annotations

from enum import IntEnum

import jax
import jax.numpy as jnp
import numpy as np


class Purpose(IntEnum):
    """What a sample is drawn for; the first word that is folded into its key."""

    TRAIN = 0
    SCORE = 1
    HINT = 2
    VALUE = 3
    EVAL = 4
    CURATE = 5


def words(value: int) -> tuple[int, int]:
    """A number in [0, 2^64) as its high and low uint32 words."""
    if not 0 <= value < 2**64:
        raise ValueError(f"{value} does not fit in 64 bits")
    return value >> 32, value & 0xFFFFFFFF


def seed_words(seed: int) -> np.ndarray:
    """The raw threefry2x32 key of a seed: uint32[2]."""
    return np.array(words(seed), np.uint32)


def row_words(purpose: int, ordinals: list[int], tags: list[int]) -> np.ndarray:
    """The words that are folded in for each prompt, uint32[P, 5]: purpose, ordinal high, low, tag high, low."""
    return np.array([(purpose, *words(o), *words(t)) for o, t in zip(ordinals, tags, strict=True)], np.uint32)


def row_keys(seed: jax.Array, rows: jax.Array, samples: jax.Array) -> jax.Array:
    """Raw keys uint32[P, G, 2] of every sample, from `seed_words`, `row_words` [P, 5] and sample numbers uint32[G]."""

    def fold(raw: jax.Array, word: jax.Array) -> tuple[jax.Array, None]:
        key = jax.random.wrap_key_data(raw, impl="threefry2x32")
        return jax.random.key_data(jax.random.fold_in(key, word)), None

    def key(row: jax.Array, sample: jax.Array) -> jax.Array:
        # A scan, because a hash is long to compile and there are six words.
        return jax.lax.scan(fold, seed, jnp.append(row, sample))[0]

    return jax.vmap(lambda row: jax.vmap(lambda s: key(row, s))(samples))(rows)


def gumbel(keys: jax.Array, token: jax.Array, size: int) -> jax.Array:
    """Gumbel noise float32[P, G, size] for response token number `token`, one or int32[P], of the rows with these raw
    keys."""

    def noise(raw: jax.Array, token: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.wrap_key_data(raw, impl="threefry2x32"), token)
        return jax.random.gumbel(key, (size,), jnp.float32)

    return jax.vmap(jax.vmap(noise, (0, None)), (0, 0 if jnp.ndim(token) else None))(keys, token)
