"""Tables that fit: columns are left out, the least important first, until the rest fits the width.

A pipe has room for all of them, so what a script reads does not depend on a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len as wide_cell_len
from rich.cells import set_cell_size
from rich.text import Text

GAP = 2


@dataclass(frozen=True)
class Column:
    """`importance`: those with less are left out first. `right`: numbers. `shrinks`: takes what room is left."""

    title: str
    importance: int
    right: bool = False
    shrinks: bool = False
    least: int = 8


@dataclass(frozen=True)
class Cell:
    """A text and its style."""

    text: str
    style: str = ""


def cell_len(text: str) -> int:
    """Columns that a text takes."""
    return len(text) if text.isascii() else wide_cell_len(text)


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int) -> list[Text]:
    """The lines of a table, its heading first; no line is longer than `width`."""
    needed = [
        max([cell_len(column.title), *(cell_len(row[i].text) for row in rows)]) for i, column in enumerate(columns)
    ]
    kept = list(range(len(columns)))
    while len(kept) > 1 and _least(columns, needed, kept) > width:
        kept.remove(min(kept, key=lambda i: columns[i].importance))
    widths = {i: needed[i] for i in kept}
    shrinking = sorted((i for i in kept if columns[i].shrinks), key=lambda i: columns[i].importance)
    for i in [*shrinking, kept[0]]:  # the least important gives way first
        excess = sum(widths.values()) + GAP * (len(kept) - 1) - width
        least = columns[i].least if columns[i].shrinks else 1
        widths[i] = max(min(widths[i], least), widths[i] - max(0, excess))
    heading = _line(columns, [Cell(column.title, "bold") for column in columns], kept, widths)
    return [heading, *(_line(columns, row, kept, widths) for row in rows)]


def _least(columns: Sequence[Column], needed: Sequence[int], kept: Sequence[int]) -> int:
    least = sum(min(needed[i], columns[i].least) if columns[i].shrinks else needed[i] for i in kept)
    return least + GAP * (len(kept) - 1)


def _line(columns: Sequence[Column], row: Sequence[Cell], kept: Sequence[int], widths: dict[int, int]) -> Text:
    line = Text(no_wrap=True, end="\n")
    for position, i in enumerate(kept):
        last = position == len(kept) - 1
        text, used = _cut(row[i].text, widths[i]), 0
        used = cell_len(text)
        blank = " " * (widths[i] - used)
        line.append(f"{blank}{text}" if columns[i].right else text, row[i].style or None)
        if not last:
            line.append(("" if columns[i].right else blank) + " " * GAP)
    line.rstrip()
    return line


def _cut(text: str, width: int) -> str:
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + "~" if width > 3 else set_cell_size(text, width)
