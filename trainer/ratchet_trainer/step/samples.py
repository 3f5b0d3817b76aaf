"""Rollouts that are kept to be read by people: `samples/STEP.jsonl` in the checkpoint directory, one line a rollout.

Decides which steps and which rollouts are kept, and what is said of each. Nothing depends on these files: a step that
is made again writes the same, one that cannot be written is said in the log and costs nothing else.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet_trainer import storage
from ratchet_trainer.data import items
from ratchet_trainer.data.mixture import Mixture
from ratchet_trainer.storage import Location

if TYPE_CHECKING:
    from ratchet_trainer.algorithm.types import Group, Rollout, StepSamples
    from ratchet_trainer.process.runtime import Runtime
    from ratchet_trainer.step.stage import Stage

log = logging.getLogger(__name__)

FOLDER = "samples"
FIRST_STEPS = 2
"""So many steps of a stage are kept whatever the rhythm: what goes wrong is mostly to be seen at once."""
KEPT_FILES = 500
LONGEST = 20_000
"""Characters of a text that are kept."""


class SampleBook:
    """Keeps the rollouts of some steps."""

    def __init__(self, runtime: Runtime):
        self.runtime = runtime
        self.folder = Location.parse(runtime.job.spec.checkpoint.directory) / FOLDER

    def keep(self, stage: Stage, start_step: int, step: int, samples: StepSamples, *, anyway: bool = False) -> None:
        """Writes a step's rollouts if it is due, or `anyway`. Process 0 alone does anything."""
        settings, made = self.runtime.job.spec.samples, step - start_step
        due = anyway or made <= FIRST_STEPS or made % settings.every_steps == 0 or made == stage.spec.advance.steps
        if self.runtime.process != 0 or not due or settings.count == 0:
            return
        decode = stage.programs.tokenizer.decode
        lines = [
            line_of(step, stage.spec.name, group, rollout, decode(rollout.response), place_of(stage.source, group))
            for group in samples.groups[: settings.count]
            for rollout in best_and_worst(group)
        ]
        self._write(f"{step:08d}.jsonl", lines)

    def _write(self, name: str, lines: Sequence[dict[str, Any]]) -> None:
        try:
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            storage.write(self.folder / name, text.encode(), durable=False)
            for old in [n for n in storage.names(self.folder) if n.endswith(".jsonl")][:-KEPT_FILES]:
                storage.delete(self.folder / old)
        except (OSError, UnicodeError) as error:
            log.warning("samples are not kept: %s: %s", self.folder / name, error)


def best_and_worst(group: Group) -> list[Rollout]:
    """The first rollout with the highest reward and the first with the lowest; one where all have the same."""
    rewards = group.rewards
    best, worst = rewards.index(max(rewards)), rewards.index(min(rewards))
    return [group.rollouts[i] for i in dict.fromkeys((best, worst))]


def place_of(source: Any, group: Group) -> str:
    """Data set and place of a group's item, for people."""
    item = group.draw.item
    return str(source.place(item)) if isinstance(source, Mixture) else items.place_of(source, item)


def line_of(step: int, stage: str, group: Group, rollout: Rollout, response: str, place: str) -> dict[str, Any]:
    """What is said of a rollout, as plain JSON. `place`: of its item, for people."""
    i, outcome = next(i for i, r in enumerate(group.rollouts) if r is rollout), rollout.outcome
    return {
        "step": step,
        "stage": stage,
        "item": group.draw.item,
        "place": place,
        "draw": group.draw.ordinal,
        "sample": rollout.sample,
        "prompt": rollout.prompt.question[:LONGEST],
        "response": response[:LONGEST],
        "tokens": len(rollout.response),
        "finish": rollout.finish,
        "extracted": outcome.extracted,
        "expected": rollout.prompt.answer[:LONGEST],
        "accuracy": outcome.accuracy,
        "score": outcome.score,
        "status": outcome.status,
        "reward": group.rewards[i],
        "parts": {name: values[i] for name, values in group.parts.items()},
        "disposition": group.disposition,
        "edit": rollout.request.edit,
    }


def read(folder: Location | Path, step: int | None = None) -> list[dict[str, Any]]:
    """The kept rollouts of a step, or of the newest one; none where there is no file. `folder`: of the checkpoints."""
    wanted = steps(folder)[-1:] if step is None else [step]
    files = [storage.read(Location.parse(folder) / FOLDER / f"{number:08d}.jsonl") for number in wanted]
    return [json.loads(line) for data in files if data is not None for line in data.decode().split("\n") if line]


def steps(folder: Location | Path) -> list[int]:
    """Steps whose rollouts are kept."""
    names = [name.removesuffix(".jsonl") for name in storage.names(Location.parse(folder) / FOLDER)]
    return sorted(int(name) for name in names if name.isdigit())
