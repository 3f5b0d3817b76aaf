"""Reward parts that read the text of a response: its form, its language. Pure functions of a case.

They are computed where the response is verified, by the process that has its text; the rewards slot reads what they
said (`OfText`). A pattern is matched by RE2, whose time is linear in the text: no pattern hangs a run.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import re2

from ratchet_api.rewards import FormatReward
from ratchet_trainer.algorithm.outcome import Case
from ratchet_trainer.algorithm.slots import Context
from ratchet_trainer.algorithm.types import Group
from ratchet_trainer.errors import ConfigurationInvalid

TextPart = Callable[[Case], float]

SCRIPTS = {"Han": ("CJK",), "Kana": ("HIRAGANA", "KATAKANA")}
"""First words of the Unicode names of a script's letters, where they are not its own name."""


@dataclass(frozen=True)
class OfText:
    """A part whose values were said when the responses were verified."""

    name: str

    def of(self, group: Group, ctx: Context) -> Sequence[float]:
        return [r.outcome.parts.get(self.name, 0.0) for r in group.rollouts]


def form(name: str, settings: FormatReward) -> TextPart:
    """1 where the response has the form, else 0. Raises ConfigurationInvalid for a pattern that RE2 does not know."""
    if settings.tags is not None:
        return lambda case: float(tags_in_order(case.response, settings.tags or ()))
    options = re2.Options()
    options.dot_nl, options.log_errors = True, False
    try:
        pattern = re2.compile(settings.pattern, options)
    except re2.error as error:
        raise ConfigurationInvalid(
            f"rl.rewards {name}: format.pattern is not a regular expression that RE2 knows ({error}); it has neither "
            "back references nor look-around"
        ) from error
    return lambda case: float(pattern.fullmatch(case.response.strip()) is not None)


def tags_in_order(text: str, tags: Sequence[str]) -> bool:
    """Whether the tags follow one another, each opened and closed once, and the last one ends the text."""
    at = 0
    for tag in tags:
        opening, closing = f"<{tag}>", f"</{tag}>"
        if text.count(opening) != 1 or text.count(closing) != 1:
            return False
        begins = text.find(opening, at)
        ends = text.find(closing, begins)
        if begins < 0 or ends < 0:
            return False
        at = ends + len(closing)
    return not text[at:].strip()


def language(script: str) -> TextPart:
    """The share of a response's letters that belong to a script; 1 where it has none."""
    names = SCRIPTS.get(script, (script.upper(),))

    def share(case: Case) -> float:
        letters = [c for c in case.response if c.isalpha()]
        if not letters:
            return 1.0
        return sum(unicodedata.name(c, "").startswith(names) for c in letters) / len(letters)

    return share
