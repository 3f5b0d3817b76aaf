"""The policy as functions of its parameters: start, read a prompt, continue it, judge a continuation.

Decides how prompts and responses meet: the last token of a prompt is fed with the response, so a prefill only fills the
cache, and response position t is predicted from response input t in sampling and in training alike. The arithmetic of a
pass is the decoder's. softmax(logits / temperature) is the policy everywhere.

Letters: P prompts, G responses of each, C prompt slots, T response slots, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from ratchet_trainer.checkpoints import jitted
from ratchet_trainer.data.tokenizer import FILLER
from ratchet_trainer.model import kv_cache, streamed_logits
from ratchet_trainer.model.architecture import Architecture
from ratchet_trainer.model.computation import PLAIN, Computation
from ratchet_trainer.model.depth import runs
from ratchet_trainer.model.sharding import ROWS, Params, path_of

if TYPE_CHECKING:
    from ratchet_trainer.model.decoder import Decoder, Modules

MATRIX = 2
"""Axes of a parameter that is multiplied with."""
LOGITS = 2**23
"""More logits than these (32 MiB) on a device are computed some positions at a time, and again for the gradient: with a
vocabulary of 32,000 they would be most of what an update holds."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prompts:
    """Prompts at a fixed shape: `body` int32[P, C] is all but the last token, right-padded; `length` int32[P] counts
    its real slots; `last` int32[P] is the last token."""

    body: jax.Array
    length: jax.Array
    last: jax.Array


class Policy:
    """Pure functions of a decoder's parameters (a nested dict of arrays). Holds the static structure only."""

    def __init__(self, architecture: Architecture, how: Computation = PLAIN):
        self.architecture, self.how = architecture, how
        self._runs = runs(architecture.layers, how.scans)
        self._for_sampling = jitted.jit(self._looped)
        self.abstract: Params = jitted.shapes_of(self.init, np.zeros(2, np.uint32))

    def program_parts(self) -> Any:
        """All that programs made of this depend on."""
        return self.architecture, self.how

    @cached_property
    def _modules(self) -> Modules:
        # Made when something is traced: a start that loads its programs needs no flax, which takes long to import.
        from ratchet_trainer.model.decoder import Modules

        with jax.core.eval_context():  # they outlive the trace in which they are asked for first
            return Modules(self.architecture, self.how)

    def init(self, seed: jax.Array) -> Params:
        """Random parameters from a raw threefry2x32 key uint32[2]."""
        return self._modules.init(jax.random.wrap_key_data(seed, impl="threefry2x32"))

    def decoder(self, params: Params) -> Decoder:
        from ratchet_trainer.model.decoder import Decoder

        return Decoder(self._modules, params)

    def weights(self, params: Params) -> Params:
        """Parameters, or their shapes, as programs want them that use them again and again: in the format of matrix
        products, gathered, and layers that are a loop as its stack."""
        made: Params
        if self._has_loops and not isinstance(jax.tree.leaves(params)[0], jax.ShapeDtypeStruct):
            made = self._for_sampling(params)
            return made
        made = self.how.weights(params)
        return {**made, "blocks": self._modules.stacked_shapes(made["blocks"])} if self._has_loops else made

    def weights_program(self, params: Params) -> jax.stages.Lowered | None:
        """What `weights` runs for parameters of these shapes; None where that is no program of its own."""
        return self._for_sampling.lower(params) if self._has_loops else None

    @property
    def _has_loops(self) -> bool:
        return any(run.times > 1 for run in self._runs)

    def _looped(self, params: Params) -> Params:
        """All of `weights` in one program, so that no second copy of the model lies beside the first."""
        used = lambda path, x: self.how.weight(x, path_of(path)) if x.ndim == MATRIX else x  # noqa: E731
        ends = {name: value for name, value in params.items() if name != "blocks"}
        blocks = self._modules.stacked(params["blocks"], over=("tensor",))
        return {**jax.tree_util.tree_map_with_path(used, ends), "blocks": blocks}

    def empty_cache(self, prompts: int, samples: int, slots: int) -> tuple[kv_cache.Pair, ...]:
        a = self.architecture
        layers = [len(run.layers) for run in self._runs]
        return kv_cache.empty(layers, (prompts, a.kv_heads, samples, slots, a.head_width), self.how.dtype)

    def read(self, params: Params, prompts: Prompts) -> kv_cache.Prompt:
        """Keys and values of the prompts' bodies, once for each group."""
        model, (tokens, positions) = self.decoder(params), _bodies(prompts)
        _, runs = model(tokens, model.turns(positions))
        return kv_cache.Prompt(tuple((k.squeeze(3), v.squeeze(3)) for k, v in runs), prompts.length)

    def hidden(self, params: Params, prompts: Prompts, responses: jax.Array) -> jax.Array:
        """What the trunk makes of prompts and responses int32[P, G, T] before each response token, [P, G, T, width].

        Positions after a response's end hold finite values without meaning: weigh them with 0.
        """
        first = jnp.broadcast_to(prompts.last[:, None, None], (*responses.shape[:2], 1))
        inputs = jnp.concatenate([first, responses[..., :-1]], -1)
        positions = prompts.length[:, None, None] + jnp.arange(inputs.shape[-1], dtype=jnp.int32)
        return self.decoder(params).continued(_bodies(prompts), prompts.length, (inputs, positions))

    def judge(
        self, params: Params, prompts: Prompts, responses: jax.Array, temperature: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Log-probability and entropy in nats, float32[P, G, T] each, at every position of responses int32[P, G, T];
        after a response's end as for `hidden`. At most about LOGITS logits exist at a time, also when differentiated,
        and on TPUs only those of some rows and words.
        """
        hidden, model = self.hidden(params, prompts, responses), self.decoder(params)
        if self.how.streams_logits and len(hidden) % self.how.row_parts == 0:
            return self._streamed(hidden, model.table, responses, temperature)

        def some_positions(part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            return log_prob_and_entropy(model.logits(part[0]), part[1], temperature)

        p, g, t = responses.shape
        chunks = min(t, -(-p * g * t * self.architecture.vocabulary // (LOGITS * self.how.row_parts)))
        if chunks == 1:
            return some_positions((hidden, responses))
        size = -(-t // chunks)
        chunks = -(-t // size)

        def cut(x: jax.Array) -> jax.Array:
            """[P, G, T, ...] -> [chunks, P, G, size, ...], filled up with zeros."""
            x = jnp.pad(x, [(0, 0), (0, 0), (0, chunks * size - t), *[(0, 0)] * (x.ndim - 3)])
            return jnp.moveaxis(x.reshape(p, g, chunks, size, *x.shape[3:]), 2, 0)

        found = jax.lax.map(jax.checkpoint(some_positions), (cut(hidden), cut(responses)))
        log_probs, entropy = (jnp.moveaxis(x, 0, 2).reshape(p, g, chunks * size)[..., :t] for x in found)
        return log_probs, entropy

    def _streamed(
        self, hidden: jax.Array, table: jax.Array, tokens: jax.Array, temperature: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """`judge` of hidden states; on a spread model every device takes its own rows."""

        def of_rows(hidden: jax.Array, table: jax.Array, tokens: jax.Array, temperature: jax.Array) -> Any:
            rows = hidden.reshape(-1, hidden.shape[-1]), table, tokens.reshape(-1), temperature
            found = streamed_logits.log_prob_and_entropy(*rows, self.architecture.logit_cap)
            return tuple(x.reshape(tokens.shape) for x in found)

        if self.how.mesh is not None:
            rows, all_ = PartitionSpec(ROWS), PartitionSpec()
            specs = (rows, all_, rows, all_)
            of_rows = jax.shard_map(of_rows, mesh=self.how.mesh, in_specs=specs, out_specs=rows, check_vma=False)
        log_probs, entropy = of_rows(hidden, table, tokens, temperature)
        return log_probs, entropy


def _bodies(prompts: Prompts) -> tuple[jax.Array, jax.Array]:
    """Their tokens and positions, [P, 1, C]."""
    tokens = prompts.body[:, None, :]
    return tokens, jnp.broadcast_to(jnp.arange(tokens.shape[-1]), tokens.shape)


@jax.custom_vjp
def log_prob_and_entropy(logits: jax.Array, tokens: jax.Array, temperature: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of `tokens` [...] in 0..V-1 under softmax(logits [..., V] / temperature): log-probability and entropy in nats
    [...]. The logits are finite.

    Differentiated by the logits alone, and by hand: by itself each chosen token's part is scattered into zeros.
    """
    return _log_prob_forward(logits, tokens, temperature)[0]


def _log_prob_forward(
    logits: jax.Array, tokens: jax.Array, temperature: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, ...]]:
    log_probs = jax.nn.log_softmax(logits / temperature, -1)
    chosen = jnp.take_along_axis(log_probs, tokens[..., None], -1)[..., 0]
    entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, -1)
    return (chosen, entropy), (log_probs, tokens, temperature, entropy)


def _log_prob_backward(kept: tuple[jax.Array, ...], d: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None, None]:
    log_probs, tokens, temperature, entropy = kept
    by_chosen, by_entropy = (x[..., None] / temperature for x in d)
    mine = jnp.arange(log_probs.shape[-1]) == tokens[..., None]
    by_all = jnp.exp(log_probs) * (by_chosen + by_entropy * (log_probs + entropy[..., None]))
    return jnp.where(mine, by_chosen, 0.0) - by_all, None, None


log_prob_and_entropy.defvjp(_log_prob_forward, _log_prob_backward)


def lay_out_prompts(prompts: Sequence[tuple[int, ...]], rows: int, slots: int) -> Prompts:
    """Host arrays of `rows` prompts; missing ones become dummies, so that a batch never shrinks."""
    body = np.full((rows, slots), FILLER, np.int32)
    length = np.zeros((rows,), np.int32)
    last = np.full((rows,), FILLER, np.int32)
    for i, tokens in enumerate(prompts):
        body[i, : len(tokens) - 1] = tokens[:-1]
        length[i], last[i] = len(tokens) - 1, tokens[-1]
    return Prompts(body, length, last)  # type: ignore[arg-type]  # on the host, until they are placed
