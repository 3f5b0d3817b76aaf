"""Whether a run learned, in a sentence: from evaluations where there are some, else from what was sampled.

A change counts if it is larger than twice what chance makes of so many items (the standard error of the difference of
two shares). The condition Learning, which looks at the last steps alone, is said beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ratchet_cli.report.folder_files import Step

PREFIX = "evaluation/"
ENDS = 10
"""Steps at either end of a stage whose mean stands for it."""

LEARNED, WORSE, SAME, NOT_KNOWN = "learned", "worse", "same", "unknown"


@dataclass(frozen=True)
class Change:
    """A figure first and last. `error`: the standard error of the difference; None where nobody can tell."""

    name: str
    what: str
    before: float
    after: float
    steps: tuple[int, int]
    error: float | None = None

    @property
    def verdict(self) -> str:
        if self.steps[0] == self.steps[1]:
            return NOT_KNOWN
        if abs(self.after - self.before) <= 2 * (self.error or 0.0) or self.after == self.before:
            return SAME
        return LEARNED if self.after > self.before else WORSE


def evaluations(steps: Sequence[Step], spec: Mapping[str, Any]) -> list[Change]:
    """What each evaluation said first and last."""
    items = {e["name"]: int(e.get("items", 0)) for e in spec.get("evaluations") or ()}
    seen: dict[str, list[tuple[int, float]]] = {}
    for step, metrics in steps:
        for metric, value in metrics.items():
            if metric.startswith(PREFIX):
                seen.setdefault(metric, []).append((step, value))
    found = []
    for metric, values in sorted(seen.items()):
        name, _, what = metric.removeprefix(PREFIX).rpartition("/")
        (first, before), (last, after) = values[0], values[-1]
        error = _error(before, after, items.get(name, 0)) if what == "accuracy" else None
        found.append(Change(name, what, before, after, (first, last), error))
    return found


def of_stage(steps: Sequence[Step], name: str, begin: int, end: int) -> Change | None:
    """The accuracy of what a stage sampled, first and last: means of ten steps. None where it sampled nothing."""
    values = [(s, m["train/accuracy"]) for s, m in steps if begin < s <= end and "train/accuracy" in m]
    if len(values) < 2 * ENDS:
        return None
    head, tail = [v for _, v in values[:ENDS]], [v for _, v in values[-ENDS:]]
    error = math.sqrt((_variance(head) + _variance(tail)) / ENDS)
    return Change(name, "accuracy", _mean(head), _mean(tail), (values[0][0], values[-1][0]), error)


def _error(before: float, after: float, items: int) -> float | None:
    if items <= 0:
        return None
    # One more right and one more wrong answer each: no share is without doubt because all of few items were right.
    shares = [(p * items + 1) / (items + 2) for p in (before, after)]
    return math.sqrt(sum(p * (1 - p) for p in shares) / items)


@dataclass(frozen=True)
class Verdict:
    """The headline's answer."""

    verdict: str
    words: str


def verdict(evaluated: Sequence[Change], stages: Sequence[Change], learning: Mapping[str, Any] | None) -> Verdict:
    """Whether it learned: the first evaluation's accuracy decides; without one the last stage that sampled."""
    accuracies = [change for change in evaluated if change.what == "accuracy"]
    by = "; ".join(map(_words, accuracies or stages))
    if accuracies and accuracies[0].verdict != NOT_KNOWN:
        return Verdict(accuracies[0].verdict, f"{SAID[accuracies[0].verdict]}: {by}")
    if stages:
        worth = stages[-1].verdict
        note = "" if accuracies else "; there is no evaluation, so this is what was sampled for training"
        return Verdict(worth, f"{SAID[worth]}: {'; '.join(map(_words, stages))}{note}")
    if learning is not None and learning.get("status") in ("True", "False"):
        worth = LEARNED if learning["status"] == "True" else SAME
        return Verdict(worth, f"Learning is {learning['status']}: {learning.get('message', '')}")
    return Verdict(NOT_KNOWN, "Not known: too few steps with an accuracy were committed")


SAID = {
    LEARNED: "It learned",
    WORSE: "It got worse",
    SAME: "No change that chance would not make",
    NOT_KNOWN: "Not known yet",
}


def _words(change: Change) -> str:
    margin = "" if change.error is None else f" (chance makes ±{2 * change.error:.3f})"
    first, last = change.steps
    return f"{change.name} accuracy {change.before:.3f} → {change.after:.3f}{margin}, step {first} to {last}"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
