"""HTML made of values: everything that is not HTML already is escaped.

What a model wrote can hold anything, so there is one way into the page, and it escapes. Control characters, and those
that turn the direction of writing, are shown as escapes.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

from ratchet_cli.sample_view import printable

VOID = ("br", "hr", "meta")
"""Elements that are written without an end here."""


class Html(str):
    """Text that is HTML already. What is added to it is escaped."""

    def __add__(self, more: str) -> Html:
        return Html(str.__add__(self, text(more)))


def text(value: object) -> Html:
    """Any value as text of the page."""
    return value if isinstance(value, Html) else Html(html.escape(_shown(str(value))))


def _shown(said: str) -> str:
    return said if said.isascii() and said.isprintable() else printable(said)


def tag(name: str, /, *inside: object, **attributes: object) -> Html:
    """An element. `None` inside or as an attribute is left out; `class_` is `class`, `_` in names is `-`."""
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_shown(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Html(f"<{name}{said}/>")
    return Html(f"<{name}{said}>{joined(inside)}</{name}>")


def joined(parts: Iterable[object], between: str = "") -> Html:
    """Parts one after the other, each escaped unless it is HTML."""
    return Html(between.join(text(part) for part in parts if part is not None))


def table(heads: Iterable[object], rows: Iterable[Iterable[object]], numbers: Iterable[int] = ()) -> Html:
    """A table that scrolls sideways where it is too wide. `numbers`: columns that are set to the right."""
    right = set(numbers)

    def cells(kind: str, row: Iterable[object]) -> Html:
        return joined(tag(kind, cell, class_="number" if i in right else None) for i, cell in enumerate(row))

    head = tag("thead", tag("tr", cells("th", heads)))
    body = tag("tbody", joined(tag("tr", cells("td", row)) for row in rows))
    return tag("div", tag("table", head, body), class_="wide")


def number(value: float | None, digits: int = 3) -> str:
    """A figure for people: `digits` that count, thousands apart; a dash where there is none."""
    if value is None or value != value:
        return "–"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}" if abs(value) < 1e15 else f"{value:.{digits}g}"
    return f"{value:.{digits}g}"


def seconds(value: float | None) -> str:
    """A duration: `8.3 s`, `12 min 4 s`, `3 h 20 min`, `2 d 5 h`."""
    if value is None:
        return "–"
    if value < 60:
        return f"{number(round(value, 2))} s"
    whole = round(value)
    for big, small, size, less in (("min", "s", 60, 1), ("h", "min", 3600, 60), ("d", "h", 86400, 3600)):
        if whole < size * {"min": 60, "h": 24, "d": 10**9}[big]:
            rest = whole % size // less
            return f"{whole // size} {big}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def share(value: float | None) -> str:
    """A share as percents."""
    return "–" if value is None else f"{value:.1%}" if value < 0.1 else f"{value:.0%}"
