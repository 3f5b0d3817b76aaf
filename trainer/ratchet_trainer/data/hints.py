"""Hints of an item: tiers of texts, least help first, as Scaf-GRPO has them (arXiv 2510.19807, section 3.2).

Decides what a data set may say of hints, and which text a level is. Levels are counted from 1 through all tiers; level
l of a tier shows its first l texts, and nothing of the tiers before it. A list of texts is a tier for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HINTS = "hints"
"""The field of an item that holds its tiers, whatever the data set calls it."""

Tiers = list[list[str]]


class WrongHints(ValueError):
    """What stands there are no hints; the text says why and what to do."""


def tiers(value: Any, key: str) -> Tiers:
    """The tiers that a value of a data set means; none for null and an empty list. Raises WrongHints."""
    if value is None:
        return []
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise WrongHints(f"{key!r} is no list of hints; write [text, ...], least help first, or a list of such lists")
    return [_tier(one, f"{key}[{i}]") for i, one in enumerate(value)]


def _tier(value: Any, key: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, Sequence) or isinstance(texts, bytes) or not texts:
        raise WrongHints(f"{key!r} is neither a text nor a list of texts; fill it in or leave it out")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            why = "blank" if isinstance(text, str) else "no text"
            raise WrongHints(f"{key!r} has a hint that is {why}; fill it in or leave it out")
    return list(texts)


def count(fields: Mapping[str, Any]) -> int:
    """How many levels an item with these fields has."""
    return sum(map(len, fields.get(HINTS, ())))


def shown(fields: Mapping[str, Any], level: int) -> str:
    """What a level shows of an item with these fields. Raises IndexError for a level that it does not have."""
    left = level
    for tier in fields.get(HINTS, ()):
        if 1 <= left <= len(tier):
            return "\n".join(tier[:left])
        left -= len(tier)
    raise IndexError(f"there is no level {level} of hints")


def fullest(fields: Mapping[str, Any], most: int) -> list[int]:
    """The levels, up to `most`, that show more than any other of their tier does."""
    ends, last = [], 0
    for tier in fields.get(HINTS, ()):
        if last < most:
            ends.append(min(last + len(tier), most))
        last += len(tier)
    return ends
