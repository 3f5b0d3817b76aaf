"""One curve as inline SVG: lines, a band where steps were put together, ends of stages and of attempts.

Decides scales, ticks and the data that hovering shows (attributes that report.js reads); legible without the script.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ratchet_cli.report.curves import Curve
from ratchet_cli.report.downsample import Point, downsample
from ratchet_cli.report.html import Html, joined, number, tag

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 10, 24
MOST_SERIES = 6

Mark = tuple[float, str, str]
"""A step, a class of report.css, and words."""


def figure(curve: Curve, stages: Sequence[Mark], ends: Sequence[Mark], span: tuple[int, int], most: int) -> Html:
    """The curve with its title, or why there is none. `span`: first and last step of the page's curves."""
    title = tag("h3", curve.title, tag("small", f" {curve.unit}") if curve.unit else None)
    if not curve.series:
        return tag("figure", title, tag("p", curve.absent, class_="absent"))
    shown = curve.series[:MOST_SERIES]
    thinned = [(name, *downsample(points, most)) for name, points in shown]
    each = max(size for _, _, size in thinned)
    low, high = _range([point for _, points, _ in thinned for point in points])
    svg = _Drawing(span, low, high).drawn(curve, [(n, p) for n, p, _ in thinned], stages, ends)
    words = []
    for i, (name, points) in enumerate(shown):
        what = f"{number(points[0][1])} → {number(points[-1][1])}"
        words.append(tag("span", tag("i", class_=f"key s{i}"), f"{name} {what}", class_="entry"))
    if each > 1:
        words.append(tag("span", f"each point: the mean of {each} steps; band: smallest to largest", class_="entry"))
    if len(curve.series) > MOST_SERIES:
        words.append(tag("span", f"{len(curve.series) - MOST_SERIES} more are not drawn", class_="entry"))
    return tag("figure", title, svg, tag("figcaption", joined(words), tag("output")))


class _Drawing:
    def __init__(self, span: tuple[int, int], low: float, high: float):
        self.first, self.last, self.low, self.high = span[0], max(span[1], span[0] + 1), low, high

    def x(self, step: float) -> float:
        return LEFT + (step - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return TOP + (self.high - value) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)

    def drawn(
        self,
        curve: Curve,
        series: Sequence[tuple[str, Sequence[Point]]],
        stages: Sequence[Mark],
        ends: Sequence[Mark],
    ) -> Html:
        parts: list[Html] = []
        for tick in ticks(self.low, self.high):
            y = round(self.y(tick), 1)
            parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
            parts.append(tag("text", number(tick), x=LEFT - 5, y=y + 3.5, class_="tick y"))
        for step in ticks(self.first, self.last, 6, whole=True):
            parts.append(tag("text", number(step), x=round(self.x(step), 1), y=HEIGHT - 8, class_="tick x"))
        for step, kind, words in stages:
            x = round(self.x(step), 1)
            parts.append(tag("line", tag("title", words), x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, class_=kind))
        bottom = HEIGHT - BOTTOM
        for step, kind, words in ends:
            x = round(self.x(step), 1)
            shape = f"{x},{bottom - 1} {round(x - 4, 1)},{bottom + 6} {round(x + 4, 1)},{bottom + 6}"
            parts.append(tag("polygon", tag("title", words), points=shape, class_=f"end {kind}"))
        for i, (_, points) in enumerate(series):
            parts += self._line(points, i, curve.dots)
        data = {
            f"data_s{i}": f"{name}|" + ";".join(f"{p.step:g},{p.mean:.5g}" for p in points)
            for i, (name, points) in enumerate(series)
        }
        said = {
            "viewBox": f"0 0 {WIDTH} {HEIGHT}",
            "role": "img",
            "tabindex": "0",
            "aria-label": f"{curve.title}, steps {self.first} to {self.last}",
            "data-from": f"{self.first}",
            "data-to": f"{self.last}",
            "class": "curve",
        }
        cursor = tag("line", x1=0, x2=0, y1=TOP, y2=HEIGHT - BOTTOM, class_="cursor")
        return tag("svg", joined(parts), cursor, **said, **data)

    def _line(self, points: Sequence[Point], index: int, dots: bool) -> list[Html]:
        found = []
        if any(p.high > p.low for p in points):
            up = [f"{self.x(p.step):.1f},{self.y(p.high):.1f}" for p in points]
            down = [f"{self.x(p.step):.1f},{self.y(p.low):.1f}" for p in reversed(points)]
            found.append(tag("polygon", points=" ".join(up + down), class_=f"band s{index}"))
        path = "M" + "L".join(f"{self.x(p.step):.1f},{self.y(p.mean):.1f}" for p in points)
        found.append(tag("path", d=path, class_=f"line s{index}"))
        if dots or len(points) == 1:
            found += [
                tag("circle", cx=f"{self.x(p.step):.1f}", cy=f"{self.y(p.mean):.1f}", r=2.5, class_=f"dot s{index}")
                for p in points
            ]
        return found


def _range(points: Sequence[Point]) -> tuple[float, float]:
    """From where to where the axis goes: shares and what is never below 0 begin there."""
    low, high = min(p.low for p in points), max(p.high for p in points)
    if low >= 0 and (high <= 1 or low < 0.6 * high):
        low = 0.0
    if high <= low:
        high = low + (abs(low) or 1.0)
    room = 0.04 * (high - low)
    return (low if low == 0 else low - room), (1.0 if 0.8 < high <= 1 and low == 0 else high + room)


def ticks(low: float, high: float, most: int = 5, *, whole: bool = False) -> list[float]:
    """Round numbers between two, at most so many."""
    if not high > low:
        return [low]
    raw = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= raw * 0.999)
    if whole:
        step = max(1.0, round(step))
    first = math.ceil(low / step - 1e-9)
    found = [round(i * step, 12) for i in range(first, first + 2 * most)]
    return [tick for tick in found if tick <= high + 1e-9 * step]
