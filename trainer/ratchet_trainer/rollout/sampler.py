"""Sampling at fixed shapes: one prefill for each prompt, then chunks of decoding until all responses have ended.

Decides which token comes next, from weights, key and token number alone: neither the neighbours in a batch nor the
process that holds a row matter. Rows are spread over the mesh axis `data`; what comes back is equal on every process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ratchet_trainer.algorithm import keys
from ratchet_trainer.checkpoints import jitted
from ratchet_trainer.data.tokenizer import FILLER
from ratchet_trainer.model.policy import Policy, Prompts, lay_out_prompts
from ratchet_trainer.model.programs import DECODE, PREFILL, REFILL, WEIGHTS, Program
from ratchet_trainer.model.sharding import ROWS, Params, by_rows, place, replicated, shapes
from ratchet_trainer.rollout import decoding
from ratchet_trainer.rollout.endings import Endings, Stops
from ratchet_trainer.rollout.rollout_file import Kept
from ratchet_trainer.rollout.truncation import Truncation

CHUNK = 16
"""Most tokens of a response that are decoded between two safe points."""
CHUNK_TOKENS = 1 << 14
"""Most of all responses: about a second of a small CPU. A notice is heard at a safe point."""
REACH = 512
"""Own slots that are read at least; twice as many where a response has become longer than that, and so on."""
TPU_CHUNK, TPU_CHUNK_TOKENS, TPU_REACH = 64, 1 << 16, 256
"""The same on TPUs: a token takes a millisecond there, and the caches are laid out anew for every chunk; to read slots
that hold nothing yet is most of what a short response costs (`bench/tpu.py`)."""


@dataclass(frozen=True)
class Pace:
    """How calls without refills go forward: `chunk` and `chunk_tokens` as CHUNK and CHUNK_TOKENS, `reach` as REACH."""

    chunk: int
    chunk_tokens: int
    reach: int

    @classmethod
    def on(cls, platform: str) -> Pace:
        if platform == "tpu":
            return cls(TPU_CHUNK, TPU_CHUNK_TOKENS, TPU_REACH)
        return cls(CHUNK, CHUNK_TOKENS, REACH)


def reach_of(tokens: int, slots: int, pace: Pace | None = None) -> int:
    """How many own slots are read while responses have at most so many `tokens`: each number has a program of its own,
    so they double."""
    reach = REACH if pace is None else pace.reach
    while reach < tokens:
        reach *= 2
    return min(reach, slots)


def chunk_of(rows: int, slots: int, pace: Pace | None = None, *, equal: bool = False) -> int:
    """Tokens that so many responses of so many slots get between two safe points: a divisor of CHUNK, or all of fewer
    slots. `equal`: there is no shorter chunk at the end."""
    if equal and slots < CHUNK:
        return slots
    count, most = (CHUNK, CHUNK_TOKENS) if pace is None else (pace.chunk, pace.chunk_tokens)
    while count > 1 and rows * count > most:
        count //= 2
    return min(count, slots)


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
        self.mesh, self.ends, self.policy, self.weights = mesh, ends, policy, policy.weights
        rows, everywhere = by_rows(mesh), replicated(mesh)
        self._start = jitted.jit(self._started, static_argnames="slots", out_shardings=rows)
        self._empty = jitted.jit(partial(decoding.empty, policy), static_argnames="slots", out_shardings=rows)
        self._refill = jitted.jit(self._refilled, donate_argnums=1, out_shardings=rows)
        self._decode = jitted.jit(
            partial(decoding.decode, policy, ends),
            static_argnames=("count", "reach"),
            donate_argnums=1,
            out_shardings=(rows, everywhere),
        )

    def program_parts(self) -> Any:
        """All that programs made of this depend on."""
        return self.policy, self.mesh, self.ends

    def _started(
        self,
        params: Params,
        seed: jax.Array,
        prompts: Prompts,
        words: jax.Array,
        samples: jax.Array,
        slots: int,
    ) -> decoding.Decoding:
        one = partial(decoding.start, self.policy, slots=slots)
        started: decoding.Decoding = self._by_device(one, "..rr.")(params, seed, prompts, words, samples)
        return started

    def _refilled(self, *arguments: Any) -> decoding.Decoding:
        one = partial(decoding.refill, self.policy)
        refilled: decoding.Decoding = self._by_device(one, ".r.rr.r")(*arguments)
        return refilled

    def _by_device(self, function: Callable[..., Any], arguments: str) -> Callable[..., Any]:
        """A function that reads prompts, on each device for its own rows: XLA cannot cut attention's kernel. On a
        spread model the kernel's caller sees to that, without a kernel XLA. `arguments`: r for each that has rows."""
        if self.policy.how.mesh is not None or not self.policy.how.has_kernels:
            return function
        specs = tuple(PartitionSpec(ROWS) if one == "r" else PartitionSpec() for one in arguments)
        return jax.shard_map(function, mesh=self.mesh, in_specs=specs, out_specs=PartitionSpec(ROWS), check_vma=False)

    @property
    def pace(self) -> Pace:
        return Pace.on(self.mesh.devices.flat[0].platform)

    def programs(
        self,
        params: Params,
        prompts: int,
        prompt_slots: int,
        samples: int,
        slots: int,
        cut: Truncation | None = None,
        refills: bool = False,
    ) -> Iterator[Program]:
        """What calls of these sizes run, of `Sampling` or with `refills` of `Refilling`, each lowered when it is asked
        for; `params` may be shapes."""
        if (lowered := self.policy.weights_program(params)) is not None:
            yield WEIGHTS, lowered
        seed, numbers = keys.seed_words(0), np.arange(samples, dtype=np.uint32)
        for own, laid_out, words, placed in self.templates(self.weights(params), prompts, prompt_slots):
            start = (self._empty if refills else self._start).lower(own, seed, laid_out, words, numbers, slots=slots)
            yield PREFILL, start
            state = placed(start.out_info)
            position: np.ndarray | np.int32 = np.int32(0)
            if refills:
                position = np.zeros(len(words), np.int32)
                yield REFILL, self._refill.lower(own, state, seed, laid_out, words, numbers, position.astype(bool))
            most = chunk_of(prompts * samples, slots, None if refills else self.pace, equal=refills)
            chunks = [(at, min(most, slots - at)) for at in range(0, slots, most)]
            # Who is refilled has neighbours at other places: how far is read would depend on them.
            sizes = {(count, slots if refills else reach_of(at + count, slots, self.pace)) for at, count in chunks}
            for count, reach in sorted(sizes):
                yield DECODE, self._decode.lower(own, state, position, np.float32(1), cut, count=count, reach=reach)

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
        return going(None if kept.parts is None else self.taken_up(kept.parts, *arguments), [kept.made], slots)

    def start(
        self, params: Params, seed: np.ndarray, prompts: Prompts, words: np.ndarray, samples: np.ndarray, slots: int
    ) -> Any:
        """The decoding state before the first token."""
        rows = by_rows(self.mesh)
        return self._start(params, seed, place(prompts, rows), place(words, rows), samples, slots=slots)

    def empty(
        self, params: Params, seed: np.ndarray, prompts: Prompts, words: np.ndarray, samples: np.ndarray, slots: int
    ) -> Any:
        """A decoding state of that shape whose slots are free."""
        rows = by_rows(self.mesh)
        return self._empty(params, seed, place(prompts, rows), place(words, rows), samples, slots=slots)

    def refill(
        self,
        params: Params,
        state: Any,
        seed: np.ndarray,
        prompts: Prompts,
        words: np.ndarray,
        samples: np.ndarray,
        fresh: np.ndarray,
    ) -> Any:
        """The decoding state with the `fresh` bool[P] of these prompts before their first token, in the slots of what
        was there."""
        rows = by_rows(self.mesh)
        return self._refill(params, state, seed, place(prompts, rows), place(words, rows), samples, fresh)

    def first_rows(self, prompts: int) -> list[int]:
        """Where the parts of a call of so many prompts begin that this process has."""
        indices = by_rows(self.mesh).addressable_devices_indices_map((prompts,)).values()
        return sorted({_first_row(index) for index in indices if index is not None})

    def parts(self, state: Any) -> dict[int, tuple[np.ndarray, ...]]:
        """The decoding state of the rows that this process has, as `Kept.parts`. Views of the devices' memory where
        that is the host's."""
        found: dict[int, list[np.ndarray]] = {}
        for leaf in jax.tree.leaves(state):
            # Devices along `tensor` have the same rows: one of them says all.
            own = {_first_row(piece.index): piece.data for piece in leaf.addressable_shards}
            for row, data in sorted(own.items()):
                found.setdefault(row, []).append(np.asarray(data))
        return {row: tuple(leaves) for row, leaves in found.items()}

    def taken_up(self, parts: Mapping[int, tuple[np.ndarray, ...]], *arguments: Any) -> Any:
        """The decoding state of which `parts` has this process's rows; arguments as for `start`."""
        *others, slots = arguments
        leaves, structure = jax.tree.flatten(jax.eval_shape(partial(self._start, slots=slots), *others))
        rows = by_rows(self.mesh)
        whole = [
            _put_back(leaf.shape, {row: part[i] for row, part in parts.items()}, rows) for i, leaf in enumerate(leaves)
        ]
        return jax.tree.unflatten(structure, whole)

    def decode(
        self,
        params: Params,
        state: Any,
        at: int | np.ndarray,
        temperature: float,
        cut: Truncation | None,
        count: int,
        reach: int,
    ) -> Any:
        """The next `count` tokens from position `at`, one or int[P], of which the first `reach` own slots are read: new
        state, and [3, P, G, count] on every process."""
        numbers = np.asarray(at, np.int32), np.float32(temperature)
        return self._decode(params, state, *numbers, cut, count=count, reach=reach)


class Call(ABC):
    """A call of the sampler under way: `_state` is the decoding state, `_made` the chunks so far, each [3, ...]."""

    _sampler: Sampler
    _state: Any
    _made: list[np.ndarray]

    @property
    @abstractmethod
    def over(self) -> bool:
        """Whether all responses have ended."""

    @abstractmethod
    def advance(self) -> None:
        """Makes the next chunk."""

    @abstractmethod
    def result(self) -> Sampled:
        """The responses, once over."""

    def kept(self) -> Kept:
        """All that another process needs to go on."""
        parts = None if self._state is None else self._sampler.parts(self._state)
        return Kept(np.concatenate(self._made, -1), parts)

    def finish(self) -> Sampled:
        """Makes all that is missing."""
        while not self.over:
            self.advance()
        return self.result()


class Sampling(Call):
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
        assert self._state is not None
        pace = self._sampler.pace
        count = min(chunk_of(self._endings.lengths.size, self._slots, pace), self._slots - self._at)
        reach = reach_of(self._at + count, self._slots, pace)
        self._state, chunk = self._sampler.decode(
            self._params, self._state, self._at, self._temperature, self._cut, count, reach
        )
        self._made.append(np.asarray(chunk))
        self._at += count
        self._see()

    def _see(self) -> None:
        self._endings.see(np.concatenate([chunk[0] for chunk in self._made], -1).astype(np.int32))
        if self._endings.all:
            self._state = None

    def result(self) -> Sampled:
        return sampled(np.concatenate(self._made, -1), self._slots, self._endings)


def sampled(made: np.ndarray, slots: int, endings: Endings) -> Sampled:
    """Responses of up to `slots` tokens, of all that was made of them, [3, P, G, t]."""
    missing = [(0, 0), (0, 0), (0, max(0, slots - made.shape[-1]))]
    real = np.arange(slots) < endings.lengths[..., None]
    tokens, log_probs, entropy = (np.where(real, np.pad(x, missing)[..., :slots], np.float32(0)) for x in made)
    tokens = np.where(real, tokens.astype(np.int32), FILLER)
    return Sampled(tokens, log_probs, entropy, endings.lengths, endings.finish)


def _first_row(index: tuple[slice, ...]) -> int:
    """Where a piece of a global array begins, by its place in the array."""
    return index[0].start or 0


def _put_back(shape: tuple[int, ...], leaf: dict[int, np.ndarray], sharding: NamedSharding) -> jax.Array:
    """The global array of which `leaf` has this process's rows, by the first row of each piece."""
    indices = sharding.addressable_devices_indices_map(shape)
    pieces = [jax.device_put(leaf[_first_row(i)], device) for device, i in indices.items() if i is not None]
    return jax.make_array_from_single_device_arrays(shape, sharding, pieces)
