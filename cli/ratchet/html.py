"""Tables and curves as HTML for notebooks: plain elements, inline SVG, legible on light and on dark pages.

Colors are the page's own (`currentColor`) but for the curve's, which has contrast on white and on black.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

WIDTH, HEIGHT, LEFT, BELOW = 480, 140, 44, 22
CURVE = "#2f81d6"
POINTS = 400


def description(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """A title and a table of names and values."""
    cells = "".join(
        f'<tr><th scope="row" style="text-align:left;padding:2px 12px 2px 0">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(value)}</td></tr>'
        for name, value in rows
        if value
    )
    return f'<div><strong>{html.escape(title)}</strong><table style="border-collapse:collapse">{cells}</table></div>'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with a head."""
    head = "".join(f'<th style="text-align:left;padding:2px 12px 2px 0">{html.escape(name)}</th>' for name in columns)
    body = "".join(
        "<tr>"
        + "".join(f'<td style="text-align:left;padding:2px 12px 2px 0">{html.escape(cell)}</td>' for cell in row)
        + "</tr>"
        for row in rows
    )
    return f'<table style="border-collapse:collapse"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def curve(name: str, points: Sequence[tuple[int, float]]) -> str:
    """A metric over its steps; nothing where there are fewer than two finite values."""
    known = [(step, value) for step, value in points if math.isfinite(value)]
    if len(known) < 2:
        return ""
    known = known[:: max(1, len(known) // POINTS)] + known[-1:]
    first, last = known[0][0], known[-1][0]
    low, high = min(value for _, value in known), max(value for _, value in known)
    if low == high:
        low, high = low - 0.5, high + 0.5

    def place(step: int, value: float) -> str:
        x = LEFT + (step - first) / max(1, last - first) * (WIDTH - LEFT - 8)
        y = 8 + (high - value) / (high - low) * (HEIGHT - BELOW - 8)
        return f"{x:.1f},{y:.1f}"

    line = " ".join(place(step, value) for step, value in known)
    words = f"{name} {known[0][1]:.3g} to {known[-1][1]:.3g}, steps {first} to {last}"

    def label(x: float, y: float, text: str, anchor: str) -> str:
        return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{html.escape(text)}</text>'

    floor = HEIGHT - BELOW
    return (
        f'<svg role="img" aria-label="{html.escape(words)}" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'style="max-width:100%;height:auto" font-family="sans-serif" font-size="11" fill="currentColor">'
        f"<title>{html.escape(words)}</title>"
        f'<path d="M{LEFT} 8V{floor}H{WIDTH - 8}" fill="none" stroke="currentColor" stroke-opacity="0.4"/>'
        f'<polyline points="{line}" fill="none" stroke="{CURVE}" stroke-width="1.8" stroke-linejoin="round"/>'
        + label(LEFT - 4, 14, f"{high:.3g}", "end")
        + label(LEFT - 4, floor, f"{low:.3g}", "end")
        + label(LEFT, HEIGHT - 6, f"step {first}", "start")
        + label(WIDTH - 8, HEIGHT - 6, f"step {last}", "end")
        + label((LEFT + WIDTH) / 2, HEIGHT - 6, name, "middle")
        + "</svg>"
    )
