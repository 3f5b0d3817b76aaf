"""Top-k and top-p: from which tokens the next one is drawn.

Decides which tokens stay; whoever draws from fewer than all of them samples from other probabilities than the policy's,
and must say how that is made good (`objective.importanceCap`, at admission).

Both are a threshold that a token's scaled logit must reach, found bit by bit: 32 passes over the vocabulary instead of
a sort of it, which is what takes the time on CPUs (`bench/trainer.py` prints its price). Tokens that tie with the last
one that is needed all stay, so the choice does not depend on an order among equals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from ratchet_api.sampling import Sampling


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Truncation:
    """`top_k` int32: so many of the likeliest tokens stay. `top_p` float32: of these, the fewest whose probability,
    theirs together being 1, reaches it (arXiv 1904.09751, section 3.1); 1 keeps all."""

    top_k: np.ndarray | np.int32
    top_p: np.ndarray | np.float32

    @classmethod
    def of(cls, sampling: Sampling) -> Truncation | None:
        """What a stage says; None where all tokens stay."""
        top_p = np.float32(sampling.top_p or "1")
        if sampling.top_k is None and top_p >= 1:
            return None
        return cls(np.int32(sampling.top_k or np.iinfo(np.int32).max), top_p)


GREEDY = Truncation(np.int32(1), np.float32(1))
"""The likeliest token each time; of equally likely ones, any."""


def staying(scaled: jax.Array, cut: Truncation) -> jax.Array:
    """Which tokens may be drawn, bool[..., V], given logits / temperature [..., V]."""
    rank = _rank(scaled)
    needed = jnp.minimum(cut.top_k, scaled.shape[-1])
    likely = rank >= _threshold(rank, lambda some: jnp.sum(some, -1, dtype=jnp.int32) >= needed)
    weight = jnp.where(likely, jnp.exp(scaled - scaled.max(-1, keepdims=True)), 0.0)
    mass = cut.top_p * weight.sum(-1)
    nucleus = rank >= _threshold(rank, lambda some: jnp.sum(jnp.where(some, weight, 0.0), -1) >= mass)
    # At 1 the sum reaches the mass before the smallest weights are in, which rounding swallows.
    return likely & (nucleus | (cut.top_p >= 1))


def _rank(x: jax.Array) -> jax.Array:
    """float32 as uint32 of the same order."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    sign = jnp.uint32(1 << 31)
    return jnp.where(bits >= sign, ~bits, bits | sign)


def _threshold(rank: jax.Array, enough: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """The largest t for which {rank >= t} is `enough`, uint32[..., 1]; 0 if none is. `enough` must hold for every
    larger set, too: so do counts, and sums of weights, since rounding keeps their order."""

    def try_bit(i: jax.Array, found: jax.Array) -> jax.Array:
        higher = found | (jnp.uint32(1 << 31) >> i.astype(jnp.uint32))
        return jnp.where(enough(rank >= higher)[..., None], higher, found)

    least: jax.Array = jax.lax.fori_loop(0, 32, try_bit, jnp.zeros((*rank.shape[:-1], 1), jnp.uint32))
    return least
