"""What the demo proves, and from what: status, checkpoints and an undisturbed twin.

Every figure is read from what the run left behind; the trainer computes hashes and accuracies, in processes of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PARTS = ("detect", "drain", "fence", "place", "start", "restore", "compile", "step")


def figures(job: dict[str, Any], strikes: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures that status and the strikes give: everything but hashes and accuracy."""
    status = job["status"]
    counters = status["counters"]
    disturbed = {record["number"]: record for record in status.get("attempts", [])}
    recoveries = []
    for strike in strikes:
        record = disturbed.get(strike["attempt"], {})
        parts = record.get("recovery", {})
        recoveries.append(
            {"kind": strike["kind"], "stepsLost": record.get("stepsLost", 0)}
            | {part: float(parts[part]) if part in parts else None for part in PARTS}
        )
    return {
        "phase": status["phase"],
        "stages": [{k: stage.get(k) for k in ("name", "startStep", "endStep", "rule")} for stage in status["stages"]],
        "attempts": counters["attempts"],
        "preemptions": counters.get("preemptions", 0),
        "stepsLost": counters.get("stepsLost", 0),
        "recoverySeconds": [round(s["seconds"], 3) for s in strikes if s["kind"] == "graceful" and "seconds" in s],
        "recoveries": recoveries,
    }


def undisturbed(manifest: Path, workdir: Path, cache: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Trains the manifest without Kubernetes and without disturbance; the JSON of `ratchet train`.

    It starts at step 0 with nothing of the other run but its compiled programs (`cache`), which saves time.
    """
    out = workdir.with_suffix(".json")
    command = [sys.executable, "-m", "ratchet_cli.main", "train", str(manifest), "--workdir", str(workdir)]
    command += ["--json", str(out)]
    # Pods know nothing of this shell. Flags of the compiler that it has would give the twin other programs, and bits.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment["RATCHET_COMPILATION_CACHE"] = str(cache)
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, check=False
    )
    if done.returncode:
        raise RuntimeError("the undisturbed run failed:\n" + "\n".join(done.stdout.splitlines()[-20:]))
    found: dict[str, Any] = json.loads(out.read_text())
    say(f"  step {found['step']}, stage {found['stage']}, weights {found['weightsSha256']}")
    return found


def weights(checkpoints: Path) -> str:
    """weightsSha256 of the newest committed step in a checkpoint folder."""
    return str(_trainer("hashes", str(checkpoints))["weightsSha256"])


def accuracy(manifest: Path, checkpoints: Path) -> dict[str, float]:
    """Accuracy on 256 held-out items of the last stage, before the first `rl` stage and at the end."""
    found: dict[str, float] = _trainer("accuracy", str(manifest), str(checkpoints))
    return found


def curve(checkpoints: Path) -> list[tuple[int, float]]:
    """(step, train/accuracy) of every step that has one, from the committed metric stream."""
    return [(int(step), float(value)) for step, value in _trainer("curve", str(checkpoints))]


def remove(folder: Path) -> None:
    """The demo's files are its own; they go with it."""
    shutil.rmtree(folder, ignore_errors=True)


def _trainer(*arguments: str) -> Any:
    """Asks the trainer in a process of its own: JAX never gets into this one."""
    done = subprocess.run(
        [sys.executable, "-m", "ratchet_trainer.tools.inspect_run", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"inspecting the run failed: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)
