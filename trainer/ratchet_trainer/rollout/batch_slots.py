"""Which prompt is in which slot, when fewer slots are decoded than there are prompts.

Decides it from the order of the prompts and from which of them are over, chunk by chunk: from the tokens alone, so all
processes and every restart place them alike. The next prompt that waits takes the lowest free slot. The bits of a
response depend on the shape that it is decoded in, not on its slot; where a probe finds otherwise (`refill_probe`),
`refills` is False and no slot is taken before all slots are free.
"""

from __future__ import annotations

import numpy as np

FREE = -1


class BatchSlots:
    """`occupant` int[slots]: the prompt in each slot, FREE if there is none; `fresh` bool[slots]: who took it at the
    last turn."""

    def __init__(self, prompts: int, slots: int, refills: bool = True):
        self._prompts, self._next, self._refills = prompts, 0, refills
        self.occupant = np.full(slots, FREE)
        self.fresh = np.zeros(slots, bool)
        self.turn([])

    @property
    def taken(self) -> np.ndarray:
        """Slots that somebody has."""
        return np.flatnonzero(self.occupant != FREE)

    def turn(self, over: list[int]) -> None:
        """Slots `over` are free from now on; who waits comes next."""
        self.occupant[over] = FREE
        self.fresh[:] = False
        if self._refills or not len(self.taken):
            free = np.flatnonzero(self.occupant == FREE)[: self._prompts - self._next]
            self.occupant[free] = self._next + np.arange(len(free))
            self.fresh[free] = True
            self._next += len(free)
