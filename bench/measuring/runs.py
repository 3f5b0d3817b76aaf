"""A run of the trainer as `ratchet train` makes one, and what its own books say of the time a step took.

Everything is there that a real step has: selection, generation, verification, advantage, update, metrics, safe points
and the broadcasts between processes. Checkpoints are made at the end only, as nothing they are compared with makes any.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import work
from ratchet_api.job import RLTrainingJob
from ratchet_api.protocol import ENV_GRACE_SECONDS
from ratchet_trainer.tools.local import PACE_SECONDS, Folder, Gang

WARM_UP = 4
"""Steps that do not count."""


@dataclass(frozen=True)
class Times:
    """Seconds of every step and of its parts: until all tokens are on the host, and from the judged rollouts to the new
    weights (nothing where it is not known). `processor`: those for which threads ran in a step, of all processes; they
    hardly depend on other load."""

    generate: list[float]
    update: list[float]
    step: list[float]
    processor: list[float]


def cores() -> list[int]:
    """The two processors that everything is measured on."""
    return sorted(os.sched_getaffinity(0))[:2]


def run(
    model: Path,
    folder: Path,
    /,
    steps: int,
    processes: int = 1,
    devices: int = 1,
    warm_up: int = WARM_UP,
    tokens: int = work.TOKENS,
    **spec: Any,
) -> Times:
    """Makes so many steps of the work in a new folder, by one process on all of `cores`, or by one on each, of so many
    devices each; `spec` replaces parts of the manifest. Compiled programs are kept beside the model, for the runs that
    follow. `warm_up`: steps that do not count; `tokens`: that each of the others must have made."""
    places = [cores()] if processes == 1 else [[core] for core in cores()[:processes]]
    job = RLTrainingJob.model_validate(_manifest(model, steps, len(places[0]), spec))
    where = Folder(folder, "bench", job, model.parent / "cache")
    os.environ[ENV_GRACE_SECONDS] = "3600"  # however long an update takes, no step is committed for fear of the notice
    os.environ["BENCH_CORES"] = ";".join(",".join(map(str, place)) for place in places)
    command = sys.executable, str(Path(__file__).with_name("pinned.py"))
    gang = Gang.start(where, len(places), command=command, pace=PACE_SECONDS, devices=devices)
    try:
        codes = gang.wait()
    finally:
        gang.end()
    if any(codes):
        log = (where.local / "process-0.log").read_text()
        raise RuntimeError(f"the trainer ended with {codes}:\n{log[-4000:]}")
    return _read(folder, warm_up, tokens)


def _manifest(model: Path, steps: int, cpu: int, spec: dict[str, Any]) -> dict[str, Any]:
    rl = {
        "dataset": "questions",
        "method": "grpo",
        "promptsPerStep": work.PROMPTS,
        "groupSize": work.SAMPLES,
        "maxPromptTokens": work.PROMPT_TOKENS,
        "maxResponseTokens": work.RESPONSE_TOKENS,
        "optimizer": {"learningRate": work.LEARNING_RATE},
    }
    return {
        "apiVersion": "ratchet.dev/v1alpha1",
        "kind": "RLTrainingJob",
        "metadata": {"name": "bench"},
        "spec": {
            "model": {"path": str(model)},
            "datasets": [{"name": "questions", "jsonl": {"path": str(model / "questions.jsonl")}}],
            "stages": [{"name": "reason", "rl": rl, "advance": {"steps": steps}}],
            "checkpoint": {"directory": "/checkpoints", "everySteps": steps},
            "placements": [{"name": "cpu", "cpu": {"hosts": 1}}],
            "podTemplate": {"resources": {"requests": {"cpu": str(cpu)}}},
            **spec,
        },
    }


def _read(folder: Path, warm_up: int, tokens: int) -> Times:
    """What a run's books say of the steps after the first."""
    (timings,) = (folder / "timings").glob("*.jsonl")
    steps = [json.loads(line) for line in timings.read_text().splitlines()][warm_up:]
    if any(step["skippedUpdates"] or step["generatedTokens"] != tokens for step in steps):
        raise RuntimeError("not every step did all of the work")
    spent = [json.loads(file.read_bytes())[warm_up:] for file in sorted((folder / "local").glob("spent-*.json"))]
    part = lambda name: [step[name] for step in spent[0]]  # noqa: E731
    processor = [sum(step["processor"] for step in of_all) for of_all in zip(*spent, strict=True)]
    return Times(part("generate"), part("update"), [step["seconds"] for step in steps], processor)
