r"""Which part of a response is the answer.

Decides what `answer.extract` of a data set means, in one pass over the text whatever it holds:

| extract    | the answer is                                                             | of `x = 4, so \boxed{4}.` |
|------------|---------------------------------------------------------------------------|---------------------------|
| whole      | all of the response, trimmed                                              | all of it                 |
| lastNumber | the last number, with its sign, currency, fraction and percent            | `4`                       |
| boxed      | what the last closed `\boxed{...}` or `\fbox{...}` holds, braces balanced | `4`                       |
| tag        | what the last closed `<tag>...</tag>` holds                               | nothing                   |
| after      | what follows the last occurrence of a text, to the end of its line        | depends on the text       |

Nothing found is None, never "".
"""

from __future__ import annotations

import re

from ratchet_trainer.algorithm.verifiers.spec import Extraction

MINUS = "-\u2212\u2013\ufe63\uff0d"
"""What stands for a minus before a number: hyphen, minus sign, en dash, small and full-width hyphen."""
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_NUMBER = re.compile(
    # A sign counts where no number, letter or closing bracket stands before it: 7-2 holds 7 and 2, x = -2 holds -2.
    rf"(?:(?<![0-9A-Za-z)\]%])[{MINUS}+])?[$\u20ac\u00a3]?(?:{_DIGITS}(?:\.[0-9]+)?|\.[0-9]+)"
    rf"(?:[eE][{MINUS}+]?[0-9]+(?![0-9A-Za-z]))?"
    rf"(?:/[0-9]+(?![0-9]))?%?"
)
_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)


def extract(extraction: Extraction, response: str) -> str | None:
    """The answer in a response, trimmed, or None. `auto` is whole here: verifiers that know better do not ask."""
    if extraction.kind == "lastNumber":
        return last_number(response)
    if extraction.kind == "boxed":
        return boxed(response)
    if extraction.kind == "tag":
        return tagged(response, extraction.argument)
    if extraction.kind == "after":
        return after(response, extraction.argument)
    return response.strip() or None


def last_number(text: str) -> str | None:
    """The last number in a text as it stands there: "2 + 3 = 5." -> "5"."""
    found = None
    for match in _NUMBER.finditer(text):
        found = match
    return found.group() if found else None


def boxed(text: str) -> str | None:
    r"""What the last \boxed{...} holds whose braces close; of nested ones the inner. An escaped brace is text."""
    openings: list[int] = []  # where the text of each open brace begins; negative for those that are not boxes
    found: tuple[int, int] | None = None
    for token in _BRACES.finditer(text):
        if token.group() == "}":
            start = openings.pop() if openings else -1
            if start >= 0 and (found is None or start > found[0]):
                found = start, token.start()
        elif token.group()[-1] == "{" and token.group() != "\\{":
            openings.append(-1 if token.group() == "{" else token.end())
    return text[slice(*found)].strip() or None if found else None


def tagged(text: str, tag: str) -> str | None:
    """What the last closed <tag>...</tag> holds; of nested ones the inner."""
    opening, closing = f"<{tag}>", f"</{tag}>"
    start = text.rfind(opening, 0, max(0, text.rfind(closing)))
    if start < 0:
        return None
    start += len(opening)
    return text[start : text.index(closing, start)].strip() or None


def after(text: str, marker: str) -> str | None:
    """What follows the last occurrence of `marker`, to the end of that line, or on the next line if that is empty."""
    _, found, rest = text.rpartition(marker)
    lines = rest.strip().splitlines()
    return lines[0].strip() or None if found and lines else None


def wrapped(extraction: Extraction, answer: str) -> str:
    """How a response ends that gives this answer: what a preflight feeds to the verifier."""
    return {
        "boxed": f"\\boxed{{{answer}}}",
        "tag": f"<{extraction.argument}>{answer}</{extraction.argument}>",
        "after": f"{extraction.argument} {answer}",
    }.get(extraction.kind, answer)
