"""What a checkpoint folder holds, for people and programs that look at a run from outside: JSON on standard output.

    python -m ratchet_trainer.tools.inspect_run hashes DIR             hashes of the newest state that verifies
    python -m ratchet_trainer.tools.inspect_run curve DIR              [[step, train/accuracy], ...] of committed steps
    python -m ratchet_trainer.tools.inspect_run accuracy MANIFEST DIR  accuracy on held-out items, before rl and after

DIR is a path, gs:// or s3://.

Only reads: it claims nothing, so a run in progress is not disturbed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from ratchet_api.job import RLTrainingJob, Spec
from ratchet_trainer.checkpoints.checkpoint import Checkpoints, stream_of
from ratchet_trainer.checkpoints.journal import Commit
from ratchet_trainer.checkpoints.trusted_step import Content
from ratchet_trainer.errors import CheckpointUnreadable
from ratchet_trainer.storage import Location

ITEMS = 256


def newest(
    folder: Location, where: str = "it", chosen: Any = lambda commit: True
) -> tuple[Commit, dict[str, Any], Content]:
    """The best `chosen` commit, its proof and its content, every digest recomputed. Raises CheckpointUnreadable."""
    checkpoints = Checkpoints(folder, tag="", keep=0, identity={})
    checkpoints.journal.read()
    for commit in checkpoints.candidates():
        if chosen(commit) and (proof := checkpoints.read_proof(commit)) is not None:
            content = checkpoints.read(commit, proof)
            if content is not None:
                return commit, proof, content
    raise CheckpointUnreadable(f"{folder}: no state of {where} can be read")


def hashes(folder: Location) -> dict[str, Any]:
    """`{step, weightsSha256, stateSha256, metricsSha256}` of the newest state, and `miniBatch` in the middle of a
    step."""
    commit, proof, content = newest(folder, "any step")
    found = {"step": commit.step, "weightsSha256": proof["weightsSha256"], "stateSha256": proof["stateSha256"]}
    under_way = {k: v for k, v in content.control.get("pending", {}).items() if k == "miniBatch"}
    return found | {"metricsSha256": content.control["metricsDigest"]} | under_way


def curve(folder: Location) -> list[tuple[int, float]]:
    """(step, train/accuracy) of every committed step that has one."""
    lines = map(json.loads, filter(bytes.strip, stream_of(folder).read().splitlines()))
    name = "train/accuracy"
    return [(line["step"], float(line["metrics"][name])) for line in lines if name in line["metrics"]]


def accuracy(spec: Spec, folder: Location) -> dict[str, float]:
    """`{start, end}`: share of right answers on held-out items of the last stage that trains, temperature 1.

    `start` is the pinned last state of the stage before the first `rl` stage. Raises CheckpointUnreadable when there is
    no such stage, since nothing was committed before it.
    """
    from ratchet_trainer.tools.evaluate import evaluate_checkpoint

    first = next(i for i, stage in enumerate(spec.stages) if stage.rl is not None)
    before = newest(
        folder,
        f"the stage before {spec.stages[first].name}",
        lambda commit: commit.boundary is not None and commit.boundary["stage"] == first - 1,
    )
    states = {"start": before[2], "end": newest(folder)[2]}
    last = next(stage for stage in reversed(spec.stages) if stage.curate is None)
    dataset = spec.origin(last.dataset_names[0]).name
    return {when: evaluate_checkpoint(spec, content, dataset, ITEMS) for when, content in states.items()}


def main(arguments: list[str]) -> None:
    """The command line above."""
    if len(arguments) == 2 and arguments[0] in ("hashes", "curve"):
        found: Any = {"hashes": hashes, "curve": curve}[arguments[0]](Location.parse(arguments[1]))
    elif len(arguments) == 3 and arguments[0] == "accuracy":
        job = RLTrainingJob.model_validate({"spec": yaml.safe_load(Path(arguments[1]).read_text())["spec"]})
        found = accuracy(job.spec, Location.parse(arguments[2]))
    else:
        sys.exit(__doc__)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
