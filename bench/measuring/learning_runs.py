"""One learning run as `ratchet train` makes it, from starting weights that all runs of a task share.

What a short run of a small model takes is its start and its compilations; so weights are made once and compiled
programs are kept in one folder for all, and a checkpoint is made at the end only.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measuring import chain_model, noisy_chain
from measuring.experiments import Experiment
from measuring.noisy_chain import Chain
from measuring.values_error import by_step
from ratchet_api.canonical import sha256
from ratchet_api.job import KIND, RLTrainingJob
from ratchet_api.validate import API_VERSION, problems
from ratchet_api.verifiers import ENV_CONFIG_MAP_FOLDER
from ratchet_trainer.tools.local import TRAINER, Folder, train

TRACES, IMITATED_STEPS, BATCH, RATE = 40_000, 400, 128, "0.003"
HELD_OUT = 128
EVERY = 10
"""Steps between two evaluations."""


class CannotRun(Exception):
    """The manifest is not valid here: the trainer does not know the method (yet)."""


def manifest(name: str, model: Path, datasets: list[dict[str, Any]], stage: dict[str, Any], **spec: Any) -> Any:
    """A job on one core that keeps no rollouts and makes a checkpoint at the end only."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name},
        "spec": {
            "model": {"path": str(model)},
            "datasets": datasets,
            "stages": [stage],
            "samples": {"count": 0},
            "checkpoint": {"directory": "/checkpoints", "everySteps": stage["advance"]["steps"]},
            "placements": [{"name": "here", "cpu": {"hosts": 1}}],
            "podTemplate": {"resources": {"requests": {"cpu": "1"}}},
            **spec,
        },
    }


def run(job: dict[str, Any], folder: Path, cache: Path, command: Sequence[str] = TRAINER) -> float:
    """Trains to the end, or goes on with what is there, and returns the seconds that the last call for it took.
    `command` starts the trainer's process.

    Raises CannotRun for a manifest that is not valid, RuntimeError where training failed.
    """
    if found := problems(job):
        raise CannotRun("; ".join(map(str, found)))
    os.environ[ENV_CONFIG_MAP_FOLDER] = str(Path(__file__).parent)
    began, took = time.monotonic(), folder / "seconds"
    where = Folder(folder, job["metadata"]["name"], RLTrainingJob.model_validate({"spec": job["spec"]}), cache)
    if not where.result().get("finished"):
        code, message = train(where, 1, command=command)
        if code:
            log = (where.local / "process-0.log").read_text()
            raise RuntimeError(f"{folder}: exit code {code}: {message.get('message', '')}\n{log[-3000:]}")
        took.write_text(f"{time.monotonic() - began:.1f}")
    return float(took.read_text())


def starting_weights(chain: Chain, root: Path, cache: Path, steps: int = IMITATED_STEPS) -> Path:
    """A model that answers right with probability q^k: made by imitation, once for a task."""
    place = root / f"chain-k{chain.k}-q{chain.q}-s{chain.seed}-{chain.sure}-{chain.impossible}-{steps}"
    learned = place / "learned"
    if (place / "ready").exists():
        return learned
    shutil.rmtree(place, ignore_errors=True)
    noisy_chain.write(noisy_chain.traces(chain, TRACES), place / "traces.jsonl")
    sft = {
        "dataset": "traces",
        "batchSize": BATCH,
        "maxPromptTokens": 2 * chain.k + 2,
        "maxResponseTokens": chain.k + 1,
        "optimizer": {"learningRate": RATE, "warmupUpdates": 20, "decayUpdates": steps - 20},
    }
    stage = {"name": "imitate", "sft": sft, "advance": {"steps": steps}}
    traces = {"name": "traces", "jsonl": {"path": str(place / "traces.jsonl")}}
    model = chain_model.write(place / "blank", chain.seed)
    run(manifest("imitate", model, [traces], stage, export={"directory": str(learned)}), place / "run", cache)
    (place / "ready").touch()
    return learned


def learning_manifest(experiment: Experiment, variant: str, seed: int, model: Path, data: Path) -> dict[str, Any]:
    """The job of one variant. `data` has the files of `write_data`."""
    chain, hinted = experiment.chain, variant in experiment.hints
    rl = {
        "dataset": "train",
        "maxPromptTokens": 2 * chain.k + 2,
        "maxResponseTokens": chain.k + 1,
        **experiment.rl,
        **experiment.variants[variant],
    }
    names = ["train", "held-out", *(["solved"] if chain.sure else [])]
    datasets = [
        {
            "name": n,
            "jsonl": {"path": str(data / f"{n}.jsonl"), **({"hints": "hints"} if hinted and n == "train" else {})},
        }
        for n in names
    ]
    looked_at = {"everySteps": EVERY, "items": HELD_OUT, "temperature": "1"}
    evaluations = [{"name": n, "dataset": n, **looked_at} for n in names[1:]]
    stage = {"name": "learn", "rl": rl, "advance": {"steps": experiment.steps}}
    return manifest("learn", model, datasets, stage, evaluations=evaluations, seed=seed)


def write_data(experiment: Experiment, folder: Path) -> Path:
    """The sets of an experiment: to train on, held out, and solved from the start where the task has such."""
    chain, ask = experiment.chain, noisy_chain.questions
    noisy_chain.write(ask(chain, "rl", experiment.items, experiment.shares), folder / "train.jsonl")
    noisy_chain.write(ask(chain, "held-out", HELD_OUT, {"noisy": 1.0}), folder / "held-out.jsonl")
    if chain.sure:
        noisy_chain.write(ask(chain, "solved", HELD_OUT, {"sure": 1.0}), folder / "solved.jsonl")
    return folder


def learn(
    experiment: Experiment, variant: str, seed: int, root: Path, imitated: int = IMITATED_STEPS
) -> dict[str, Any]:
    """One run, and what it said: `records` of the committed stream, `rollouts` of each step, `seconds`."""
    cache = root / "cache"
    model = starting_weights(experiment.chain, root / "weights", cache, imitated)
    data = root / "data" / experiment.name
    if not (data / "train.jsonl").exists():
        write_data(experiment, data)
    job = learning_manifest(experiment, variant, seed, model, data)
    # Its folder is named by all that it is made of: with other settings or items it is another run.
    made_of = sha256([job["spec"], (data / "train.jsonl").read_text()])[:8]
    folder = root / experiment.name / f"{variant}-{seed}-{made_of}"
    watched = (sys.executable, str(Path(__file__).with_name("watched_values.py")))
    seconds = run(job, folder, cache, watched if experiment.values else TRAINER)
    return read(folder) | {"seconds": seconds}


def read(folder: Path) -> dict[str, Any]:
    """The committed metrics of a run by step, and how many rollouts each step took, those not trained on included:
    as many as its sampled tokens are responses of its mean length. `values`: states of its first steps, if watched."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    said: dict[int, Mapping[str, Any]] = {r["step"]: r["metrics"] for r in records}
    tokens: dict[int, float] = {}
    for file in sorted((folder / "timings").glob("*.jsonl")):
        for line in map(json.loads, file.read_text().splitlines()):
            tokens[line["step"]] = line.get("generatedTokens", 0)
    rollouts = {s: tokens.get(s, 0) / max(1.0, float(m.get("train/response_tokens", 1))) for s, m in said.items()}
    values = folder / "values.jsonl"
    states = by_step([json.loads(line) for line in values.read_text().splitlines()]) if values.exists() else {}
    return {"records": said, "rollouts": rollouts, "values": states}
