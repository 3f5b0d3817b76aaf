"""Sampling in mode Exact: each virtual shard is read and decoded by itself, on one device."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ratchet_trainer.exact.virtual_shards import VirtualShards
from ratchet_trainer.model.policy import Params, Policy, Prompts, lay_out_prompts
from ratchet_trainer.rollout import sampler
from ratchet_trainer.rollout.sampler import Sampler
from ratchet_trainer.rollout.truncation import Truncation


class ExactSampler(Sampler):
    """A sampler whose state is one `Decoding` for each virtual shard of this process."""

    def __init__(self, policy: Policy, shards: VirtualShards, ends: tuple[int, ...]):
        self.mesh, self.ends, self.weights, self._shards = shards.mesh, ends, policy.how.weights, shards
        self._start = jax.jit(partial(sampler._start, policy), static_argnames="slots")
        self._decode = jax.jit(partial(_decode, policy, ends), static_argnames="count", donate_argnums=1)

    def templates(self, params: Params, prompts: int, prompt_slots: int) -> Iterator[tuple[Any, ...]]:
        shards, each = self._shards, prompts // self._shards.count
        laid_out, words = lay_out_prompts([], each, prompt_slots), np.zeros((each, 5), np.uint32)
        for device in range(len(shards.devices)):
            placed = partial(shards.shapes, device=device)
            yield placed(params), placed(laid_out), placed(words), placed

    def start(
        self, params: Params, seed: np.ndarray, prompts: Prompts, words: np.ndarray, samples: np.ndarray, slots: int
    ) -> list[Any]:
        own = self._shards.on_each(params)
        parts = self._shards.parts(len(words), passes=1)
        rows = (prompts, words)
        return [self._start(own[p.device], seed, *self._shards.take(rows, p), samples, slots=slots) for p in parts]

    def taken_up(self, kept: tuple[tuple[np.ndarray, ...], ...], *arguments: Any) -> list[Any]:
        params, seed, prompts, words, samples, slots = arguments
        parts = list(self._shards.parts(len(words), passes=1))
        own = self._shards.on_each(params)[0]
        start = partial(self._start, slots=slots)
        one = jax.eval_shape(start, own, seed, *self._shards.take((prompts, words), parts[0]), samples)
        leaves, structure = jax.tree.flatten([one] * len(parts))
        each = len(leaves) // len(parts)
        devices = [self._shards.devices[parts[i // each].device][1] for i in range(len(leaves))]
        pairs = zip(kept, devices, strict=True)
        return structure.unflatten([jax.device_put(leaf, device) for (leaf,), device in pairs])

    def decode(
        self, params: Params, state: list[Any], at: int, temperature: float, cut: Truncation | None, count: int
    ) -> Any:
        own = self._shards.on_each(params)
        each, found, made = self._shards.each, [], [[] for _ in own]
        for i, one in enumerate(state):
            new, chunk = self._decode(own[i // each], one, np.int32(at), np.float32(temperature), cut, count=count)
            found.append(new)
            made[i // each].append(chunk)
        whole = self._shards.everywhere(self._shards.joined(made))
        return found, np.moveaxis(np.asarray(whole), 1, 0)


def _decode(policy, ends, params, state, at, temperature, cut, count):
    """As the other's, with rows first in what is made."""
    state, made = sampler._decode(policy, ends, params, state, at, temperature, cut, count)
    return state, jnp.moveaxis(made, 0, 1)
