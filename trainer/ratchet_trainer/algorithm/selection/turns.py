"""Whose turn it is, where not every item is drawn in every epoch: each item has the epoch in which it is drawn next.

Decides the form of that, and who is taken: of those that may be, the items that are due first, in the keyed order of
their epoch. An item is drawn at most once an epoch, and not while an earlier draw of it has no disposition. An epoch
ends when nobody is due in it any more; draws that wait for their disposition do not hold the next one up, they join it
once they have one. Arrays have one entry an item, those of a mixture's data sets one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ratchet_trainer.algorithm.slots import DataFacts
from ratchet_trainer.data.epochs import in_order
from ratchet_trainer.data.mixture import Part, packed, schedule, unpacked


def parts_of(source: DataFacts) -> tuple[Part, ...]:
    """The data sets of a mixture; one alone is a mixture of one."""
    return source.parts or (Part(source.digest, source.size, 1),)


def sizes_of(source: DataFacts) -> list[int]:
    """Entries of each data set in an array that has one an item."""
    return [part.size for part in parts_of(source)]


def slices(source: DataFacts) -> Iterator[tuple[int, Part, slice]]:
    """Each data set, and where its items are in the arrays."""
    start = 0
    for dataset, part in enumerate(parts_of(source)):
        yield dataset, part, slice(start, start + part.size)
        start += part.size


def place_of(sizes: Sequence[int], item: int) -> tuple[int, int]:
    """The data set of an item, and where it is in the arrays."""
    dataset, own = unpacked(item)
    return dataset, sum(sizes[:dataset]) + own


def shares(source: DataFacts, drawn: list[int], count: int) -> tuple[list[int], list[int]]:
    """Which data set each of the next `count` draws is from, and how often each was drawn from then."""
    order = schedule([part.weight for part in parts_of(source)], drawn, count)
    return order, [done + order.count(dataset) for dataset, done in enumerate(drawn)]


def take(
    turn: np.ndarray, pool: np.ndarray, seed: int, digest: str, epoch: int, count: int, *, again: bool = True
) -> tuple[list[int], int]:
    """At most `count` items of a data set from its `pool`, and the epoch then. `again`: where the pool has fewer, those
    that are taken already come again, so that a small data set fills a batch.

    turn int32[size]: the epoch that an item is due in, or ~e while its draw in epoch e has no disposition, which is
    noted here; pool bool[size]: who may be drawn.
    """
    items: list[int] = []
    while len(items) < count and pool.any():
        ready = pool & (turn >= 0)
        if ready.any():
            epoch = max(epoch, int(turn[ready].min()))
            ready &= turn <= epoch
        elif again:
            epoch, ready = epoch + 1, pool
        else:
            break
        found = in_order(seed, digest, epoch, len(turn), np.flatnonzero(ready))[: count - len(items)]
        turn[found] = ~np.int32(epoch)
        items += found.tolist()
    return items, epoch


def given_back(turn: int) -> int:
    """The turn of an item whose draw has a disposition: the epoch after that of the draw."""
    return ~turn + 1 if turn < 0 else turn


def named(order: list[int], found: dict[int, list[int]]) -> list[int]:
    """The items of each data set in the order of the draws, by their ids."""
    waiting = {dataset: iter(items) for dataset, items in found.items()}
    return [packed(dataset, next(waiting[dataset])) for dataset in order]
