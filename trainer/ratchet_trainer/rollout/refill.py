"""One call of the sampler in which prompts wait for a slot: whose responses have all ended gives it to the next one.

A slot is a prompt's whole group: its samples share one cache of the prompt. Who sits where is decided in `batch_slots`.
All chunks are equally long and slots are taken between them only, so a response is made by the same programs at the
same shapes whoever sat there before and beside. Noise is keyed by row and token, not by slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ratchet_trainer.model.policy import Prompts
from ratchet_trainer.model.sharding import Params
from ratchet_trainer.rollout.batch_slots import FREE, BatchSlots
from ratchet_trainer.rollout.endings import Endings
from ratchet_trainer.rollout.rollout_file import Kept
from ratchet_trainer.rollout.sampler import CHUNK, Call, Sampled, Sampler, chunk_of, sampled
from ratchet_trainer.rollout.truncation import Truncation


def whole_chunks(slots: int) -> int:
    """Response slots that are a whole number of equal chunks: what is made beyond `slots` is thrown away."""
    return slots if slots < CHUNK else -(-slots // CHUNK) * CHUNK


class Refilling(Call):
    """A call under way, made chunk by chunk. What is kept of it says, too, who sat where."""

    def __init__(
        self,
        sampler: Sampler,
        params: Params,
        seed: np.ndarray,
        prompts: Prompts,
        row_words: np.ndarray,
        samples: np.ndarray,
        slots: int,
        temperature: float,
        batch_slots: BatchSlots,
        endings: Sequence[Endings],
        kept: Kept | None = None,
        cut: Truncation | None = None,
    ):
        """As for `Sampler.begin`, for N prompts that take turns in `batch_slots`; `endings`: of each prompt, [1, G]."""
        params = sampler.weights(params)
        self._sampler, self._params, self._temperature, self._cut = sampler, params, temperature, cut
        self._seed, self._prompts, self._words, self._samples = seed, prompts, row_words, samples.astype(np.uint32)
        rows = len(batch_slots.occupant) * len(samples)
        self._slots, self._count = slots, chunk_of(rows, slots, equal=True)
        self._seats, self._endings = batch_slots, endings
        self._at = np.zeros(len(batch_slots.occupant), np.int32)
        self._made: list[np.ndarray] = []  # [3, slots, G, count], in time
        self._own: list[list[np.ndarray]] = [[] for _ in endings]  # [3, 1, G, count], of each prompt
        shapes = params, seed, *self._seated(), self._samples, whole_chunks(slots)
        if kept is not None:
            for at in range(0, kept.made.shape[-1], self._count):
                self._see(kept.made[..., at : at + self._count])
        self._state: Any = None
        if not self.over:
            parts = None if kept is None else kept.parts
            self._state = sampler.empty(*shapes) if parts is None else sampler.taken_up(parts, *shapes)

    @property
    def over(self) -> bool:
        return not len(self._seats.taken)

    def advance(self) -> None:
        """Lets the next prompts take the free slots, and makes the next chunk."""
        sampler, fresh = self._sampler, self._seats.fresh.copy()
        if fresh.any():
            own = self._seed, *self._seated(), self._samples
            self._state = sampler.refill(self._params, self._state, *own, fresh)
        self._state, chunk = sampler.decode(
            self._params,
            self._state,
            self._at.copy(),
            self._temperature,
            self._cut,
            self._count,
            whole_chunks(self._slots),
        )
        self._see(np.asarray(chunk))
        if self.over:
            self._state = None

    def _seated(self) -> tuple[Prompts, np.ndarray]:
        """Prompts and row words in the order of the slots; in free ones stands anybody's."""
        order = np.where(self._seats.occupant == FREE, 0, self._seats.occupant)
        return jax.tree.map(lambda x: x[order], self._prompts), self._words[order]

    def _see(self, chunk: np.ndarray) -> None:
        self._made.append(chunk)
        self._at += self._count
        over = []
        for slot in self._seats.taken:
            prompt = self._seats.occupant[slot]
            own = self._own[prompt]
            own.append(chunk[:, slot : slot + 1])
            self._endings[prompt].see(np.concatenate([part[0] for part in own], -1).astype(np.int32))
            if self._endings[prompt].all:
                over.append(int(slot))
        self._seats.turn(over)
        self._at[self._seats.fresh | (self._seats.occupant == FREE)] = 0

    def result(self) -> Sampled:
        """The responses [N, G], once over."""
        each = [
            sampled(np.concatenate(own, -1), self._slots, endings)
            for own, endings in zip(self._own, self._endings, strict=True)
        ]
        return Sampled(*(np.concatenate(parts) for parts in zip(*(vars(one).values() for one in each), strict=True)))
