"""The verifier `choice`: the answer is right if it is the same option of a multiple-choice question. Pure, inline.

Decides which option a response chose. The first of these that applies, so that naming all options earns nothing:

1. the whole (extracted) answer is one option: `B`, `(b)`, `B.`, `**B**`, `B) 42`, or the text of an option;
2. the last line that says so: `the answer is (B)`, `Answer: B`; two options in it (`A or B`) are none;
3. what the last `\\boxed{}` holds, by rule 1.

Options come from the item: `options` or `choices`, a list of texts, or a mapping from letter to text. The expected
answer is a letter, the text of an option, or a number that counts from 0 where there are options.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ratchet_trainer.algorithm.outcome import Case, Outcome, graded, unparsable
from ratchet_trainer.algorithm.verifiers.extract import boxed, extract
from ratchet_trainer.algorithm.verifiers.spec import VerifierSpec

VERSION = "1"
OPTION_MAX = 400
"""Longest text in which a letter is looked for that stands for an option."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_BARE = re.compile(r"[\W_]*(?:option|choice|answer)?[\W_]*([A-Za-z])[\W_]*", re.IGNORECASE)
_LABELED = re.compile(r"[\s*(\[]*([A-Za-z])\s*[).:\]]\W*(.+)", re.DOTALL)
_SAID = re.compile(r"\banswer(?:\s{1,4}is)?\s{0,4}[:=]?\s{0,4}([^\n]{1,400})", re.IGNORECASE)
_LEADING = re.compile(
    # An option in brackets or with a mark after it; or a capital, which A and I are as words, too.
    r"[\s*$]*(?:(?i:option|choice)\s+)?(?:"
    r"[(\[\s*]*([A-Za-z])\s*(?:[).:,;*\]$]|$)"
    r"|([B-HJ-Z])(?=\s)"
    r"|([AI])(?=\s+(?:because|since|as|due|for|which)\b)"
    r")"
)
_OTHER = re.compile(r"\b(?:or|and)\b|[,/]\s*\(?[A-Za-z]\b\)?(?![a-z])", re.IGNORECASE)


def verify(spec: VerifierSpec, case: Case) -> Outcome:
    options = options_of(case.item)
    expected = expected_option(case.item, options)
    found = extract(spec.extraction, case.response)
    chosen = None if found is None else option_in(found, options)
    if chosen is None and found is not None and spec.extraction.kind == "auto":
        inside = boxed(found)
        chosen = None if inside is None else whole_option(inside, options)
    if chosen is None or expected is None:
        return unparsable(found)
    return graded(float(chosen == expected), chosen)


def options_of(item: Mapping[str, Any]) -> dict[str, str]:
    """Letter -> text of the item's options; empty where it names none."""
    named = item.get("options", item.get("choices"))
    if isinstance(named, Mapping):
        return {str(letter).strip().upper(): str(text) for letter, text in named.items()}
    if isinstance(named, list | tuple):
        return dict(zip(LETTERS, (str(text) for text in named), strict=False))
    return {}


def expected_option(item: Mapping[str, Any], options: Mapping[str, str]) -> str | None:
    """The letter of the right option, or None if the item does not tell."""
    answer = str(item["answer"]).strip()
    if (letter := whole_option(answer, options)) is not None:
        return letter
    if answer.isdecimal() and int(answer) < len(options):
        return list(options)[int(answer)]
    return None


def whole_option(text: str, options: Mapping[str, str]) -> str | None:
    """The option that a text is, all of it. Long texts are none, unless they are an option's."""
    same = [letter for letter, option in options.items() if plain(option) == plain(text)]
    if len(same) == 1:
        return same[0]
    if len(text) > OPTION_MAX:
        return None  # the patterns below are not made for it
    if match := _BARE.fullmatch(text):
        return known(match[1], options)
    if options and (match := _LABELED.fullmatch(text)):
        letter = known(match[1], options)
        return letter if letter is not None and plain(options[letter]) == plain(match[2]) else None
    return None


def option_in(text: str, options: Mapping[str, str]) -> str | None:
    """The option that a response chose, or None."""
    if (letter := whole_option(text, options)) is not None:
        return letter
    said = _SAID.findall(text)
    if not said:
        return None
    last = said[-1].strip()
    if (letter := whole_option(last, options)) is not None:
        return letter
    if (match := _LEADING.match(last)) and not _OTHER.search(last, match.end(match.lastindex or 0)):
        return known(match[match.lastindex or 0], options)
    return None


def known(letter: str, options: Mapping[str, str]) -> str | None:
    """The letter in upper case, if the question has such an option."""
    letter = letter.upper()
    return letter if not options or letter in options else None


def plain(text: str) -> str:
    """A text without what does not tell options apart: case, white space, dots and emphasis around it."""
    return " ".join(text.split()).strip(" .*$`\"'").casefold()
