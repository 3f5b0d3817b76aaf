"""The decoder: blocks one after the other, between an embedding and a head.

One function serves sampling, log-probabilities and training of every family, so that what is trained is what was
sampled. Decides the order of a forward pass, and how it goes through the depth: layers that are alike as one loop
(`depth`), so that a deep model compiles as fast as a shallow one. What happens within a layer is in `block`.

Parameters are stored by layer, whatever is looped over: checkpoints, adapters and export know of no loop. Training
stacks them within the program, sampling once for a call (`Policy.weights`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ratchet_trainer.model import kv_cache
from ratchet_trainer.model.architecture import Architecture, Layer
from ratchet_trainer.model.block import Block, Norm, Stream, matrix
from ratchet_trainer.model.computation import Computation
from ratchet_trainer.model.depth import Run, runs, stacked, through
from ratchet_trainer.model.plain import Turn
from ratchet_trainer.model.sharding import Params

Turns = tuple[Turn, ...]
Tokens = tuple[jax.Array, jax.Array]


class Ends(nnx.Module):
    """What lies before the first block and behind the last one."""

    def __init__(self, a: Architecture, how: Computation, key: jax.Array):
        self.embedding = nnx.Param(a.width**-0.5 * jax.random.normal(key, (a.vocabulary, a.width), jnp.float32))
        self.norm = Norm(a, how, a.width)
        self.head = None if a.tied else matrix(jax.random.fold_in(key, 1), a.width, a.vocabulary)


class Modules:
    """The modules of a model without their weights: what is static of it, looked at once."""

    def __init__(self, a: Architecture, how: Computation):
        self.architecture, self.how, self.runs = a, how, runs(a.layers, how.scans)
        self._ends = _abstract(partial(Ends, a, how))
        self._blocks = {layer: _abstract(partial(Block, a, how, layer)) for layer in dict.fromkeys(a.layers)}

    def init(self, key: jax.Array) -> Params:
        """Random parameters."""
        a, how = self.architecture, self.how
        first, *keys = jax.random.split(key, len(a.layers) + 1)
        blocks = {i: _pure(Block(a, how, layer, k)) for i, (layer, k) in enumerate(zip(a.layers, keys, strict=True))}
        return {**_pure(Ends(a, how, first)), "blocks": blocks}

    def stacked(self, blocks: Any, over: tuple[str, ...] = ("fsdp", "tensor")) -> tuple[Any, ...]:
        """The weights of every run of layers, as `depth.stacked`, of parameters by layer, which are spread `over` these
        axes of the mesh."""
        return tuple(stacked(run, lambda i: blocks[i], partial(self.how.stack, over)) for run in self.runs)

    def stacked_shapes(self, blocks: Any) -> tuple[Any, ...]:
        """The shapes of what `stacked` gives of these shapes."""
        return tuple(stacked(run, lambda i: blocks[i], self.how.stacked_shape) for run in self.runs)

    def ends(self, params: Params) -> Ends:
        found: Ends = _merged(self._ends, {name: value for name, value in params.items() if name != "blocks"})
        return found

    def block(self, layer: Layer, weights: Any) -> Block:
        found: Block = _merged(self._blocks[layer], weights)
        return found


def _abstract(make: Callable[[jax.Array], nnx.Module]) -> tuple[Any, Any]:
    """A module's structure and the shapes of its parameters."""
    graph, state = nnx.split(nnx.eval_shape(lambda: make(jax.random.key(0))))
    return graph, state


def _pure(module: nnx.Module) -> Params:
    """A module's parameters."""
    found: Params = nnx.to_pure_dict(nnx.split(module)[1])
    return found


def _merged(parts: tuple[Any, Any], weights: Any) -> Any:
    graph, state = parts
    state = jax.tree.map(lambda x: x, state)  # a copy: the structure is shared, the values are not
    nnx.replace_by_pure_dict(state, weights)
    return nnx.merge(graph, state)


class Decoder:
    """A decoder-only transformer with its weights."""

    def __init__(self, modules: Modules, params: Params):
        self.modules, self.architecture, self.how = modules, modules.architecture, modules.how
        self.ends, self._blocks = modules.ends(params), params["blocks"]

    def turns(self, positions: jax.Array) -> Turns:
        """How `positions` [..., P, G or 1, T] turn, for each of the architecture's `ropes`; equal for all layers, and
        best made before a loop that decodes."""
        a = self.architecture
        turn, alive = self.how.operations.turn, self._alive()
        return tuple(turn(positions, rope, a.head_width, alive) for rope in a.ropes)

    @cached_property
    def _stacked(self) -> tuple[Any, ...]:
        """The weights of every run of layers, as `depth.stacked`; made here unless they came so."""
        if isinstance(self._blocks, tuple):
            return self._blocks
        return self.modules.stacked(self._blocks)

    def __call__(
        self,
        tokens: jax.Array,
        turns: Turns,
        prompt: kv_cache.Prompt | None = None,
        own: tuple[kv_cache.Pair, ...] | None = None,
        at: jax.Array | int = 0,
        reach: int | None = None,
    ) -> tuple[jax.Array, tuple[kv_cache.Pair, ...]]:
        """Hidden states [P, G, T, width] of tokens [P, G, T] at the positions of `turns`, and their keys and values,
        one pair [P, n, M, G, T, K] for each run of n layers.

        The tokens see the prompt's real slots and, causally, themselves; with `own`, they are written to its slots
        at..at+T-1, one number or int32[P], and see what is there before, all of it within the first `reach` slots.
        """
        x, caches = self._embedded(tokens), []
        for r, run in enumerate(self.modules.runs):
            past, length = (None, None) if prompt is None else (prompt.runs[r], prompt.length)
            step = partial(self._step, run, tokens.shape, turns, past, length, at, reach)
            (x, cache), made = through(run, step, (x, own and own[r]), self._stacked[r])
            caches.append(kv_cache.joined(made) if cache is None else cache)
        return self.ends.norm(x).reshape(*tokens.shape, self.architecture.width), tuple(caches)

    def _step(
        self,
        run: Run,
        shape: tuple[int, ...],
        turns: Turns,
        prompt: kv_cache.Pair | None,
        length: jax.Array | None,
        at: jax.Array | int,
        reach: int | None,
        carry: tuple[jax.Array, kv_cache.Pair | None],
        weights: tuple[Any, ...],
        turn: jax.Array | int,
    ) -> tuple[tuple[jax.Array, kv_cache.Pair | None], list[kv_cache.Pair]]:
        """Once through a run's pattern: rows and, if there are any, the run's own slots are carried; without own slots
        every layer's keys and values are made."""
        (x, cache), made = carry, []
        for place, w in enumerate(weights):
            layer, i = self.architecture.layers[run.first + place], turn * run.period + place
            past = prompt and kv_cache.layer(prompt, i)
            stream = Stream(shape, self._turn(turns, layer), past, length, cache, i, at, reach)
            x, (kept,) = self.modules.block(layer, w)(x, (stream,))
            x = self.how.rows(x)
            if cache is None:
                made.append(kept)
            else:
                cache = kept
        return (x, cache), made

    def continued(self, prompts: Tokens, length: jax.Array, responses: Tokens) -> jax.Array:
        """Hidden states [P, G, T, width] of responses to prompts; each of both: tokens, [P, 1, C] and [P, G, T], and
        positions, equal in a group. `length` [P] slots of a prompt are real. One pass over the rows of both, so that a
        gradient is one product a matrix; if the computation says so, it keeps of each block its input alone."""
        a, how, shapes = self.architecture, self.how, (prompts[0].shape, responses[0].shape)
        alive = self._alive()
        turns = [self.turns(positions) for _, positions in (prompts, responses)]
        tokens = jnp.concatenate([x.reshape(len(x), -1) for x, _ in (prompts, responses)], 1)

        def block(layer: Layer, weights: Any, x: jax.Array, others: Any) -> jax.Array:
            streams = tuple(Stream(shape, *other) for shape, other in zip(shapes, others, strict=True))
            return self.modules.block(layer, weights)(x, streams)[0]

        def step(run: Run, x: jax.Array, weights: tuple[Any, ...], _: Any) -> tuple[jax.Array, None]:
            for layer, w in zip(a.layers[run.first :], weights, strict=False):
                of_prompt, of_response = (self._turn(of_stream, layer) for of_stream in turns)
                others = (of_prompt,), (of_response, None, length)
                one = partial(block, layer)
                x = how.operations.recomputed(one, w, x, others, alive) if how.recompute else one(w, x, others)
                x = how.rows(x)
            return x, None

        x = self._embedded(tokens)
        for run, weights in zip(self.modules.runs, self._stacked, strict=True):
            x, _ = through(run, partial(step, run), x, weights)
        widths = tuple(g * t for _, g, t in shapes)
        x = how.operations.split(x.reshape(len(length), -1, a.width), widths, 1)[1]
        return self.ends.norm(x.reshape(-1, a.width)).reshape(*shapes[1], a.width)

    def _turn(self, turns: Turns, layer: Layer) -> Turn:
        return turns[self.architecture.ropes.index(layer.rope)]

    def _alive(self) -> jax.Array:
        """True while the weights are numbers, which no compiler can know. Of a vector, as those lie whole on every
        device: nobody is asked."""
        return jnp.isfinite(self.ends.norm.scale[...][0])

    def _embedded(self, tokens: jax.Array) -> jax.Array:
        """Tokens [...] -> rows [M, width]."""
        table = self.ends.embedding[...]
        if self.how.mesh is not None:
            table = self.how.weight(table, "embedding")
        x = table[tokens.reshape(-1)].astype(self.how.dtype) * self.architecture.embedding_scale
        return self.how.rows(x)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Unnormalized log-probabilities [..., vocabulary] of the next token, float32."""
        a, how, ends = self.architecture, self.how, self.ends
        rows = hidden.reshape(-1, a.width)
        matrix = self.table.T if ends.head is None else how.weight(ends.head[...], "head")
        logits = jnp.matmul(rows, matrix, preferred_element_type=jnp.float32)
        if a.logit_cap is not None:
            logits = a.logit_cap * jnp.tanh(logits / a.logit_cap)
        return logits.reshape(*hidden.shape[:-1], a.vocabulary)

    @property
    def table(self) -> jax.Array:
        """What hidden states are multiplied with for logits, [vocabulary, width]."""
        how, ends = self.how, self.ends
        if ends.head is None:
            return how.weight(ends.embedding[...], "embedding")
        return how.weight(ends.head[...], "head").T
