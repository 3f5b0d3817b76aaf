"""Where a stage stands in its data, and the items that come next: every item once an epoch, of a mixture each data set
by its weight.

Decides the form of that in a state: `epoch` and `position` = visits made in it, or, of a mixture, `drawn` = draws of
each data set.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ratchet_trainer.algorithm.slots import DataFacts
from ratchet_trainer.data.epochs import visits
from ratchet_trainer.data.mixture import mixed_visits

Position = dict[str, Any]


def beginning(source: DataFacts) -> Position:
    return {"drawn": [0] * len(source.parts)} if source.parts else {"epoch": 0, "position": 0}


def next_items(seed: int, source: DataFacts, at: Position, count: int, name: str = "") -> tuple[list[int], Position]:
    """The next `count` items, and the position then. Draws of another `name` go through the data in an order of their
    own."""
    if source.parts:
        parts = [replace(part, digest=part.digest + name) for part in source.parts]
        items, drawn = mixed_visits(seed, parts, at["drawn"], count)
        return items, {"drawn": drawn}
    items, epoch, position = visits(seed, source.digest + name, source.size, at["epoch"], at["position"], count)
    return items, {"epoch": epoch, "position": position}
