"""Curves in block characters: one line, or a chart with its scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from ratchet_cli.job_view.terminal import BLOCKS, Glyphs
from ratchet_cli.job_view.words import short

Points = Sequence[tuple[int, float]]
ORDER = ("reward", "accuracy", "entropy", "loss")
LABEL = 7
"""Columns of the scale."""


def worth_drawing(curves: Mapping[str, Points]) -> list[tuple[str, Points]]:
    """Curves that say something: the loss of rl does not, and a reward that is the accuracy says nothing more."""
    found = [(name, curves[name]) for name in ORDER if len(curves.get(name, ())) > 1]
    names = {name for name, _ in found}
    same = curves.get("reward") == curves.get("accuracy")
    drop = ({"loss"} if names & {"reward", "accuracy"} else set()) | ({"reward"} if same else set())
    return [(name, points) for name, points in found if name not in drop]


def sparkline(points: Points, width: int, glyphs: Glyphs = BLOCKS) -> str:
    """A curve in one line between its smallest and largest value; empty without points."""
    values = _columns(points, min(width, len(points)))
    if not values:
        return ""
    low, high = min(values), max(values)
    levels = len(glyphs.blocks) - 1
    return "".join(
        glyphs.blocks[1 + round((value - low) / (high - low) * (levels - 1)) if high > low else 1] for value in values
    )


def chart(points: Points, width: int, height: int, glyphs: Glyphs = BLOCKS) -> list[str]:
    """A chart of `height` lines and the axis; the scale spans the values, from 0 where they are shares."""
    room = max(4, width - LABEL - 1)
    values = _columns(points, min(room, len(points)))
    if not values:
        return []
    low, high = min(values), max(values)
    if low >= 0 and high <= 1:
        low = 0.0
    if high <= low:
        high = low + (abs(low) or 1.0)
    levels = len(glyphs.blocks) - 1
    filled = [(value - low) / (high - low) * height * levels for value in values]
    side, corner, axis = ("|", "+", "-") if glyphs.plain else ("│", "└", "─")
    lines = []
    for row in range(height, 0, -1):
        below = (row - 1) * levels
        cells = "".join(glyphs.blocks[max(0, min(levels, round(level - below)))] for level in filled)
        middle = short((high + low) / 2) if row == height // 2 + 1 and height > 3 else ""
        label = short(high) if row == height else middle
        lines.append(f"{label:>{LABEL}}{side}{cells}".rstrip())
    lines.append(f"{short(low):>{LABEL}}{corner}{axis * len(values)}")
    first, last = f"{points[0][0]}", f"step {points[-1][0]}"
    lines.append(" " * (LABEL + 1) + first + last.rjust(max(len(last) + 1, len(values) - len(first))))
    return lines


def _columns(points: Points, width: int) -> list[float]:
    """Means of neighbors, one a column."""
    if width < 1:
        return []
    bounds = [round(i * len(points) / width) for i in range(width + 1)]
    groups = [points[a:b] for a, b in pairwise(bounds) if b > a]
    return [sum(value for _, value in group) / len(group) for group in groups]
