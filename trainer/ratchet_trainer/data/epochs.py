"""The order in which an epoch visits its items: a sort by a keyed hash, no library's shuffle.

Decides the order only; who visited what is counted by `selection`.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache


@lru_cache(maxsize=4)
def epoch_order(seed: int, digest: str, epoch: int, size: int) -> tuple[int, ...]:
    """Item ids 0..size-1 sorted by BLAKE2b(seed, data set digest, epoch, item id). About 1 us an item."""
    start = hashlib.blake2b(f"{seed}/{digest}/{epoch}/".encode(), digest_size=16)

    def rank(item: int) -> bytes:
        h = start.copy()
        h.update(b"%d" % item)
        return h.digest()

    return tuple(sorted(range(size), key=rank))


def visits(seed: int, digest: str, size: int, epoch: int, position: int, count: int) -> tuple[list[int], int, int]:
    """The next `count` item ids after `position` visits of `epoch`, and the epoch and position then.

    Epochs follow one another without a gap: each visits every item exactly once, whatever the batch size.
    """
    items: list[int] = []
    while len(items) < count:
        order = epoch_order(seed, digest, epoch, size)
        taken = order[position : position + count - len(items)]
        items += taken
        position += len(taken)
        if position == size:
            epoch, position = epoch + 1, 0
    return items, epoch, position
