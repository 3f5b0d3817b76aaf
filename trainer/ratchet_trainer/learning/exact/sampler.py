"""Sampling in mode Exact: each virtual shard is read and decoded by itself, on one device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ratchet_trainer.checkpoints import jitted
from ratchet_trainer.learning.exact.virtual_shards import VirtualShards
from ratchet_trainer.model.policy import Policy, Prompts, lay_out_prompts
from ratchet_trainer.model.sharding import Params
from ratchet_trainer.rollout import decoding
from ratchet_trainer.rollout.sampler import Sampler
from ratchet_trainer.rollout.truncation import Truncation


class ExactSampler(Sampler):
    """A sampler whose state is one `Decoding` for each virtual shard of this process."""

    def __init__(self, policy: Policy, shards: VirtualShards, ends: tuple[int, ...]):
        self.mesh, self.ends, self.policy, self.weights = shards.mesh, ends, policy, policy.weights
        self._shards = shards
        self._start = jitted.jit(partial(decoding.start, policy), static_argnames="slots")
        self._empty = jitted.jit(partial(decoding.empty, policy), static_argnames="slots")
        self._refill = jitted.jit(partial(decoding.refill, policy), donate_argnums=1)
        self._decode = jitted.jit(partial(_decode, policy, ends), static_argnames=("count", "reach"), donate_argnums=1)

    def templates(self, params: Params, prompts: int, prompt_slots: int) -> Iterator[tuple[Any, ...]]:
        shards, each = self._shards, prompts // self._shards.count
        laid_out, words = lay_out_prompts([], each, prompt_slots), np.zeros((each, 5), np.uint32)
        for device in range(len(shards.devices)):
            placed = partial(shards.shapes, device=device)
            yield placed(params), placed(laid_out), placed(words), placed

    def start(
        self, params: Params, seed: np.ndarray, prompts: Prompts, words: np.ndarray, samples: np.ndarray, slots: int
    ) -> list[Any]:
        return self._each(self._start, params, seed, prompts, words, samples, slots)

    def empty(
        self, params: Params, seed: np.ndarray, prompts: Prompts, words: np.ndarray, samples: np.ndarray, slots: int
    ) -> list[Any]:
        return self._each(self._empty, params, seed, prompts, words, samples, slots)

    def _each(
        self,
        program: Callable[..., Any],
        params: Params,
        seed: np.ndarray,
        prompts: Prompts,
        words: np.ndarray,
        samples: np.ndarray,
        slots: int,
    ) -> list[Any]:
        own = self._shards.on_each(params)
        parts = self._shards.parts(len(words), passes=1)
        rows = (prompts, words)
        return [program(own[p.device], seed, *self._shards.take(rows, p), samples, slots=slots) for p in parts]

    def refill(
        self,
        params: Params,
        state: list[Any],
        seed: np.ndarray,
        prompts: Prompts,
        words: np.ndarray,
        samples: np.ndarray,
        fresh: np.ndarray,
    ) -> list[Any]:
        """As the other's. A virtual shard in which nobody is fresh is left alone."""
        own, found = self._shards.on_each(params), []
        for one, p in zip(state, self._shards.parts(len(words), passes=1), strict=True):
            if fresh[p.rows].any():
                rows = self._shards.take((prompts, words), p)
                one = self._refill(own[p.device], one, seed, *rows, samples, fresh[p.rows])
            found.append(one)
        return found

    def first_rows(self, prompts: int) -> list[int]:
        return [p.rows.start for p in self._shards.parts(prompts, passes=1)]

    def parts(self, state: list[Any]) -> dict[int, tuple[np.ndarray, ...]]:
        rows = self.first_rows(len(state[0].token) * self._shards.count)
        leaves = [tuple(np.asarray(leaf) for leaf in jax.tree.leaves(one)) for one in state]
        return dict(zip(rows, leaves, strict=True))

    def taken_up(self, parts: Mapping[int, tuple[np.ndarray, ...]], *arguments: Any) -> list[Any]:
        params, seed, prompts, words, samples, slots = arguments
        own, shards = self._shards.on_each(params)[0], list(self._shards.parts(len(words), passes=1))
        start = partial(self._start, slots=slots)
        structure = jax.tree.structure(
            jax.eval_shape(start, own, seed, *self._shards.take((prompts, words), shards[0]), samples)
        )
        return [
            jax.tree.unflatten(structure, jax.device_put(parts[p.rows.start], self._shards.devices[p.device][1]))
            for p in shards
        ]

    def decode(
        self,
        params: Params,
        state: list[Any],
        at: int | np.ndarray,
        temperature: float,
        cut: Truncation | None,
        count: int,
        reach: int,
    ) -> Any:
        own, at = self._shards.on_each(params), np.asarray(at, np.int32)
        found: list[Any] = []
        made: list[list[jax.Array]] = [[] for _ in own]
        rows = len(state[0].token) * self._shards.count
        for one, p in zip(state, self._shards.parts(rows, passes=1), strict=True):
            here = at[p.rows] if at.ndim else at
            new, chunk = self._decode(own[p.device], one, here, np.float32(temperature), cut, count=count, reach=reach)
            found.append(new)
            made[p.device].append(chunk)
        whole = self._shards.everywhere(self._shards.joined(made))
        return found, np.moveaxis(np.asarray(whole), 1, 0)


def _decode(
    policy: Policy,
    ends: tuple[int, ...],
    params: Params,
    state: decoding.Decoding,
    at: jax.Array,
    temperature: jax.Array,
    cut: Truncation | None,
    count: int,
    reach: int,
) -> tuple[decoding.Decoding, jax.Array]:
    """As the other's, with rows first in what is made."""
    state, made = decoding.decode(policy, ends, params, state, at, temperature, cut, count, reach)
    return state, jnp.moveaxis(made, 0, 1)
