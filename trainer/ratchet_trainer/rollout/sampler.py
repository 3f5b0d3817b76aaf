"""Sampling at fixed shapes: one prefill for each prompt, then chunks of decoding until all responses have ended.

Decides which token comes next, from weights, key and token number alone: neither the neighbours in a batch nor the
process that holds a row matter. Rows are spread over the mesh axis `data`; what comes back is equal on every process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from ratchet_trainer import keys
from ratchet_trainer.data.tokenizer import FILLER
from ratchet_trainer.model import kv_cache
from ratchet_trainer.model.policy import Params, Policy, Prompts, lay_out_prompts, log_prob_and_entropy
from ratchet_trainer.model.sharding import by_rows, place, replicated, shapes
from ratchet_trainer.rollout.endings import Endings, Stops
from ratchet_trainer.rollout.journal import Kept
from ratchet_trainer.rollout.truncation import Truncation, staying

NOISE_AHEAD = 16 << 20
"""Noise of a whole chunk is drawn at once if it is not more numbers than this: one large computation instead of many
small ones, with the same bits."""
CHUNK = 16
"""Tokens decoded between two safe points."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Decoding:
    """Responses in the making: caches, raw row keys uint32[P, G, 2], the newest token and whether it ended, [P, G]."""

    prompt: kv_cache.Prompt
    own: tuple[kv_cache.Pair, ...]
    keys: jax.Array
    token: jax.Array
    done: jax.Array


@dataclass(frozen=True)
class Sampled:
    """Host arrays [P, G, T]: tokens (FILLER after the last), their log-probabilities as drawn, the policy's entropy
    there (nats); [P, G]: lengths in tokens, and why there are no more (`endings.Finish`)."""

    tokens: np.ndarray
    log_probs: np.ndarray
    entropy: np.ndarray
    lengths: np.ndarray
    finish: np.ndarray


class Sampler:
    """The compiled programs of one policy on one mesh; new shapes compile on first use."""

    def __init__(self, policy: Policy, mesh: Mesh, ends: tuple[int, ...]):
        """`ends`: tokens after which a response is over."""
        self.mesh, self.ends, self.weights = mesh, ends, policy.how.weights
        rows, everywhere = by_rows(mesh), replicated(mesh)
        self._start = jax.jit(partial(_start, policy), static_argnames="slots", out_shardings=rows)
        self._decode = jax.jit(
            partial(_decode, policy, ends),
            static_argnames="count",
            donate_argnums=1,
            out_shardings=(rows, everywhere),
        )

    def prepare(
        self,
        params: Params,
        prompts: int,
        prompt_slots: int,
        samples: int,
        slots: int,
        cut: Truncation | None = None,
    ) -> None:
        """Compiles for these sizes ahead of the first call; `params` may be shapes."""
        seed, numbers = keys.seed_words(0), np.arange(samples, dtype=np.uint32)
        for own, laid_out, words, placed in self.templates(self.weights(params), prompts, prompt_slots):
            start = self._start.lower(own, seed, laid_out, words, numbers, slots=slots)
            start.compile()
            state = placed(start.out_info)
            for count in {min(CHUNK, slots), slots % CHUNK or min(CHUNK, slots)}:
                self._decode.lower(own, state, np.int32(0), np.float32(1), cut, count=count).compile()

    def templates(self, params: Params, prompts: int, prompt_slots: int) -> Iterator[tuple[Any, ...]]:
        """For each program to compile the shapes of parameters, prompts and row words, and what places a state's."""
        rows = by_rows(self.mesh)
        words = jax.ShapeDtypeStruct((prompts, 5), np.uint32, sharding=rows)
        yield params, shapes(lay_out_prompts([], prompts, prompt_slots), rows), words, lambda tree: shapes(tree, rows)

    def begin(
        self,
        params: Params,
        seed: np.ndarray,
        prompts: Prompts,
        row_words: np.ndarray,
        samples: np.ndarray,
        slots: int,
        temperature: float,
        kept: Kept | None = None,
        cut: Truncation | None = None,
        stops: Stops | None = None,
        limits: np.ndarray | None = None,
    ) -> Sampling:
        """`len(samples)` responses of at most `slots` tokens to each prompt, to be made chunk by chunk.

        prompts: host arrays, P a multiple of the data axis; row_words uint32[P, 5] and samples uint32[G] name the keys.
        `kept`: go on from there. `cut`, `stops`: not all tokens are drawn from, strings end a response. `limits`
        int[P]: most tokens of each prompt's responses, at most `slots` (0: nobody needs them).
        """
        params = self.weights(params)
        limits = np.broadcast_to(np.int32(slots) if limits is None else limits[:, None], (len(row_words), len(samples)))
        going = partial(Sampling, self, params, temperature, cut, Endings(self.ends, limits, stops))
        arguments = params, seed, prompts, row_words, samples.astype(np.uint32), slots
        if kept is None:
            nothing = np.zeros((3, len(row_words), len(samples), 0), np.float32)
            return going(self.start(*arguments), [nothing], slots)
        return going(None if kept.state is None else self.taken_up(kept.state, *arguments), [kept.made], slots)

    def start(
        self, params: Params, seed: np.ndarray, prompts: Prompts, words: np.ndarray, samples: np.ndarray, slots: int
    ) -> Any:
        """The decoding state before the first token."""
        rows = by_rows(self.mesh)
        return self._start(params, seed, place(prompts, rows), place(words, rows), samples, slots=slots)

    def taken_up(self, kept: tuple[tuple[np.ndarray, ...], ...], *arguments: Any) -> Any:
        """The decoding state that `own_parts` took apart; arguments as for `start`."""
        *others, slots = arguments
        leaves, structure = jax.tree.flatten(jax.eval_shape(partial(self._start, slots=slots), *others))
        pairs = zip(leaves, kept, strict=True)
        return structure.unflatten([_put_back(leaf.shape, parts, by_rows(self.mesh)) for leaf, parts in pairs])

    def decode(
        self, params: Params, state: Any, at: int, temperature: float, cut: Truncation | None, count: int
    ) -> Any:
        """The next `count` tokens: new state, and [3, P, G, count] on every process."""
        return self._decode(params, state, np.int32(at), np.float32(temperature), cut, count=count)


class Sampling:
    """One call under way, made chunk by chunk. `state` is None once all responses have ended."""

    def __init__(
        self,
        sampler: Sampler,
        params: Params,
        temperature: float,
        cut: Truncation | None,
        endings: Endings,
        state: Any,
        made: list[np.ndarray],
        slots: int,
    ):
        """`made`: tokens, log-probabilities and entropy so far, float32[3, P, G, at] in chunks."""
        self._sampler, self._params, self._temperature, self._cut = sampler, params, temperature, cut
        self._endings, self._state, self._made, self._slots = endings, state, made, slots
        self._at = sum(chunk.shape[-1] for chunk in made)
        self._see()

    @property
    def over(self) -> bool:
        return self._state is None

    def advance(self) -> None:
        """Makes the next chunk."""
        assert self._state is not None
        count = min(CHUNK, self._slots - self._at)
        self._state, chunk = self._sampler.decode(
            self._params, self._state, self._at, self._temperature, self._cut, count
        )
        self._made.append(np.asarray(chunk))
        self._at += count
        self._see()

    def _see(self) -> None:
        self._endings.see(np.concatenate([chunk[0] for chunk in self._made], -1).astype(np.int32))
        if self._endings.all:
            self._state = None

    def kept(self) -> Kept:
        """All that another process needs to go on."""
        state = None if self._state is None else tuple(own_parts(leaf) for leaf in jax.tree.leaves(self._state))
        return Kept(np.concatenate(self._made, -1), state)

    def finish(self) -> Sampled:
        """Makes all that is missing."""
        while not self.over:
            self.advance()
        return self.result()

    def result(self) -> Sampled:
        """The responses, once over."""
        tokens, log_probs, entropy = np.concatenate(self._made, -1)
        missing = [(0, 0), (0, 0), (0, self._slots - tokens.shape[-1])]
        real = np.arange(self._slots) < self._endings.lengths[..., None]
        tokens = np.where(real, np.pad(tokens.astype(np.int32), missing), FILLER)
        log_probs, entropy = (np.where(real, np.pad(x, missing), np.float32(0)) for x in (log_probs, entropy))
        return Sampled(tokens, log_probs, entropy, self._endings.lengths, self._endings.finish)


def own_parts(leaf: jax.Array) -> tuple[np.ndarray, ...]:
    """What this process's devices hold of an array, in the order of their rows."""
    return tuple(np.asarray(s.data) for s in sorted(leaf.addressable_shards, key=lambda s: _place(s.index, s.device)))


def _place(index: tuple[slice, ...], device: jax.Device) -> tuple[int, ...]:
    return (*(part.start or 0 for part in index), device.id)


def _put_back(shape: tuple[int, ...], parts: tuple[np.ndarray, ...], sharding: NamedSharding) -> jax.Array:
    """The array that `own_parts` took apart."""
    indices = sharding.addressable_devices_indices_map(shape)
    devices = sorted(indices, key=lambda d: _place(indices[d], d))
    pieces = [jax.device_put(part, device) for part, device in zip(parts, devices, strict=True)]
    return jax.make_array_from_single_device_arrays(shape, sharding, pieces)


def _start(
    policy: Policy, params: Params, seed: jax.Array, prompts: Prompts, rows: jax.Array, samples: jax.Array, slots: int
) -> Decoding:
    shape = (rows.shape[0], samples.shape[0])
    return Decoding(
        prompt=policy.read(params, prompts),
        own=policy.empty_cache(*shape, slots),
        keys=keys.row_keys(seed, rows, samples),
        token=jnp.broadcast_to(prompts.last[:, None], shape),
        done=jnp.zeros(shape, bool),
    )


def _decode(
    policy: Policy,
    ends: tuple[int, ...],
    params: Params,
    state: Decoding,
    at: jax.Array,
    temperature: jax.Array,
    cut: Truncation | None,
    count: int,
) -> tuple[Decoding, jax.Array]:
    """`count` more tokens from response position `at`; tokens, log-probs and entropy as float32[3, P, G, count].
    Log-probs are those of what is drawn from, entropy is the whole policy's.

    One array, because every process gets it whole and each collective costs a wait (token numbers are exact below
    2^24).
    """
    model = policy.decoder(params)
    vocabulary = policy.architecture.vocabulary
    tokens = at + jnp.arange(count)
    noise = lambda t: keys.gumbel(state.keys, t, vocabulary)  # noqa: E731
    ahead = count * state.token.size * vocabulary <= NOISE_AHEAD
    noises = jax.vmap(noise)(tokens) if ahead else None

    def one(carry, now):
        own, token, done = carry
        t, drawn = now
        positions = jnp.broadcast_to(state.prompt.length[:, None] + t, token.shape)
        hidden, own = model(token[..., None], positions[..., None], state.prompt, own, t)
        logits = model.logits(hidden[..., 0, :])
        drawn = noise(t) if drawn is None else drawn
        scaled = logits / temperature
        if cut is not None:
            scaled = jnp.where(staying(scaled, cut), scaled, -jnp.inf)
        chosen = jnp.argmax(scaled + drawn, -1).astype(jnp.int32)
        log_prob, entropy = log_prob_and_entropy(logits, chosen, temperature)
        if cut is not None:
            log_prob = jnp.take_along_axis(jax.nn.log_softmax(scaled, -1), chosen[..., None], -1)[..., 0]
        out = jnp.where(done, FILLER, chosen), jnp.where(done, 0.0, log_prob), jnp.where(done, 0.0, entropy)
        return (own, out[0], done | jnp.isin(out[0], np.array(ends))), out

    (own, token, done), outs = jax.lax.scan(one, (state.own, state.token, state.done), (tokens, noises))
    made = jnp.stack([jnp.moveaxis(x.astype(jnp.float32), 0, -1) for x in outs])
    return Decoding(state.prompt, own, state.keys, token, done), made
