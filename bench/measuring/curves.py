"""What several runs of a variant say together: curves with bands, and when they reached a target.

Pure: from numbers to numbers and text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

HELD_OUT, SOLVED = "evaluation/held-out/accuracy", "evaluation/solved/accuracy"
Curve = list[tuple[int, float]]
"""(step, value), by step."""


@dataclass(frozen=True)
class Reached:
    """When a run first had the target: its step, and the rollouts up to there. None: not within its steps."""

    step: int | None
    rollouts: float | None


@dataclass(frozen=True)
class Band:
    """The steps of a curve with the least, the median and the most of all runs."""

    steps: list[int]
    low: list[float]
    middle: list[float]
    high: list[float]


def curve(run: Mapping[str, Any], metric: str) -> Curve:
    """The values of a metric of a run, as far as it was measured."""
    return [(step, float(said[metric])) for step, said in sorted(run["records"].items()) if metric in said]


def reached(run: Mapping[str, Any], metric: str, target: float) -> Reached:
    """When the metric first was at least the target."""
    step = next((s for s, value in curve(run, metric) if value >= target), None)
    return Reached(step, None if step is None else sum(n for s, n in run["rollouts"].items() if s <= step))


def band(runs: Sequence[Mapping[str, Any]], metric: str) -> Band:
    """Over the steps that all runs have."""
    curves = [dict(curve(run, metric)) for run in runs]
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    of = [[c[s] for c in curves] for s in steps]
    return Band(steps, [min(v) for v in of], [median(v) for v in of], [max(v) for v in of])


def median_or_never(values: Sequence[float | None]) -> float | None:
    """The median, where what was never reached is later than all else; None where that is the median."""
    order = sorted(values, key=lambda v: (v is None, v))
    middle = order[(len(order) - 1) // 2 : len(order) // 2 + 1]
    return None if None in middle else sum(v for v in middle if v is not None) / len(middle)


def table(runs: Mapping[str, Sequence[Mapping[str, Any]]], target: float) -> list[str]:
    """Lines of markdown: a row a variant, medians over its runs and, in brackets, the least and the most."""
    lines = [
        f"| variant | runs | at the start | at the end | steps to {target:g} | rollouts to {target:g} | "
        "solved prompts, at the end |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, of_variant in runs.items():
        held = [curve(run, HELD_OUT) for run in of_variant]
        solved = [c[-1][1] for run in of_variant if (c := curve(run, SOLVED))]
        found = [reached(run, HELD_OUT, target) for run in of_variant]
        cells = [
            name,
            str(len(of_variant)),
            _spread([c[0][1] for c in held if c]),
            _spread([c[-1][1] for c in held if c]),
            _when([f.step for f in found]),
            _when([f.rollouts for f in found]),
            _spread(solved) if solved else "-",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f} [{min(values):.2f}, {max(values):.2f}]" if values else "-"


def _when(values: Sequence[float | None]) -> str:
    middle, known = median_or_never(values), [v for v in values if v is not None]
    if not known:
        return "never"
    never = f", {len(values) - len(known)} never" if len(known) < len(values) else ""
    return f"{'never' if middle is None else f'{middle:.0f}'} [{min(known):.0f}, {max(known):.0f}{never}]"
