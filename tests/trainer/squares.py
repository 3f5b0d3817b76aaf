"""A policy of a few thousand parameters and endless questions for it, for tests of sampling."""

from __future__ import annotations

from ratchet_trainer.data.items import Item
from ratchet_trainer.model.architecture import Architecture, Layer

SMALL = Architecture(vocabulary=259, width=32, heads=4, hidden=32, layers=(Layer(),))


class Squares:
    """A source of items; item i asks for the square of i."""

    name, digest, size = "squares", "00", 1000

    def item(self, index: int) -> Item:
        return Item(f"{index} squared?", str(index * index))
