"""Changes of a prompt that a method asks for by name: `Request.edit`.

Decides how a name changes an item's text. `template:TEXT` puts the question where TEXT says {question};
`hint:LEVEL:TEXT` also what that level of the item's hints shows where TEXT says {hint}. A method that needs another
kind adds a row to EDITS.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ratchet_trainer.data import hints
from ratchet_trainer.data.item import Item, with_question
from ratchet_trainer.data.items import Source, where


def filled_in(text: str, **values: str) -> str:
    """The text with each {name} replaced by its value, which is not looked into: a question may have braces."""
    return re.sub("|".join(f"{{{name}}}" for name in values), lambda found: values[found[0][1:-1]], text)


def _with_hint(item: Item, level: str, text: str) -> str:
    return filled_in(text, question=item.question, hint=hints.shown(item.fields, int(level)))


EDITS: Mapping[str, Callable[[Item, str], Item]] = {
    # kind -> the item with its question changed, by what follows the colon
    "template": lambda item, text: with_question(item, filled_in(text, question=item.question)),
    "hint": lambda item, text: with_question(item, _with_hint(item, *text.split(":", 1))),
}


@dataclass(frozen=True)
class Edited:
    """A source whose items are changed in one way."""

    source: Source
    edit: str

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def digest(self) -> str:
        return self.source.digest

    @property
    def size(self) -> int:
        return self.source.size

    @property
    def held(self) -> bool:
        return self.source.held

    def item(self, index: int) -> Item:
        kind, _, argument = self.edit.partition(":")
        return EDITS[kind](self.source.item(index), argument)

    def place(self, index: int) -> str:
        """Where an item is, for people."""
        return where(self.source, index)


def edited(source: Source, edit: str) -> Source:
    """The source with every item changed as `edit` says. Raises KeyError for a kind that is not in EDITS."""
    if edit.partition(":")[0] not in EDITS:
        raise KeyError(f"no edit {edit.partition(':')[0]!r}; there are {', '.join(EDITS)}")
    return Edited(source, edit)
