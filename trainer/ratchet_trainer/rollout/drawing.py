"""Drawing the next token: one of the softmax of its logits, by noise that a row's key names.

Decides how. The token with the largest logit + Gumbel noise is a draw from the softmax; so is the largest of a block of
tokens that was itself drawn by the blocks' summed probability. Drawn in two such turns, a token takes noise for the
blocks and for one of them, not for the whole vocabulary: with 49,152 tokens a hundredth of it, and noise for all of
them took more time than the product with the head (`bench/trainer.py`). A token whose logit is -inf is never drawn.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

BLOCK = 128
"""Tokens that are drawn from together, neighbours in the vocabulary."""


def noise_size(vocabulary: int) -> int:
    """How many numbers of noise a draw takes."""
    return -(-vocabulary // BLOCK) + BLOCK


def drawn(scaled: jax.Array, noise: jax.Array) -> jax.Array:
    """int32[...]: a token of softmax(scaled [..., V]), of which one is finite at least; `noise`: Gumbel noise [...,
    noise_size(V)]."""
    vocabulary = scaled.shape[-1]
    count = -(-vocabulary // BLOCK)
    missing = [(0, 0)] * (scaled.ndim - 1) + [(0, count * BLOCK - vocabulary)]
    blocks = jnp.pad(scaled, missing, constant_values=-jnp.inf).reshape(*scaled.shape[:-1], count, BLOCK)
    of_blocks, within = noise[..., :count], noise[..., count:]
    block = jnp.argmax(jax.nn.logsumexp(blocks, -1) + of_blocks, -1)
    mine = jnp.take_along_axis(blocks, block[..., None, None], -2).squeeze(-2)
    return (block * BLOCK + jnp.argmax(mine + within, -1)).astype(jnp.int32)
