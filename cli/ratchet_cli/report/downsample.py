"""Long curves made short, honestly: each point stands for so many steps, with their mean, smallest and largest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """What is drawn at one place: a step, or the middle of some."""

    step: float
    mean: float
    low: float
    high: float


def downsample(points: Sequence[tuple[int, float]], most: int) -> tuple[list[Point], int]:
    """At most `most` points, and how many steps each of them stands for; 1 where none had to be put together.

    Steps are put together by their numbers, so that a gap in a curve stays a gap.
    """
    if len(points) <= most:
        return [Point(step, value, value, value) for step, value in points], 1
    first, last = points[0][0], points[-1][0]
    size = math.ceil((last - first + 1) / most)
    found: list[Point] = []
    at = 0
    while at < len(points):
        bucket = (points[at][0] - first) // size
        end = at
        while end < len(points) and (points[end][0] - first) // size == bucket:
            end += 1
        values = [value for _, value in points[at:end]]
        steps = [step for step, _ in points[at:end]]
        found.append(Point((steps[0] + steps[-1]) / 2, math.fsum(values) / len(values), min(values), max(values)))
        at = end
    return found, size
