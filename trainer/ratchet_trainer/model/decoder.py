"""The decoder: RMSNorm, rotary attention, a gated MLP; a flax module, called functionally.

One function serves sampling, log-probabilities and training of every family, so that what is trained is what was
sampled. Decides the order of a forward pass; which choices a model makes is data (`architecture`), what is kept between
calls is in `kv_cache`, placement on devices in `sharding`. Modules are trees (no shared references): they are split
once and merged inside `jax.jit`.

Activations are rows [M, D] of all tokens: XLA's CPU backend is half as fast with matrix products of more axes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from ratchet_trainer.model import kv_cache
from ratchet_trainer.model.activations import gated, rms_norm, split
from ratchet_trainer.model.architecture import Architecture, Layer
from ratchet_trainer.model.attention import Turn, attend, rotate, turn
from ratchet_trainer.model.lora import Adapter, adapter


def _matrix(key: jax.Array, rows: int, columns: int, gain: float = 1.0) -> nnx.Param:
    return nnx.Param(gain * rows**-0.5 * jax.random.normal(key, (rows, columns), jnp.float32))


def _bias(there: bool, width: int) -> nnx.Param | None:
    return nnx.Param(jnp.zeros((width,), jnp.float32)) if there else None


def _times(x: jax.Array, matrix: nnx.Param, bias: nnx.Param | None, adapter: Adapter | None) -> jax.Array:
    product = x @ matrix[...]
    if adapter is not None:
        product = product + adapter(x)
    return product if bias is None else product + bias[...]


class Norm(nnx.Module):
    """RMSNorm with scale `offset` + weight."""

    def __init__(self, a: Architecture, width: int):
        self.scale = nnx.Param(jnp.full((width,), 1.0 - a.norm_offset, jnp.float32))
        self.offset, self.epsilon = a.norm_offset, a.epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        return rms_norm(x, self.offset + self.scale[...], self.epsilon)


class Attention(nnx.Module):
    """Rotary self-attention; `input` holds query, key and value side by side (one matrix product)."""

    def __init__(self, a: Architecture, layer: Layer, key: jax.Array):
        first, second = jax.random.split(key)
        self.input = _matrix(first, a.width, sum(a.projections))
        self.input_bias = _bias(a.attention_bias[0], sum(a.projections))
        self.output = _matrix(second, a.projections[0], a.width, gain=(2 * len(a.layers)) ** -0.5)
        self.output_bias = _bias(a.attention_bias[1], a.width)
        self.input_adapter = adapter(a, "attention/input", a.width, a.projections, first)
        self.output_adapter = adapter(a, "attention/output", a.projections[0], (a.width,), second)
        self.query_norm = Norm(a, a.head_width) if a.head_norms else None
        self.key_norm = Norm(a, a.head_width) if a.head_norms else None
        self.architecture, self.layer = a, layer

    def __call__(self, x, shape, by: Turn, prompt, prompt_length, own, at):
        """x [M, D] of tokens `shape` = (P, G, T) -> [M, D], and keys and values."""
        a = self.architecture
        query, key, value = (
            part.reshape(*shape, -1, a.head_width)
            for part in split(_times(x, self.input, self.input_bias, self.input_adapter), a.projections)
        )
        if self.query_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        query, key = rotate(query * a.query_scale, by), rotate(key, by)
        new = key.transpose(0, 3, 1, 2, 4), value.transpose(0, 3, 1, 2, 4)
        own = new if own is None else kv_cache.write(own, new, at)
        mixed = attend(query, own, at, prompt, prompt_length, self.layer.window, a.attention_cap)
        return _times(mixed.reshape(len(x), -1), self.output, self.output_bias, self.output_adapter), own


class Mlp(nnx.Module):
    """The gated MLP; `input` holds gate and up side by side."""

    def __init__(self, a: Architecture, key: jax.Array):
        first, second = jax.random.split(key)
        self.input = _matrix(first, a.width, 2 * a.hidden)
        self.input_bias = _bias(a.mlp_bias, 2 * a.hidden)
        self.output = _matrix(second, a.hidden, a.width, gain=(2 * len(a.layers)) ** -0.5)
        self.output_bias = _bias(a.mlp_bias, a.width)
        self.input_adapter = adapter(a, "mlp/input", a.width, (a.hidden,) * 2, first)
        self.output_adapter = adapter(a, "mlp/output", a.hidden, (a.width,), second)
        self.gate = a.activation

    def __call__(self, x: jax.Array) -> jax.Array:
        inner = gated(_times(x, self.input, self.input_bias, self.input_adapter), self.gate)
        return _times(inner, self.output, self.output_bias, self.output_adapter)


class Block(nnx.Module):
    def __init__(self, a: Architecture, layer: Layer, key: jax.Array):
        first, second = jax.random.split(key)
        self.attention_norm, self.attention = Norm(a, a.width), Attention(a, layer, first)
        self.mlp_norm, self.mlp = Norm(a, a.width), Mlp(a, second)
        self.attention_post_norm = Norm(a, a.width) if a.post_norms else None
        self.mlp_post_norm = Norm(a, a.width) if a.post_norms else None

    def __call__(self, x, *where):
        mixed, kept = self.attention(self.attention_norm(x), *where)
        x = x + (mixed if self.attention_post_norm is None else self.attention_post_norm(mixed))
        made = self.mlp(self.mlp_norm(x))
        return x + (made if self.mlp_post_norm is None else self.mlp_post_norm(made)), kept


class Decoder(nnx.Module):
    """Decoder-only transformer."""

    def __init__(self, a: Architecture, key: jax.Array):
        keys = jax.random.split(key, len(a.layers) + 1)
        self.embedding = nnx.Param(a.width**-0.5 * jax.random.normal(keys[0], (a.vocabulary, a.width), jnp.float32))
        self.blocks = nnx.List([Block(a, layer, k) for layer, k in zip(a.layers, keys[1:], strict=True)])
        self.norm = Norm(a, a.width)
        self.head = None if a.tied else _matrix(jax.random.fold_in(keys[0], 1), a.width, a.vocabulary)
        self.architecture = a

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
        a = self.architecture
        turns = {layer.rope: turn(positions, layer.rope, a.head_width) for layer in a.layers}
        x = self.embedding[...][tokens.reshape(-1)] * a.embedding_scale
        cache = []
        for i, block in enumerate(self.blocks):
            layer = None if prompt is None else prompt.layers[i]
            length = None if prompt is None else prompt.length
            mine = None if own is None else own[i]
            x, kept = block(x, tokens.shape, turns[a.layers[i].rope], layer, length, mine, at)
            cache.append(kept)
        return self.norm(x).reshape(*tokens.shape, a.width), tuple(cache)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Unnormalised log-probabilities [..., vocabulary] of the next token."""
        a = self.architecture
        rows = hidden.reshape(-1, a.width)
        logits = rows @ (self.embedding[...].T if self.head is None else self.head[...])
        if a.logit_cap is not None:
            logits = a.logit_cap * jnp.tanh(logits / a.logit_cap)
        return logits.reshape(*hidden.shape[:-1], a.vocabulary)
