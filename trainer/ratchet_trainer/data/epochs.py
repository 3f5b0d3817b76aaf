"""The order in which an epoch visits its items: a sort by a keyed hash, no library's shuffle.

Decides the order only; who visited what is counted by `selection`.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np

CHUNK = 1 << 16
"""Hashes made at a time."""
BYTES = 16
"""Of a hash: two items have never the same one."""


@lru_cache(maxsize=4)
def epoch_order(seed: int, digest: str, epoch: int, size: int) -> np.ndarray:
    """Item ids 0..size-1 sorted by BLAKE2b(seed, data set digest, epoch, item id), int64[size], not to be written to.
    About 1 us an item, once, and 40 bytes of memory while it is made."""
    start = hashlib.blake2b(f"{seed}/{digest}/{epoch}/".encode(), digest_size=BYTES)
    copy = start.copy
    ranks = np.empty(size, ">u8, >u8")  # compared like the bytes: the first half, then the second
    for first in range(0, size, CHUNK):
        last = min(first + CHUNK, size)
        hashes = bytearray()
        for item in range(first, last):
            h = copy()
            h.update(b"%d" % item)
            hashes += h.digest()
        ranks[first:last] = np.frombuffer(hashes, ranks.dtype)
    order = np.lexsort((ranks["f1"], ranks["f0"]))
    order.flags.writeable = False
    return order


def visits(seed: int, digest: str, size: int, epoch: int, position: int, count: int) -> tuple[list[int], int, int]:
    """The next `count` item ids after `position` visits of `epoch`, and the epoch and position then.

    Epochs follow one another without a gap: each visits every item exactly once, whatever the batch size.
    """
    items: list[int] = []
    while len(items) < count:
        order = epoch_order(seed, digest, epoch, size)
        taken = order[position : position + count - len(items)].tolist()
        items += taken
        position += len(taken)
        if position == size:
            epoch, position = epoch + 1, 0
    return items, epoch, position
