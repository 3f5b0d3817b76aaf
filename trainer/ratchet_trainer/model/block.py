"""A block of the decoder: RMSNorm, rotary attention, a gated MLP; flax modules, called functionally.

Decides the order of what happens within a layer; which choices a model makes is data (`architecture`), the arithmetic
between the matrix products is the platform's (`plain`, `cpu`), what is kept between calls is in `kv_cache`. Modules are
trees (no shared references): they are split once and merged inside `jax.jit`.

Activations are rows [M, D] of all tokens: XLA's CPU backend is half as fast with matrix products of more axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from ratchet_trainer.model import kv_cache
from ratchet_trainer.model.adapter import adapter
from ratchet_trainer.model.architecture import Architecture, Layer
from ratchet_trainer.model.computation import Computation
from ratchet_trainer.model.plain import Turn
from ratchet_trainer.model.visibility import Sight


@dataclass(frozen=True)
class Stream:
    """Tokens [P, G, T] that go through a block together: their rotary angles; what they see before themselves, of which
    `length` [P] slots are real (None: the stream before them, or nothing); the own slots of their run of layers, of
    which `layer` is this one, from `at` on new; only the first `reach` of them are read (None: all)."""

    shape: tuple[int, ...]
    by: Turn
    prompt: kv_cache.Pair | None = None
    length: jax.Array | None = None
    own: kv_cache.Pair | None = None
    layer: jax.Array | int = 0
    at: jax.Array | int = 0
    reach: int | None = None


Streams = tuple[Stream, ...]
"""Side by side for each prompt: the rows of a pass are [P, all tokens of the prompt's streams]."""


def _apart(how: Computation, rows: jax.Array, streams: Streams) -> tuple[jax.Array, ...]:
    """Rows [M, width] as one [P, G T, width] a stream."""
    rows = rows.reshape(streams[0].shape[0], -1, rows.shape[-1])
    return (
        (rows,) if len(streams) == 1 else how.operations.split(rows, tuple(s.shape[1] * s.shape[2] for s in streams), 1)
    )


def matrix(key: jax.Array, rows: int, columns: int, gain: float = 1.0) -> nnx.Param[jax.Array]:
    return nnx.Param(gain * rows**-0.5 * jax.random.normal(key, (rows, columns), jnp.float32))


def _bias(there: bool, width: int) -> nnx.Param[jax.Array] | None:
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

    def __init__(self, a: Architecture, how: Computation, width: int):
        self.scale = nnx.Param(jnp.full((width,), 1.0 - a.norm_offset, jnp.float32))
        self.offset, self.epsilon, self.how = a.norm_offset, a.epsilon, how

    def __call__(self, x: jax.Array) -> jax.Array:
        normal: jax.Array = self.how.operations.rms_norm(x, self.offset + self.scale[...], self.epsilon)
        return normal


class Attention(nnx.Module):
    """Rotary self-attention; `input` holds query, key and value side by side (one matrix product)."""

    def __init__(self, a: Architecture, how: Computation, layer: Layer, key: jax.Array):
        first, second = jax.random.split(key)
        self.input = matrix(first, a.width, sum(a.projections))
        self.input_bias = _bias(a.attention_bias[0], sum(a.projections))
        self.output = matrix(second, a.projections[0], a.width, gain=(2 * len(a.layers)) ** -0.5)
        self.output_bias = _bias(a.attention_bias[1], a.width)
        self.input_adapter = adapter(a, how, "attention/input", a.width, a.projections, first)
        self.output_adapter = adapter(a, how, "attention/output", a.projections[0], (a.width,), second)
        self.query_norm = Norm(a, how, a.head_width) if a.head_norms else None
        self.key_norm = Norm(a, how, a.head_width) if a.head_norms else None
        self.architecture, self.how, self.layer = a, how, layer

    def __call__(self, x: jax.Array, streams: Streams) -> tuple[jax.Array, tuple[kv_cache.Pair, ...]]:
        """x [M, D] of the streams' tokens -> [M, D], and each stream's keys and values, or its run's
        own slots with them in."""
        a, how = self.architecture, self.how
        operations = how.operations
        wide = operations.split(_times(how, x, self, "attention", "input"), a.projections)
        mixed, kept, before = [], [], None
        for stream, parts in zip(
            streams, zip(*(_apart(how, part, streams) for part in wide), strict=True), strict=True
        ):
            query, key, value = (how.heads(part.reshape(*stream.shape, -1, a.head_width)) for part in parts)
            if self.query_norm is not None and self.key_norm is not None:
                query, key = self.query_norm(query), self.key_norm(key)
            query = operations.rotate(query * a.query_scale, stream.by)
            key = operations.rotate(key, stream.by)
            new = key.transpose(0, 3, 1, 2, 4), value.transpose(0, 3, 1, 2, 4)
            cache = new if stream.own is None else kv_cache.write(stream.own, new, stream.layer, stream.at)
            own = new if stream.own is None else kv_cache.own_layer(cache, stream.layer, stream.reach)
            prompt = before if stream.prompt is None else stream.prompt
            prompt_slots = None if prompt is None else prompt[0].shape[2]
            sight = Sight(stream.shape[2], own[0].shape[3], stream.at, prompt_slots, stream.length, self.layer.window)
            found = operations.attend(query, own, prompt, sight, a.attention_cap, how.mesh)
            mixed.append(found.reshape(stream.shape[0], -1, a.projections[0]))
            kept.append(cache)
            before = (own[0].squeeze(2), own[1].squeeze(2)) if stream.shape[1] == 1 else None
        rows = (mixed[0] if len(mixed) == 1 else jnp.concatenate(mixed, 1)).reshape(len(x), -1)
        return _times(how, how.inner(rows), self, "attention", "output"), tuple(kept)


class Mlp(nnx.Module):
    """The gated MLP; `input` holds gate and up side by side."""

    def __init__(self, a: Architecture, how: Computation, key: jax.Array):
        first, second = jax.random.split(key)
        self.input = matrix(first, a.width, 2 * a.hidden)
        self.input_bias = _bias(a.mlp_bias, 2 * a.hidden)
        self.output = matrix(second, a.hidden, a.width, gain=(2 * len(a.layers)) ** -0.5)
        self.output_bias = _bias(a.mlp_bias, a.width)
        self.input_adapter = adapter(a, how, "mlp/input", a.width, (a.hidden,) * 2, first)
        self.output_adapter = adapter(a, how, "mlp/output", a.hidden, (a.width,), second)
        self.gate, self.how = a.activation, how

    def __call__(self, x: jax.Array) -> jax.Array:
        inner = self.how.inner(self.how.operations.gated(_times(self.how, x, self, "mlp", "input"), self.gate))
        return _times(self.how, inner, self, "mlp", "output")


class Block(nnx.Module):
    def __init__(self, a: Architecture, how: Computation, layer: Layer, key: jax.Array):
        first, second = jax.random.split(key)
        self.attention_norm, self.attention = Norm(a, how, a.width), Attention(a, how, layer, first)
        self.mlp_norm, self.mlp = Norm(a, how, a.width), Mlp(a, how, second)
        self.attention_post_norm = Norm(a, how, a.width) if a.post_norms else None
        self.mlp_post_norm = Norm(a, how, a.width) if a.post_norms else None

    def __call__(self, x: jax.Array, streams: Streams) -> tuple[jax.Array, tuple[kv_cache.Pair, ...]]:
        mixed, kept = self.attention(self.attention_norm(x), streams)
        x = x + (mixed if self.attention_post_norm is None else self.attention_post_norm(mixed))
        made = self.mlp(self.mlp_norm(x))
        return x + (made if self.mlp_post_norm is None else self.mlp_post_norm(made)), kept
