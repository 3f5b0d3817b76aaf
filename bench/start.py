"""The start of a trainer whose programs are all in the cache: from the start of its process to its first new step.

    python bench/start.py [--rounds N] [--against CHECKOUT] [--processes N] [--profile] [--json FILE]

Starts `python -m ratchet_trainer` again and again on one checkpoint directory, preset `tiny`, each time for one more
step. With `--against` the trainer of another checkout of the repository is started in turns with this one's, in a
folder of its own, so that other load on the machine meets both; ratios are of one round. Printed are the medians of the
parts that the trainer says itself (start, restore, compile, step) and of the CPU time of its process, which load
changes least. `--profile` prints which imports of the start take longest, instead.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ratchet_api.job import RLTrainingJob
from ratchet_trainer.tools.local import Folder, Gang

ROOT = Path(__file__).parents[1]
PACKAGES = ("crds", "trainer")
SAID = re.compile(r"first step done (\d+) ms after the start of the process \((\d+) ms of CPU\): (\{.*\})")
PARTS = ("start", "restore", "compile", "step", "total", "cpu")
WARM_UP = 2
"""Starts before the first that counts: one compiles, and one finds what was compiled."""
SLOWEST = 40


def job() -> RLTrainingJob:
    rl = {"method": "grpo", "promptsPerStep": 8, "groupSize": 8, "maxPromptTokens": 33, "maxResponseTokens": 3}
    sums = {"min_terms": 3, "max_terms": 3, "min_digits": 1, "max_digits": 1, "operators": ["+"]}
    task = {"task": "basic_arithmetic", "size": 800, "config": {**sums, "allow_parentheses": False}}
    return RLTrainingJob.model_validate(
        {
            "spec": {
                "model": {"preset": "tiny"},
                "datasets": [{"name": "sums", "reasoningGym": task}],
                "stages": [{"name": "reason", "rl": {"dataset": "sums", **rl}, "advance": {"steps": 1000000}}],
                "checkpoint": {"directory": "/replaced", "everySteps": 1},
                "placements": [{"name": "here", "cpu": {"hosts": 1}}],
            }
        }
    )


def start(checkout: Path, folder: Folder, processes: int) -> dict[str, float]:
    """One attempt of one step by the trainer of a checkout; seconds of its parts, as it has logged them."""
    commit = folder.last_commit()
    os.environ["PYTHONPATH"] = os.pathsep.join(str(checkout / package) for package in PACKAGES)
    log = folder.local / "process-0.log"
    log.unlink(missing_ok=True)
    gang = Gang.start(folder, processes, 1 + (commit.step if commit else 0))
    codes = gang.wait(600)
    found = SAID.search(log.read_text())
    if found is None:
        gang.end()
        raise SystemExit(f"{checkout}: no step was made, exit codes {codes}:\n{log.read_text()[-2000:]}")
    total, cpu = (int(found[i]) / 1e3 for i in (1, 2))
    return {**json.loads(found[3].replace("'", '"')), "total": total, "cpu": cpu}


def imports(checkout: Path) -> None:
    """What the imports of a whole run take by themselves, the slowest first."""
    paths = os.pathsep.join(str(checkout / package) for package in PACKAGES)
    command = [sys.executable, "-X", "importtime", "-c", "import ratchet_trainer.app, jax, ratchet_trainer.run"]
    text = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": paths}, check=True, capture_output=True, text=True
    ).stderr
    rows = [line.removeprefix("import time:").split("|") for line in text.splitlines() if line.count("|") == 2]
    slow = sorted(((int(own), name.strip()) for own, _, name in rows if own.strip().isdigit()), reverse=True)
    print(f"{sum(own for own, _ in slow) / 1e3:.0f} ms, {len(slow)} modules")
    for own, name in slow[:SLOWEST]:
        print(f"{own / 1e3:8.1f} ms  {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--against", type=Path, help="another checkout of this repository")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.profile:
        imports(ROOT)
        return
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as in an image: there is bytecode, and no start compiles sources
    checkouts = {"this": ROOT, **({"against": arguments.against.absolute()} if arguments.against else {})}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory(prefix="ratchet-bench-") as path:
        folders = {name: Folder(Path(path) / name, "start", job(), Path(path) / name / "cache") for name in checkouts}
        for number in range(-WARM_UP, arguments.rounds):
            for name, checkout in checkouts.items():
                parts = start(checkout, folders[name], arguments.processes)
                if number >= 0:
                    found[name].append(parts)
                print(f"{name:8} {shown(parts)}; load {os.getloadavg()[0]:.1f}", flush=True)
    result: dict[str, Any] = {
        name: {p: statistics.median(row[p] for row in rows) for p in PARTS} for name, rows in found.items()
    }
    for name, medians in result.items():
        print(f"{name:8} {shown(medians)} (medians)")
    if "against" in found:
        pairs = list(zip(found["this"], found["against"], strict=True))
        result["ratios"] = {p: statistics.median(a[p] / b[p] for a, b in pairs) for p in PARTS}
        print(f"this / against: {shown(result['ratios'], '')}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rounds": found, **result}, indent=2) + "\n")


def shown(parts: dict[str, float], unit: str = " s") -> str:
    return ", ".join(f"{part} {parts[part]:.2f}{unit}" for part in PARTS)


if __name__ == "__main__":
    main()
