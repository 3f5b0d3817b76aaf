"""Hints made of a text that an item has, such as its solution: the beginning of the text, step by step.

Decides how a text becomes hints. They are one tier of texts, least help first, each of which goes on where the one
before ends, as hints in tiers are shown (Scaf-GRPO, arXiv 2510.19807, section 3.2). The text is cut into one part more
than there are hints; the last part is never a hint, since it mostly says the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from ratchet_api.curation import MakeHints
from ratchet_trainer.algorithm.verifiers.steps import split
from ratchet_trainer.data.item import Item
from ratchet_trainer.data.items import Source
from ratchet_trainer.errors import ConfigurationInvalid

BETWEEN = {"lines": "\n", "sentences": " ", "paragraphs": "\n\n", "words": " "}
"""What steps of a hint are joined by."""


LOOKED_AT = 64
"""Items of a generated data set that are looked at, the first: they are all of one kind."""


def hints_of(fields: Mapping[str, Any], settings: MakeHints) -> list[str]:
    """The hints of an item with these fields; none where it has no such text, or one of a single step. Of a text with
    fewer steps than parts, each step but the last is a hint."""
    text = fields.get(settings.from_)
    if not isinstance(text, str):
        return []
    steps = split(text, settings.steps)
    parts = min(settings.levels + 1, len(steps))
    ends = [len(steps) * i // parts for i in range(parts)] if parts else []
    joined = BETWEEN[settings.steps].join
    return [joined(steps[begin:end]) for begin, end in pairwise(ends)]


def check(source: Source, settings: MakeHints) -> None:
    """Raises ConfigurationInvalid for a data set of which no item has such a text, before any of them is answered."""
    looked_at = range(source.size if source.held else min(source.size, LOOKED_AT))
    if not any(hints_of(source.item(index).fields, settings) for index in looked_at):
        raise ConfigurationInvalid(none_made(f"data set {source.name}: no item", settings.from_, source.item(0)))


def none_made(none: str, key: str, item: Item) -> str:
    """Why no hint can be made, and the way out. `none`: of which items none has the text; `item`: the first of them."""
    texts = [name for name, value in item.fields.items() if isinstance(value, str)]
    there = f"the first one has {', '.join(texts)}" if texts else "the first one has no further texts at all"
    return (
        f"{none} has a text of two steps or more under {key}, so there are no hints; {there}. Name another key in "
        "curate.hints.from, split finer by curate.hints.steps, or leave hints out"
    )
