"""The order in which an epoch visits its items: a sort by a keyed hash, no library's shuffle.

Decides the order only; who visited what is counted by `selection`. The order of a million items takes a second, so of
each data set the one of its latest epoch is remembered; nothing but time depends on that.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import numpy as np

CHUNK = 1 << 16
"""Hashes made at a time."""
BYTES = 16
"""Of a hash: two items have never the same one."""
FEW = 1 << 13
"""So many items are put in order by themselves, in about 10 ms: a small part of a large data set may begin an epoch
every few steps."""
REMEMBERED = 64
"""Orders that are kept, of one data set each: those of a mixture, and of what a selection draws from it."""
_latest: OrderedDict[tuple[int, str, int], tuple[int, np.ndarray]] = OrderedDict()


def epoch_order(seed: int, digest: str, epoch: int, size: int) -> np.ndarray:
    """Item ids 0..size-1 sorted by BLAKE2b(seed, data set digest, epoch, item id), int[size], not to be written to.
    About 1 us an item, once, and 40 bytes of memory while it is made; 4 bytes are kept."""
    stream = seed, digest, size
    if stream not in _latest or _latest[stream][0] != epoch:
        order = _sorted(_ranks(seed, digest, epoch, np.arange(size)))
        order = order.astype(np.int32 if size < 2**31 else np.int64)
        order.flags.writeable = False
        _latest[stream] = epoch, order
    _latest.move_to_end(stream)
    while len(_latest) > REMEMBERED:
        _latest.popitem(last=False)
    return _latest[stream][1]


def in_order(seed: int, digest: str, epoch: int, size: int, items: np.ndarray) -> np.ndarray:
    """Some of the items 0..size-1 (int64[N], each once), in the epoch's order."""
    if len(items) <= FEW:
        few: np.ndarray = items[_sorted(_ranks(seed, digest, epoch, items))]
        return few
    wanted = np.zeros(size, bool)
    wanted[items] = True
    order = epoch_order(seed, digest, epoch, size)
    found: np.ndarray = order[wanted[order]]
    return found


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


def _ranks(seed: int, digest: str, epoch: int, items: np.ndarray) -> np.ndarray:
    """The hashes of items, as pairs of numbers that compare like the bytes: the first half, then the second."""
    start = hashlib.blake2b(f"{seed}/{digest}/{epoch}/".encode(), digest_size=BYTES)
    copy = start.copy
    ranks = np.empty(len(items), ">u8, >u8")
    for first in range(0, len(items), CHUNK):
        part, hashes = items[first : first + CHUNK].tolist(), bytearray()
        for item in part:
            h = copy()
            h.update(b"%d" % item)
            hashes += h.digest()
        ranks[first : first + len(part)] = np.frombuffer(hashes, ranks.dtype)
    return ranks


def _sorted(ranks: np.ndarray) -> np.ndarray:
    return np.lexsort((ranks["f1"], ranks["f0"]))
