"""Which changes of an item's prompt an expansion may ask for: those that are measured before the first step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ratchet_api import expansion as api
from ratchet_api.stages import Rl
from ratchet_trainer.data import hints
from ratchet_trainer.data.item import Item


def edits_of(rl: Rl) -> Callable[[Item], Sequence[str]] | None:
    """From an item, the names of the changes that may make its longest prompt; None for a stage that changes none."""
    if api.kind(rl) == "hints":
        text, most = api.text(rl), api.levels(rl)
        return lambda item: [f"hint:{level}:{text}" for level in hints.fullest(item.fields, most)]
    if texts := [f"template:{template.text}" for template in api.templates(rl)]:
        return lambda item: texts
    return None
