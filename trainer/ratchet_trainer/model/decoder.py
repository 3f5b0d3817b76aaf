"""The decoder: RMSNorm, rotary attention, SwiGLU, tied embedding; a flax module, called functionally.

One function serves sampling, log-probabilities and training, so that what is trained is what was sampled. Decides the
arithmetic of a forward pass; presets are in `presets`, what is kept between calls in `kv_cache`, placement on devices
in `sharding`. Modules are trees (no shared references): they are split once and merged inside `jax.jit`.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from ratchet_trainer.model import kv_cache
from ratchet_trainer.model.attention import attend, rotate


@dataclass(frozen=True)
class Architecture:
    """Sizes of a decoder. `hidden` is the inner width of SwiGLU; `width` = heads x head width."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    hidden: int
    rope_base: float = 10_000.0
    epsilon: float = 1e-6

    @property
    def head_width(self) -> int:
        return self.width // self.heads


def _matrix(key: jax.Array, rows: int, columns: int, gain: float = 1.0) -> nnx.Param:
    return nnx.Param(gain * rows**-0.5 * jax.random.normal(key, (rows, columns), jnp.float32))


class Norm(nnx.Module):
    """RMSNorm (arXiv 1910.07467)."""

    def __init__(self, a: Architecture):
        self.scale = nnx.Param(jnp.ones((a.width,), jnp.float32))
        self.epsilon = a.epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + self.epsilon) * self.scale[...]


class Attention(nnx.Module):
    """Rotary self-attention; `input` holds query, key and value side by side (one matrix product)."""

    def __init__(self, a: Architecture, key: jax.Array):
        first, second = jax.random.split(key)
        self.input = _matrix(first, a.width, 3 * a.width)
        self.output = _matrix(second, a.width, a.width, gain=(2 * a.layers) ** -0.5)
        self.heads, self.rope_base = a.heads, a.rope_base

    def __call__(self, x, positions, prompt, prompt_length, own, at):
        shape = (*x.shape[:-1], 3 * self.heads, x.shape[-1] // self.heads)
        query, key, value = jnp.split((x @ self.input[...]).reshape(shape), 3, axis=-2)
        query, key = rotate(query, positions, self.rope_base), rotate(key, positions, self.rope_base)
        own = (key, value) if own is None else kv_cache.write(own, (key, value), at)
        mixed = attend(query, own, at, prompt, prompt_length)
        return mixed.reshape(x.shape) @ self.output[...], own


class Mlp(nnx.Module):
    """SwiGLU (arXiv 2002.05202); `input` holds gate and up side by side."""

    def __init__(self, a: Architecture, key: jax.Array):
        first, second = jax.random.split(key)
        self.input = _matrix(first, a.width, 2 * a.hidden)
        self.output = _matrix(second, a.hidden, a.width, gain=(2 * a.layers) ** -0.5)

    def __call__(self, x: jax.Array) -> jax.Array:
        gate, up = jnp.split(x @ self.input[...], 2, axis=-1)
        return (jax.nn.silu(gate) * up) @ self.output[...]


class Block(nnx.Module):
    def __init__(self, a: Architecture, key: jax.Array):
        first, second = jax.random.split(key)
        self.attention_norm, self.attention = Norm(a), Attention(a, first)
        self.mlp_norm, self.mlp = Norm(a), Mlp(a, second)


class Decoder(nnx.Module):
    """Decoder-only transformer with tied embedding."""

    def __init__(self, a: Architecture, key: jax.Array):
        keys = jax.random.split(key, a.layers + 1)
        self.embedding = nnx.Param(a.width**-0.5 * jax.random.normal(keys[0], (a.vocabulary, a.width), jnp.float32))
        self.blocks = nnx.List([Block(a, k) for k in keys[1:]])
        self.norm = Norm(a)

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        prompt: kv_cache.Prompt | None = None,
        own: tuple[kv_cache.Pair, ...] | None = None,
        at: jax.Array | int = 0,
    ) -> tuple[jax.Array, tuple[kv_cache.Pair, ...]]:
        """Hidden states [P, G, T, width] of tokens [P, G, T] at `positions` [P, G, T], and their keys and values.

        The tokens see the prompt's real slots and, causally, themselves; with `own`, they are written to its slots
        at..at+T-1 and see what is there before.
        """
        x = self.embedding[...][tokens] * self.embedding.shape[1] ** 0.5
        cache = []
        for i, block in enumerate(self.blocks):
            layer = None if prompt is None else prompt.layers[i]
            length = None if prompt is None else prompt.length
            mixed, kept = block.attention(
                block.attention_norm(x), positions, layer, length, None if own is None else own[i], at
            )
            x = x + mixed
            x = x + block.mlp(block.mlp_norm(x))
            cache.append(kept)
        return self.norm(x), tuple(cache)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Unnormalised log-probabilities [..., vocabulary] of the next token."""
        return hidden @ self.embedding[...].T
