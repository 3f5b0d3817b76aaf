"""What `ratchet train` says at its end: evaluations before and after, and whether the last stage learned.

Decides what is read for it: committed metrics alone, so a run that was stopped and went on says the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ratchet_trainer.storage import Location

PREFIX = "evaluation/"


def seen(folder: Location, result: Mapping[str, Any], learning: Mapping[str, str]) -> dict[str, Any]:
    """`{evaluations: {name: {metric: {before, after, steps}}}, learning}` of a working folder. `learning`: what was
    last heard of the run, whose words hold answers; it counts if it is of the last commit."""
    from ratchet_trainer import storage
    from ratchet_trainer.checkpoints.checkpoint import stream_of

    found: dict[str, Any] = {"evaluations": evaluations(stream_of(folder).read())}
    if "checkpoint" in result:
        from ratchet_trainer.step.learning_signs import learning as computed

        stage = json.loads(storage.read(folder / result["checkpoint"] / "control.json") or b"")["stage"]
        if stage["windows"]:
            now = computed(stage["windows"], None, str).plain()
            same = learning.get("reason") == now["reason"]
            found["learning"] = dict(learning) if same else now
    return found


def evaluations(stream: bytes) -> dict[str, dict[str, Any]]:
    """What each evaluation said first and last in a metric stream: `{name: {metric: {before, after, steps}}}`."""
    found: dict[str, dict[str, Any]] = {}
    for line in stream.decode().split("\n")[:-1]:  # what is not a whole line is being written
        if PREFIX not in line:
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
