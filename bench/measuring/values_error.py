"""How far values are from what states are worth: of the first step, whether they are right in the mean; then, how they
err. Pure: from what `watched_values` wrote to lines of markdown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean, median
from typing import Any

from measuring.noisy_chain import Chain

States = Sequence[tuple[int, float, float, int]]
"""(tokens that are there and right, or -1; what was estimated; what it is worth; how many responses are in it)."""
SPANS = ((1, 1), (2, 5), (6, 10), (11, 20), (1, 20))
"""Steps, both ends included, over which errors are averaged."""


def by_step(lines: Sequence[Mapping[str, Any]]) -> dict[int, States]:
    """The states of each step; of one that was made again, those of the last time."""
    return {line["step"]: [tuple(state) for state in line["states"]] for line in lines}


def squared_error(values: Mapping[int, States], first: int, last: int) -> float | None:
    """Mean over all states of some steps, each as often as responses are in it; None where there is none."""
    states = [state for step in range(first, last + 1) for state in values.get(step, ())]
    return fmean([(s - w) ** 2 for _, s, w, _ in states], [rows for *_, rows in states]) if states else None


def mean_error(states: States) -> tuple[float, float]:
    """Mean of estimate minus worth, and its standard error, each state counted once; needs two states."""
    errors = [said - worth for _, said, worth, _ in states]
    mean = fmean(errors)
    return mean, sqrt(sum((e - mean) ** 2 for e in errors) / (len(errors) - 1) / len(errors))


def bias_table(runs: Mapping[str, Sequence[Mapping[int, States]]], chain: Chain) -> list[str]:
    """Lines of markdown: states of step 1 by their right steps, all runs of a variant together."""
    lines = [
        "| variant | right steps j | states | q^(k-j) | exact, mean | estimated, mean | error, mean +- its deviation |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, of_variant in runs.items():
        firsts = [state for values in of_variant for state in values.get(1, ())]
        for done in (*range(chain.k + 1), -1):
            if len(states := [state for state in firsts if state[0] == done]) < 2:
                continue
            mean, deviation = mean_error(states)
            said, worth = fmean(s for _, s, _, _ in states), fmean(w for _, _, w, _ in states)
            known, named = (0.0, "one is wrong") if done < 0 else (chain.value(done), str(done))
            cells = (name, named, str(len(states)), f"{known:.3f}", f"{worth:.3f}", f"{said:.3f}")
            lines.append(f"| {' | '.join(cells)} | {mean:+.3f} +- {deviation:.3f} |")
    return lines


def error_table(runs: Mapping[str, Sequence[Mapping[int, States]]]) -> list[str]:
    """Lines of markdown: mean squared errors by span of steps, medians over runs with the least and the most."""
    spans = [f"step {a}" if a == b else f"steps {a}-{b}" for a, b in SPANS]
    lines = [f"| variant | runs | {' | '.join(spans)} |", f"|---|---|{'---|' * len(spans)}"]
    for name, of_variant in runs.items():
        cells = [name, str(len(of_variant))]
        for span in SPANS:
            errors = [e for values in of_variant if (e := squared_error(values, *span)) is not None]
            cells.append(f"{median(errors):.4f} [{min(errors):.4f}, {max(errors):.4f}]" if errors else "-")
        lines.append(f"| {' | '.join(cells)} |")
    return lines
