"""Several data sets as one: which of them the next prompt comes from, and which item of it.

Decides the schedule. It is a function of how often each data set was drawn from and of nothing else, so a restart goes
on with the next draw: after n draws a data set of share w has had between n w - 1 and n w + 1 of them, at every n. Each
data set goes through its own epochs, as if it were alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm
from typing import Any

import numpy as np

from ratchet_api.canonical import sha256
from ratchet_trainer.data import held_out
from ratchet_trainer.data.epochs import visits
from ratchet_trainer.data.item import Item
from ratchet_trainer.data.items import Source, where
from ratchet_trainer.errors import ConfigurationInvalid

ITEM_BITS = 48
"""Of an id, the lower ones are the item's number in its data set, those above the data set's number in the mixture."""
MOST = 2 ** (53 - ITEM_BITS)
"""Data sets of one mixture: ids are whole numbers that every JSON reader holds."""


def packed(dataset: int, item: int) -> int:
    """The id of an item of a mixture. Those of its first data set are the item's own numbers."""
    return dataset << ITEM_BITS | item


def unpacked(id: int) -> tuple[int, int]:
    """Data set and item of an id."""
    return id >> ITEM_BITS, id & ((1 << ITEM_BITS) - 1)


@dataclass(frozen=True)
class Part:
    """A data set of a mixture, as plain data that every process has. `weight`: a whole number."""

    digest: str
    size: int
    weight: int


def whole_weights(weights: Sequence[str]) -> list[int]:
    """Decimal strings as whole numbers of the same proportions, the smallest there are."""
    exact = [Fraction(weight) for weight in weights]
    common = lcm(*(weight.denominator for weight in exact))
    whole = [int(weight * common) for weight in exact]
    divisor = gcd(*whole)
    return [weight // divisor for weight in whole]


def schedule(weights: Sequence[int], drawn: Sequence[int], count: int) -> list[int]:
    """Which data set each of the next `count` draws is from, after `drawn` draws of each.

    Draw k of a data set of share w/W lies between draws k W/w and (k + 1) W/w of all (counted from 0); among those that
    may be drawn the one that must be drawn first is taken, of equals the first. So each is within one draw of its share
    at every point, and after W draws each has had its weight."""
    total, drawn, found = sum(weights), list(drawn), []
    n = sum(drawn)
    for at in range(n, n + count):
        due = [
            (-((-(done + 1) * total) // weight), dataset)
            for dataset, (done, weight) in enumerate(zip(drawn, weights, strict=True))
            if done * total < (at + 1) * weight
        ]
        _, dataset = min(due)
        drawn[dataset] += 1
        found.append(dataset)
    return found


def drawn_after(weights: Sequence[int], position: int) -> list[int]:
    """How often each data set was drawn from in the first `position` draws. Costs the draws of a part of one period,
    whose length is the sum of the weights."""
    total = sum(weights)
    rounds, rest = divmod(position, total)
    found = [rounds * weight for weight in weights]
    for dataset in schedule(weights, [0] * len(weights), rest):
        found[dataset] += 1
    return found


def mixed_visits(seed: int, parts: Sequence[Part], drawn: Sequence[int], count: int) -> tuple[list[int], list[int]]:
    """The ids of the next `count` draws, after `drawn` draws of each data set, and the numbers of draws then: all that
    has to be kept. The epoch of a data set and the position in it are divmod(draws, size)."""
    order = schedule([part.weight for part in parts], drawn, count)
    after, items = list(drawn), []
    for dataset, part in enumerate(parts):
        epoch, position = divmod(drawn[dataset], part.size)
        mine = order.count(dataset)
        items.append(iter(visits(seed, part.digest, part.size, epoch, position, mine)[0]))
        after[dataset] += mine
    return [packed(dataset, next(items[dataset])) for dataset in order], after


class Mixture:
    """Several sources as one, whose items have packed ids. `size` is the number of all items, for people; what is drawn
    follows from `parts`."""

    def __init__(self, sources: Sequence[Source], weights: Sequence[str]):
        """`weights`: decimal strings. Raises ConfigurationInvalid for more sources than ids have room for."""
        if len(sources) > MOST:
            raise ConfigurationInvalid(f"a mixture of {len(sources)} data sets; {MOST} are the most")
        self.sources = tuple(sources)
        whole = whole_weights(weights)
        self.parts = tuple(
            Part(source.digest, source.size, weight) for source, weight in zip(sources, whole, strict=True)
        )
        self.name = "+".join(source.name for source in sources)
        self.size = sum(part.size for part in self.parts)
        self.held = all(source.held for source in sources)
        self.digest = sha256([[part.digest, part.size, part.weight] for part in self.parts])

    def item(self, index: int) -> Item:
        dataset, item = unpacked(index)
        return self.sources[dataset].item(item)

    def place(self, index: int) -> str:
        """Where an item is, for people."""
        dataset, item = unpacked(index)
        return f"data set {self.sources[dataset].name}, {where(self.sources[dataset], item)}"

    def part_of(self, index: int) -> int:
        """Which of the data sets an item is of."""
        return unpacked(index)[0]

    @property
    def asked(self) -> np.ndarray:
        """A hash of what each item asks, for held-out items of others."""
        return held_out.all_asked(self.sources)

    def counted(self, drawn: Sequence[int]) -> dict[str, Any]:
        """What was drawn, for metrics: visits and whole epochs by data set."""
        return {
            source.name: {"visits": n, "epochs": n // part.size}
            for source, part, n in zip(self.sources, self.parts, drawn, strict=True)
        }
