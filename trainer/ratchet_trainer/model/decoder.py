"""The decoder: RMSNorm, rotary attention, a gated MLP; a flax module, called functionally.

One function serves sampling, log-probabilities and training of every family, so that what is trained is what was
sampled. Decides the order of a forward pass; which choices a model makes is data (`architecture`), what is kept between
calls is in `kv_cache`, placement on devices in `sharding`. Modules are trees (no shared references): they are split
once and merged inside `jax.jit`.

Activations are rows [M, D] of all tokens: XLA's CPU backend is half as fast with matrix products of more axes.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from ratchet_trainer.model import kv_cache
from ratchet_trainer.model.activations import gated, rms_norm, split
from ratchet_trainer.model.architecture import Architecture, Layer
from ratchet_trainer.model.attention import Turn, attend, rotate, turn
from ratchet_trainer.model.computation import Computation
from ratchet_trainer.model.lora import adapter


def _matrix(key: jax.Array, rows: int, columns: int, gain: float = 1.0) -> nnx.Param:
    return nnx.Param(gain * rows**-0.5 * jax.random.normal(key, (rows, columns), jnp.float32))


def _bias(there: bool, width: int) -> nnx.Param | None:
    return nnx.Param(jnp.zeros((width,), jnp.float32)) if there else None


def _times(how: Computation, x: jax.Array, module: nnx.Module, kind: str, side: str) -> jax.Array:
    """x times the matrix `kind`/`side` of a module, with its adapter and its bias, if it has them."""
    product = x @ how.weight(getattr(module, side)[...], f"{kind}/{side}")
    if (adapter := getattr(module, f"{side}_adapter")) is not None:
        product = product + adapter(x)
    bias = getattr(module, f"{side}_bias")
    return product if bias is None else product + bias[...].astype(x.dtype)


class Norm(nnx.Module):
    """RMSNorm with scale `offset` + weight."""

    def __init__(self, a: Architecture, width: int):
        self.scale = nnx.Param(jnp.full((width,), 1.0 - a.norm_offset, jnp.float32))
        self.offset, self.epsilon = a.norm_offset, a.epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        return rms_norm(x, self.offset + self.scale[...], self.epsilon)


class Attention(nnx.Module):
    """Rotary self-attention; `input` holds query, key and value side by side (one matrix product)."""

    def __init__(self, a: Architecture, how: Computation, layer: Layer, key: jax.Array):
        first, second = jax.random.split(key)
        self.input = _matrix(first, a.width, sum(a.projections))
        self.input_bias = _bias(a.attention_bias[0], sum(a.projections))
        self.output = _matrix(second, a.projections[0], a.width, gain=(2 * len(a.layers)) ** -0.5)
        self.output_bias = _bias(a.attention_bias[1], a.width)
        self.input_adapter = adapter(a, how, "attention/input", a.width, a.projections, first)
        self.output_adapter = adapter(a, how, "attention/output", a.projections[0], (a.width,), second)
        self.query_norm = Norm(a, a.head_width) if a.head_norms else None
        self.key_norm = Norm(a, a.head_width) if a.head_norms else None
        self.architecture, self.how, self.layer = a, how, layer

    def __call__(self, x, shape, by: Turn, prompt, prompt_length, own, at):
        """x [M, D] of tokens `shape` = (P, G, T) -> [M, D], and keys and values."""
        a, how = self.architecture, self.how
        query, key, value = (
            how.heads(part.reshape(*shape, -1, a.head_width))
            for part in split(_times(how, x, self, "attention", "input"), a.projections)
        )
        if self.query_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        query, key = rotate(query * a.query_scale, by), rotate(key, by)
        new = key.transpose(0, 3, 1, 2, 4), value.transpose(0, 3, 1, 2, 4)
        own = new if own is None else kv_cache.write(own, new, at)
        mixed = attend(query, own, at, prompt, prompt_length, self.layer.window, a.attention_cap)
        return _times(how, how.inner(mixed.reshape(len(x), -1)), self, "attention", "output"), own


class Mlp(nnx.Module):
    """The gated MLP; `input` holds gate and up side by side."""

    def __init__(self, a: Architecture, how: Computation, key: jax.Array):
        first, second = jax.random.split(key)
        self.input = _matrix(first, a.width, 2 * a.hidden)
        self.input_bias = _bias(a.mlp_bias, 2 * a.hidden)
        self.output = _matrix(second, a.hidden, a.width, gain=(2 * len(a.layers)) ** -0.5)
        self.output_bias = _bias(a.mlp_bias, a.width)
        self.input_adapter = adapter(a, how, "mlp/input", a.width, (a.hidden,) * 2, first)
        self.output_adapter = adapter(a, how, "mlp/output", a.hidden, (a.width,), second)
        self.gate, self.how = a.activation, how

    def __call__(self, x: jax.Array) -> jax.Array:
        inner = self.how.inner(gated(_times(self.how, x, self, "mlp", "input"), self.gate))
        return _times(self.how, inner, self, "mlp", "output")


class Block(nnx.Module):
    def __init__(self, a: Architecture, how: Computation, layer: Layer, key: jax.Array):
        first, second = jax.random.split(key)
        self.attention_norm, self.attention = Norm(a, a.width), Attention(a, how, layer, first)
        self.mlp_norm, self.mlp = Norm(a, a.width), Mlp(a, how, second)
        self.attention_post_norm = Norm(a, a.width) if a.post_norms else None
        self.mlp_post_norm = Norm(a, a.width) if a.post_norms else None

    def __call__(self, x, by, prompt, prompt_length, own, at, shape):
        mixed, kept = self.attention(self.attention_norm(x), shape, by, prompt, prompt_length, own, at)
        x = x + (mixed if self.attention_post_norm is None else self.attention_post_norm(mixed))
        made = self.mlp(self.mlp_norm(x))
        return x + (made if self.mlp_post_norm is None else self.mlp_post_norm(made)), kept


class Decoder(nnx.Module):
    """Decoder-only transformer."""

    def __init__(self, a: Architecture, how: Computation, key: jax.Array):
        keys = jax.random.split(key, len(a.layers) + 1)
        self.embedding = nnx.Param(a.width**-0.5 * jax.random.normal(keys[0], (a.vocabulary, a.width), jnp.float32))
        self.blocks = nnx.List([Block(a, how, layer, k) for layer, k in zip(a.layers, keys[1:], strict=True)])
        self.norm = Norm(a, a.width)
        self.head = None if a.tied else _matrix(jax.random.fold_in(keys[0], 1), a.width, a.vocabulary)
        self.architecture, self.how = a, how

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        prompt: kv_cache.Prompt | None = None,
        own: tuple[kv_cache.Pair, ...] | None = None,
        at: jax.Array | int = 0,
        recompute: bool = False,
    ) -> tuple[jax.Array, tuple[kv_cache.Pair, ...]]:
        """Hidden states [P, G, T, width] of tokens [P, G, T] at `positions` [P, G, T], and their keys and values.

        The tokens see the prompt's real slots and, causally, themselves; with `own`, they are written to its slots
        at..at+T-1, one number or int32[P], and see what is there before. `recompute`: a gradient keeps of each block
        its input alone.
        """
        a, how = self.architecture, self.how
        turns = {layer.rope: turn(positions, layer.rope, a.head_width) for layer in a.layers}
        x = self._embedded(tokens.reshape(-1))
        cache = []
        for i, block in enumerate(self.blocks):
            layer = None if prompt is None else prompt.layers[i]
            length = None if prompt is None else prompt.length
            mine = None if own is None else own[i]
            where = turns[a.layers[i].rope], layer, length, mine, at
            run = partial(block, shape=tokens.shape)
            x, kept = jax.checkpoint(run)(x, *where) if recompute else run(x, *where)
            x = how.rows(x)
            cache.append(kept)
        return self.norm(x).reshape(*tokens.shape, a.width), tuple(cache)

    def _embedded(self, tokens: jax.Array) -> jax.Array:
        """Tokens [M] -> [M, width]."""
        table = self.embedding[...]
        if self.how.mesh is not None:
            table = self.how.weight(table, "embedding")
        x = table[tokens].astype(self.how.dtype) * self.architecture.embedding_scale
        return self.how.rows(x)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Unnormalised log-probabilities [..., vocabulary] of the next token, float32."""
        a, how = self.architecture, self.how
        rows = hidden.reshape(-1, a.width)
        matrix = (
            how.weight(self.embedding[...], "embedding").T if self.head is None else how.weight(self.head[...], "head")
        )
        logits = jnp.matmul(rows, matrix, preferred_element_type=jnp.float32)
        if a.logit_cap is not None:
            logits = a.logit_cap * jnp.tanh(logits / a.logit_cap)
        return logits.reshape(*hidden.shape[:-1], a.vocabulary)
