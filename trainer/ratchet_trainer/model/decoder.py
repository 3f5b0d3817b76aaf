"""The decoder: RMSNorm, rotary attention, a gated MLP; a flax module, called functionally.

One function serves sampling, log-probabilities and training of every family, so that what is trained is what was
sampled. Decides the order of a forward pass; which choices a model makes is data (`architecture`), what is kept between
calls is in `kv_cache`, placement on devices in `sharding`. Modules are trees (no shared references): they are split
once and merged inside `jax.jit`.

Activations are rows [M, D] of all tokens: XLA's CPU backend is half as fast with matrix products of more axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ratchet_trainer.model import kv_cache
from ratchet_trainer.model.activations import gated, rms_norm, split
from ratchet_trainer.model.architecture import Architecture, Layer
from ratchet_trainer.model.attention import Turn, attend, rotate, turn
from ratchet_trainer.model.computation import Computation
from ratchet_trainer.model.lora import adapter
from ratchet_trainer.model.recompute import recomputed


@dataclass(frozen=True)
class Stream:
    """Tokens [P, G, T] that go through a block together: their rotary angles; what they see before themselves, of which
    `length` [P] slots are real (None: the stream before them, or nothing); their own slots, from `at` on new."""

    shape: tuple[int, int, int]
    by: Turn
    prompt: kv_cache.Pair | None = None
    length: jax.Array | None = None
    own: kv_cache.Pair | None = None
    at: jax.Array | int = 0


Turns = tuple[Turn, ...]
Streams = tuple[Stream, ...]
"""Side by side for each prompt: the rows of a pass are [P, all tokens of the prompt's streams]."""
Tokens = tuple[jax.Array, jax.Array]


def _apart(rows: jax.Array, streams: Streams) -> tuple[jax.Array, ...]:
    """Rows [M, width] as one [P, G T, width] a stream."""
    rows = rows.reshape(streams[0].shape[0], -1, rows.shape[-1])
    return (rows,) if len(streams) == 1 else split(rows, tuple(s.shape[1] * s.shape[2] for s in streams), 1)


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

    def __call__(self, x: jax.Array, streams: Streams) -> tuple[jax.Array, tuple[kv_cache.Pair, ...]]:
        """x [M, D] of the streams' tokens -> [M, D], and each stream's keys and values."""
        a, how = self.architecture, self.how
        wide = split(_times(how, x, self, "attention", "input"), a.projections)
        mixed, kept, before = [], [], None
        for stream, parts in zip(streams, zip(*(_apart(part, streams) for part in wide), strict=True), strict=True):
            query, key, value = (how.heads(part.reshape(*stream.shape, -1, a.head_width)) for part in parts)
            if self.query_norm is not None:
                query, key = self.query_norm(query), self.key_norm(key)
            query, key = rotate(query * a.query_scale, stream.by), rotate(key, stream.by)
            new = key.transpose(0, 3, 1, 2, 4), value.transpose(0, 3, 1, 2, 4)
            own = new if stream.own is None else kv_cache.write(stream.own, new, stream.at)
            prompt = before if stream.prompt is None else stream.prompt
            seen = attend(query, own, stream.at, prompt, stream.length, self.layer.window, a.attention_cap)
            mixed.append(seen.reshape(stream.shape[0], -1, a.projections[0]))
            kept.append(own)
            before = (own[0].squeeze(2), own[1].squeeze(2)) if stream.shape[1] == 1 else None
        rows = (mixed[0] if len(mixed) == 1 else jnp.concatenate(mixed, 1)).reshape(len(x), -1)
        return _times(how, how.inner(rows), self, "attention", "output"), tuple(kept)


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

    def __call__(self, x: jax.Array, streams: Streams) -> tuple[jax.Array, tuple[kv_cache.Pair, ...]]:
        mixed, kept = self.attention(self.attention_norm(x), streams)
        x = x + (mixed if self.attention_post_norm is None else self.attention_post_norm(mixed))
        made = self.mlp(self.mlp_norm(x))
        return x + (made if self.mlp_post_norm is None else self.mlp_post_norm(made)), kept


def _output(structure: Any, shapes: tuple[Any, ...], weights: Any, x: jax.Array, others: Any) -> jax.Array:
    """What a block makes of x, as a function."""
    streams = tuple(Stream(shape, *other) for shape, other in zip(shapes, others, strict=True))
    return nnx.merge(structure, weights)(x, streams)[0]


class Decoder(nnx.Module):
    """Decoder-only transformer."""

    def __init__(self, a: Architecture, how: Computation, key: jax.Array):
        keys = jax.random.split(key, len(a.layers) + 1)
        self.embedding = nnx.Param(a.width**-0.5 * jax.random.normal(keys[0], (a.vocabulary, a.width), jnp.float32))
        self.blocks = nnx.List([Block(a, how, layer, k) for layer, k in zip(a.layers, keys[1:], strict=True)])
        self.norm = Norm(a, a.width)
        self.head = None if a.tied else _matrix(jax.random.fold_in(keys[0], 1), a.width, a.vocabulary)
        self.architecture, self.how = a, how

    def turns(self, positions: jax.Array) -> Turns:
        """How `positions` [..., P, G or 1, T] turn, for each of the architecture's `ropes`; equal for all layers, and
        best made before a loop that decodes."""
        width, alive = self.architecture.head_width, self._alive()
        return tuple(turn(positions, rope, width, alive) for rope in self.architecture.ropes)

    def __call__(
        self,
        tokens: jax.Array,
        turns: Turns,
        prompt: kv_cache.Prompt | None = None,
        own: tuple[kv_cache.Pair, ...] | None = None,
        at: jax.Array | int = 0,
    ) -> tuple[jax.Array, tuple[kv_cache.Pair, ...]]:
        """Hidden states [P, G, T, width] of tokens [P, G, T] at the positions of `turns`, and their keys and values.

        The tokens see the prompt's real slots and, causally, themselves; with `own`, they are written to its slots
        at..at+T-1, one number or int32[P], and see what is there before.
        """
        a = self.architecture
        x, cache = self._embedded(tokens), []
        for i, block in enumerate(self.blocks):
            past = (None, None) if prompt is None else (prompt.layers[i], prompt.length)
            stream = Stream(tokens.shape, self._turn(turns, i), *past, None if own is None else own[i], at)
            x, (kept,) = block(x, (stream,))
            x = self.how.rows(x)
            cache.append(kept)
        return self.norm(x).reshape(*tokens.shape, a.width), tuple(cache)

    def continued(self, prompts: Tokens, length: jax.Array, responses: Tokens) -> jax.Array:
        """Hidden states [P, G, T, width] of responses to prompts; each of both: tokens, [P, 1, C] and [P, G, T], and
        positions, equal in a group. `length` [P] slots of a prompt are real. One pass over the rows of both, so that a
        gradient is one product a matrix; if the computation says so, it keeps of each block its input alone."""
        a, shapes = self.architecture, (prompts[0].shape, responses[0].shape)
        alive = self._alive()
        turns = [self.turns(positions) for _, positions in (prompts, responses)]
        tokens = jnp.concatenate([x.reshape(len(x), -1) for x, _ in (prompts, responses)], 1)
        x = self._embedded(tokens)
        for i, block in enumerate(self.blocks):
            of_prompt, of_response = (self._turn(of_stream, i) for of_stream in turns)
            others = (of_prompt,), (of_response, None, length)
            structure, weights = nnx.split(block)
            run = partial(_output, structure, shapes)
            x = recomputed(run, weights, x, others, alive) if self.how.recompute else run(weights, x, others)
            x = self.how.rows(x)
        x = split(x.reshape(len(length), -1, a.width), tuple(g * t for _, g, t in shapes), 1)[1]
        return self.norm(x.reshape(-1, a.width)).reshape(*shapes[1], a.width)

    def _turn(self, turns: Turns, layer: int) -> Turn:
        a = self.architecture
        return turns[a.ropes.index(a.layers[layer].rope)]

    def _alive(self) -> jax.Array:
        """True while the weights are numbers, which no compiler can know. Of a vector, as those lie whole on every
        device: nobody is asked."""
        return jnp.isfinite(self.norm.scale[...][0])

    def _embedded(self, tokens: jax.Array) -> jax.Array:
        """Tokens [...] -> rows [M, width]."""
        table = self.embedding[...]
        if self.how.mesh is not None:
            table = self.how.weight(table, "embedding")
        x = table[tokens.reshape(-1)].astype(self.how.dtype) * self.architecture.embedding_scale
        return self.how.rows(x)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Unnormalized log-probabilities [..., vocabulary] of the next token, float32."""
        a, how = self.architecture, self.how
        rows = hidden.reshape(-1, a.width)
        matrix = (
            how.weight(self.embedding[...], "embedding").T if self.head is None else how.weight(self.head[...], "head")
        )
        logits = jnp.matmul(rows, matrix, preferred_element_type=jnp.float32)
        if a.logit_cap is not None:
            logits = a.logit_cap * jnp.tanh(logits / a.logit_cap)
        return logits.reshape(*hidden.shape[:-1], a.vocabulary)
