"""Sampling in mode Exact: each virtual shard is read and decoded by itself, on one device."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ratchet_trainer import keys
from ratchet_trainer.exact.virtual_shards import VirtualShards
from ratchet_trainer.model.policy import Params, Policy, Prompts, lay_out_prompts
from ratchet_trainer.rollout import sampler
from ratchet_trainer.rollout.sampler import CHUNK, Sampler
from ratchet_trainer.rollout.truncation import Truncation


class ExactSampler(Sampler):
    """A sampler whose state is one `Decoding` for each virtual shard of this process."""

    def __init__(self, policy: Policy, shards: VirtualShards, ends: tuple[int, ...]):
        self.mesh, self.ends, self._shards = shards.mesh, ends, shards
        self._start = jax.jit(partial(sampler._start, policy), static_argnames="slots")
        self._decode = jax.jit(partial(_decode, policy, ends), static_argnames="count", donate_argnums=1)

    def prepare(
        self,
        params: Params,
        prompts: int,
        prompt_slots: int,
        samples: int,
        slots: int,
        cut: Truncation | None = None,
    ) -> None:
        """Compiles for these sizes ahead of the first call, for each device of this process."""
        shards, each = self._shards, prompts // self._shards.count
        for device in range(len(shards.devices)):
            own = shards.shapes(params, device)
            laid_out = shards.shapes(lay_out_prompts([], each, prompt_slots), device)
            words = shards.shapes(np.zeros((each, 5), np.uint32), device)
            numbers = np.arange(samples, dtype=np.uint32)
            start = self._start.lower(own, keys.seed_words(0), laid_out, words, numbers, slots=slots)
            start.compile()
            state = shards.shapes(start.out_info, device)
            for count in {min(CHUNK, slots), slots % CHUNK or min(CHUNK, slots)}:
                self._decode.lower(own, state, np.int32(0), np.float32(1), cut, count=count).compile()

    def start(
        self, params: Params, seed: np.ndarray, prompts: Prompts, words: np.ndarray, samples: np.ndarray, slots: int
    ) -> list[Any]:
        own = self._shards.locals(params)
        parts = self._shards.parts(len(words), passes=1)
        rows = (prompts, words)
        return [self._start(own[p.device], seed, *self._shards.take(rows, p), samples, slots=slots) for p in parts]

    def taken_up(self, kept: tuple[tuple[np.ndarray, ...], ...], *arguments: Any) -> list[Any]:
        params, seed, prompts, words, samples, slots = arguments
        parts = list(self._shards.parts(len(words), passes=1))
        own = self._shards.locals(params)[0]
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
        own = self._shards.locals(params)
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
