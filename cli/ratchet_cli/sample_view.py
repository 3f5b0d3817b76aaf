"""Rollouts as text for a terminal: what `ratchet samples` and `ratchet train` show of one.

Decides layout and words; pure. Lines are at most `width` columns, wide characters counted as two. What a model wrote
cannot drive the terminal: control characters are shown as escapes.
"""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

NARROWEST, WIDEST = 40, 200
LABEL = 11
"""Columns of the labels."""
MOST_LINES = 12
"""Of a text in the short form; the middle is left out."""

FINISH = {"end": "its end token", "stop": "a stop string", "length": "the length limit"}
STATUS = {
    "unparsable": "the verifier found no answer that it can read",
    "timeout": "the verifier took too long and was stopped",
    "crash": "the verifier failed",
}
DISPOSITION = {
    "trained": "trained on",
    "all_right": "all of the prompt's responses right, nothing to learn",
    "all_wrong": "all of the prompt's responses worth the same, nothing to learn",
    "carried": "kept for a later step",
    "dropped": "left out of training",
    "failed": "not verified",
}


def columns() -> int:
    """Columns of the terminal within what can be laid out; COLUMNS has precedence."""
    return min(WIDEST, max(NARROWEST, shutil.get_terminal_size((100, 24)).columns))


def wrong(samples: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that the verifier called wrong."""
    return [sample for sample in samples if sample["accuracy"] == 0.0]


def block(sample: Mapping[str, Any], width: int, *, short: bool = False) -> list[str]:
    """One rollout. `short` leaves out the middle of long texts."""
    place, rank = printable(sample["place"], one_line=True), sample["sample"]
    heading = f"{place}, sample {rank}: {_verdict(sample)}, reward {_number(sample['reward'])}"
    if sample.get("edit"):
        heading += f", prompt changed by {printable(sample['edit'], one_line=True)}"
    lines = [click.style(line, bold=True) for line in wrapped(heading, width)]
    fields = [
        ("prompt", printable(sample["prompt"])),
        ("response", printable(sample["response"]) or "(empty)"),
        ("extracted", "(nothing)" if sample["extracted"] is None else printable(sample["extracted"]) or "(empty)"),
        ("expected", printable(sample["expected"])),
        ("rewards", ", ".join(f"{name} {_number(value)}" for name, value in sample["parts"].items())),
        ("ended by", f"{FINISH.get(sample['finish'], sample['finish'])} after {sample['tokens']} tokens"),
    ]
    if (word := sample["disposition"]) is not None:
        fields.append(("fate", f"{word}: {DISPOSITION[word]}" if word in DISPOSITION else str(word)))
    for label, text in fields:
        lines += labelled(label, text, width, MOST_LINES if short else None)
    return lines


def labelled(label: str, text: str, width: int, most: int | None = None) -> Iterator[str]:
    """A label and a text beside it; of a text of more than `most` lines the middle is left out."""
    found = [piece for line in text.split("\n") for piece in wrapped(line, width - LABEL)]
    if most is not None and len(found) > most:
        head = most * 2 // 3
        found = [*found[:head], f"... {len(found) - most + 1} lines ...", *found[len(found) - (most - head - 1) :]]
    for i, line in enumerate(found):
        yield f"{label if i == 0 else '':<{LABEL}}{line}".rstrip()


def wrapped(line: str, width: int) -> list[str]:
    """One line as pieces of at most `width` columns, broken at spaces where there are some."""
    pieces = []
    while _columns(line) > width:
        cut = _fitting(line, width)
        space = line.rfind(" ", 1, cut + 1)
        at = space if space > 0 else cut
        pieces.append(line[:at])
        line = line[at:].removeprefix(" ")
    return [*pieces, line]


def printable(text: str, *, one_line: bool = False) -> str:
    """A text without what would move the cursor, change colors or turn the direction of writing."""
    kept = "" if one_line else "\n"
    text = text.replace("\t", "    ")
    return "".join(c if c in kept or not _is_control(c) else c.encode("unicode_escape").decode() for c in text)


def _is_control(character: str) -> bool:
    # Format characters, too: some turn the direction of writing; zero-width ones would hide.
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _verdict(sample: Mapping[str, Any]) -> str:
    if sample["status"] in STATUS:
        return STATUS[sample["status"]]
    return "right" if sample["accuracy"] == 1.0 else "wrong"


def _number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").removesuffix(".") if abs(value) < 1e6 else f"{value:.3g}"


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _columns(text: str) -> int:
    return len(text) if text.isascii() else sum(map(_width, text))


def _fitting(text: str, width: int) -> int:
    """How many characters fit; one at least."""
    used = 0
    for i, character in enumerate(text):
        used += _width(character)
        if used > width:
            return max(1, i)
    return len(text)
