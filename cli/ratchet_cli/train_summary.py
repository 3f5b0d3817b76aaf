"""What `ratchet train` says at its end: evaluations before and after, and whether the last stage learned.

Decides what is read for it: committed metrics alone, so a run that was stopped and went on says the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PREFIX = "evaluation/"


def seen(folder: Path, result: Mapping[str, Any], learning: Mapping[str, str]) -> dict[str, Any]:
    """`{evaluations: {name: {metric: {before, after, steps}}}, learning}` of a working folder. `learning`: what was
    last heard of the run, whose words hold answers; it counts if it is of the last commit."""
    found: dict[str, Any] = {"evaluations": evaluations(folder / "metrics.jsonl")}
    if "checkpoint" in result:
        from ratchet_trainer.step.learning_signs import learning as computed

        stage = json.loads((folder / result["checkpoint"] / "control.json").read_bytes())["stage"]
        if stage["windows"]:
            now = computed(stage["windows"], None, str).plain()
            same = learning.get("reason") == now["reason"]
            found["learning"] = dict(learning) if same else now
    return found


def evaluations(stream: Path) -> dict[str, dict[str, Any]]:
    """What each evaluation said first and last in a metric stream: `{name: {metric: {before, after, steps}}}`."""
    found: dict[str, dict[str, Any]] = {}
    if not stream.exists():
        return found
    with stream.open(encoding="utf-8") as lines:
        for line in lines:
            if PREFIX not in line or not line.endswith("\n"):
                continue
            said = json.loads(line)
            for metric, text in said["metrics"].items():
                if metric.startswith(PREFIX):
                    name, _, what = metric.removeprefix(PREFIX).rpartition("/")
                    value, step = float(text), said["step"]
                    first = found.setdefault(name, {}).setdefault(what, {"before": value, "steps": [step, step]})
                    first |= {"after": value, "steps": [first["steps"][0], step]}
    return found


def in_words(result: Mapping[str, Any]) -> Iterator[str]:
    """The lines of the summary."""
    for name, metrics in result.get("evaluations", {}).items():
        shown = {m: v for m, v in metrics.items() if m == "accuracy" or m.startswith("pass_at_")}
        shown.pop("pass_at_1", None)  # the accuracy
        said = ", ".join(
            f"{m.replace('pass_at_', 'pass@')} {v['before']:.3f} -> {v['after']:.3f}" for m, v in shown.items()
        )
        first, last = metrics["accuracy"]["steps"]
        yield f"evaluation {name}: {said} (step {first} -> {last})"
    if (learning := result.get("learning")) is not None and learning["reason"] != "NotApplicable":
        yield f"learning: {learning['status']}, {learning['reason']}: {learning['message']}"
