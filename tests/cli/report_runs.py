"""Folders of runs as the trainer leaves them, written here so that each can be damaged in its own way."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
HOSTILE = '</pre><script>document.title="taken"</script><img src=x onerror="document.title=1"> \u202e\x1b[31m'
BEGAN = 1_760_000_000.0


def write_run(folder: Path, steps: int = 120, *, response: str = "17", attempts: bool = True) -> Path:
    """A run of two stages with evaluations; three attempts, the first told to go, the second killed."""
    spec = yaml.safe_load((ROOT / "examples/minimal.yaml").read_text())["spec"]
    spec["evaluations"] = [{"name": "held-out", "dataset": "sums", "items": 64, "everySteps": 20}]
    (folder / "local").mkdir(parents=True)
    (folder / "local/job.json").write_text(json.dumps({"spec": spec}))
    lines = []
    for step in range(1, steps + 1):
        share = step / steps
        metrics = {"train/loss": 2.0 - share}
        if step > steps // 3:
            metrics |= {"train/reward": share, "train/accuracy": share, "train/entropy": 1 - share}
            metrics |= {"train/informative": 0.5, "train/unsolved": 0.3, "train/solved": 0.2}
            metrics |= {"train/response_tokens": 3.0, "train/kl": math.nan}
        if step % 20 == 0:
            metrics["evaluation/held-out/accuracy"] = share
        lines.append(json.dumps({"step": step, "metrics": {k: repr(v) for k, v in metrics.items()}}))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    if attempts:
        write_attempts(folder, steps)
    (folder / "samples").mkdir()
    for step in (steps // 3 + 1, steps):
        text = json.dumps(sample(step, response=response)) + "\n"
        (folder / f"samples/{step:08d}.jsonl").write_text(text)
    return folder


def write_attempts(folder: Path, steps: int) -> None:
    """Ledgers and journal."""
    (folder / "ledger").mkdir()
    (folder / "journal").mkdir()
    third = steps // 3
    plans = [
        ("a1-aaaaaaaa", 0, third, {"exit": 75}, BEGAN + 10),
        ("a2-bbbbbbbb", third, 2 * third, {}, BEGAN + 25),
        ("a3-cccccccc", 2 * third - 5, steps, {"exit": 0}, BEGAN + 40),
    ]
    for number, (tag, start, end, more, written) in enumerate(plans, 1):
        first = {"at": 4.0, "from": start, "step": start + 1, "steps": 1, "init": 1.0, "compile": 2.0, "update": 1.0}
        last = {"at": 10.0, "step": end, "steps": end - start - 1, "generate": 2.0, "update": 3.0, "save": 1.0, **more}
        if number == 3:
            last["replayedSteps"] = 5
        file = folder / f"ledger/{tag}.jsonl"
        file.write_text(json.dumps(first) + "\n" + json.dumps(last) + "\n")
        os.utime(file, (written, written))
    who = {"v": 1, "namespace": "team", "name": "two-stages", "jobUID": "u", "immutableSpecHash": "h", "lineage": 1}
    entries: list[dict[str, Any]] = [{"claim": who | {"attempt": n, "jobSetUID": f"{n}"}} for n in (1, 2, 3)]
    for i, (stage, step) in enumerate(((0, third), (1, steps))):
        boundary = {"stage": stage, "step": step, "rule": f"steps {step}"}
        commit = {"v": 1, "lineage": 1, "step": step, "path": f"steps/{step}", "sha256": "0", "boundary": boundary}
        entries.insert(1 + 2 * i, {"commit": commit})
    for seq, entry in enumerate(entries, 1):
        (folder / f"journal/{seq:010d}.json").write_text(json.dumps(entry))


def sample(step: int, **changes: Any) -> dict[str, Any]:
    return {
        "step": step, "stage": "reason", "item": 7, "place": "data set sums, item 7", "draw": 9, "sample": 2,
        "prompt": "What is 2 + 3?", "response": "17", "tokens": 3, "finish": "end", "extracted": "17", "expected": "5",
        "accuracy": 0.0, "score": 0.0, "status": "ok", "reward": 0.0, "parts": {"accuracy": 0.0},
        "disposition": "trained", "edit": None, **changes,
    }  # fmt: skip
