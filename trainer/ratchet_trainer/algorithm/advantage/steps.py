"""Steps of a response: where one ends and the next begins, from its tokens alone.

Decides boundaries only, between tokens: a step that ends in the middle of a token ends after it. Text is looked at one
token (for sentences, a few) at a time, so that a long response costs no more than its length.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

MARKS = ".!?"
SENTENCE_END = re.compile(rf"[{MARKS}][\"')\]]*\s")
LOOKBACK = 2
"""Tokens before the one in question in which the mark that ends a sentence may be, quotes and brackets after it."""

Text = Callable[[tuple[int, ...]], str]
"""The text of a few tokens. It is asked for the same tokens over and over, so it should remember."""


def _line(tokens: Sequence[int], at: int, begun: int, size: int, text: Text) -> bool:
    return "\n" in text((tokens[at],))


def _sentence(tokens: Sequence[int], at: int, begun: int, size: int, text: Text) -> bool:
    """The space after a sentence begins the next token, or lies inside of this one."""
    first = max(begun, at - LOOKBACK)
    if not any(mark in text((token,)) for token in tokens[first : at + 1] for mark in MARKS):  # nor is there an end
        return _line(tokens, at, begun, size, text)
    before, here = (len(text(tuple(tokens[first:end]))) for end in (at, at + 1))
    spaces = (found.end() - 1 for found in SENTENCE_END.finditer(text(tuple(tokens[first : at + 2]))))
    return any(before < space <= here for space in spaces) or _line(tokens, at, begun, size, text)


def _tokens(tokens: Sequence[int], at: int, begun: int, size: int, text: Text) -> bool:
    return at + 1 - begun >= size


ENDS: Mapping[str, Callable[[Sequence[int], int, int, int, Text], bool]] = {
    # whether a step that has begun at a token ends with token `at`, which is not the last one
    "lines": _line,
    "sentences": _sentence,
    "tokens": _tokens,
}


def step_starts(tokens: Sequence[int], forced: int, kind: str, size: int, most: int, text: Text) -> list[int]:
    """Where the steps of a response begin, rising; the first at `forced`, as what is before was not chosen.

    `kind`: a row of ENDS; `size`: tokens of a step, kind tokens; `most`: steps at most, neighbours are merged as
    `merged` says. A step has a visible character: blank lines belong to the step that follows, and what is blank at the
    end (the token that ends a response) to the step before.
    """
    starts, visible = [forced], False
    for at in range(forced, len(tokens) - 1):
        visible = visible or bool(text((tokens[at],)).strip())
        if visible and ENDS[kind](tokens, at, starts[-1], size, text):
            starts.append(at + 1)
            visible = False
    if len(starts) > 1 and not any(text((token,)).strip() for token in tokens[starts[-1] :]):
        starts.pop()
    return merged(starts, most)


def merged(starts: Sequence[int], most: int) -> list[int]:
    """At most `most` of n steps: step i becomes part of step floor(i most / n), so all have as many but for one."""
    n = len(starts)
    return list(starts) if n <= most else [starts[-(-i * n // most)] for i in range(most)]
