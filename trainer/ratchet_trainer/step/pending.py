"""A step in the middle of its updates: all that decides the rest of it, and its form in a checkpoint.

Decides what is kept when a process must leave after weights have moved and before the step is done: what was sampled
and judged, what it is worth, what the models said of it before the first update, which mini-batch is next, and what the
updates so far reported; not what the clock said. Whether a step is finished or left is `run`'s matter, when a state is
committed `commits`'.

Numbers of every row and token are arrays of the checkpoint, [R, T] without the dummies of a layout; the rest is plain
data, floats as float.hex(). The form of what was sampled is in `algorithm.group_form`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ratchet_trainer.algorithm import group_form
from ratchet_trainer.algorithm.group_form import floats, in_hex
from ratchet_trainer.algorithm.slots import SlotState
from ratchet_trainer.algorithm.types import Batch, StepSamples
from ratchet_trainer.step import plans
from ratchet_trainer.step.old_logprobs import MiniBatch, mini_batches
from ratchet_trainer.step.plans import Plan
from ratchet_trainer.step.stage import Stage
from ratchet_trainer.step.state import MidStep

Plain = dict[str, Any]
Metrics = dict[str, float]
MODELS = ("old", "reference")
"""Fields of MiniBatch: whose log-probabilities these are."""


@dataclass(frozen=True)
class Pending:
    """What the rest of a step needs besides the state. `samples` are scored and have their dispositions; `selection`
    and `expansion` stand as after sampling; `planned`: plans of later steps; `drawn` counts the draws of the step's
    turn, also of later steps that it planned, `generated` the tokens that were sampled for the step. `done`:
    mini-batches that are behind it; `updates` and `values`, what those reported, the policy's and the critic's (None
    without one)."""

    samples: StepSamples
    selection: SlotState
    expansion: SlotState
    drawn: int
    batch: Batch
    parts: Sequence[MiniBatch]
    generated: int
    done: int = 0
    updates: tuple[Metrics, ...] = ()
    values: tuple[Metrics, ...] | None = None
    planned: tuple[Plan, ...] = ()

    @property
    def left(self) -> Sequence[MiniBatch]:
        return self.parts[self.done :]

    @property
    def calls(self) -> int:
        """How often an optimizer was called."""
        return len(self.updates) + len(self.values or ())


def written(pending: Pending, stage: Stage) -> MidStep:
    """The form in a checkpoint, equal on every process. *Collective.*"""
    groups = (*pending.samples.trained, *pending.samples.dropped)
    batch, learner, slots = pending.batch, stage.programs.learner, stage.layout.response_slots
    plain, arrays = group_form.written(groups, slots)
    if batch.rollouts:  # an array without elements is not kept
        numbers = {"advantages": batch.advantages, "returns": batch.returns, "values": batch.values}
        arrays |= {k: v for k, v in numbers.items() if v is not None}
    for name in MODELS:
        said = [getattr(part, name) for part in pending.parts]
        if said and said[0] is not None:
            laid_out = zip(said, pending.parts, strict=True)
            rows = [learner.on_host(x, stage.layout_of(part.rows), part.rows) for x, part in laid_out]
            arrays[name] = np.concatenate(rows).astype(said[0].dtype)
    for name, slot in {"selection": pending.selection, "expansion": pending.expansion}.items():
        arrays |= {f"{name}/{key}": value for key, value in slot.arrays.items()}
    return MidStep(
        arrays,
        {
            "miniBatch": pending.done,
            "selection": pending.selection.plain,
            "expansion": pending.expansion.plain,
            "drawn": pending.drawn,
            "generated": pending.generated,
            "updates": [in_hex(found) for found in pending.updates],
            "values": None if pending.values is None else [in_hex(found) for found in pending.values],
            "trained": len(pending.samples.trained),
            **({} if not pending.planned else {"planned": plans.written(pending.planned)}),
            **plain,
        },
    )


def taken_up(kept: MidStep, stage: Stage) -> Pending:
    """What `written` wrote down, for the devices that there are now."""
    arrays, control = kept.arrays, kept.control
    groups = group_form.read(control, arrays)
    samples = StepSamples(tuple(groups[: control["trained"]]), tuple(groups[control["trained"] :]))
    rollouts = samples.rollouts
    said, parts = [arrays.get(name) for name in MODELS], []
    for part in mini_batches(rollouts, stage.rl.updates_per_step, stage.rows_per_update):
        fill = stage.layout_of(part.rows).fill
        old, reference = (None if x is None else fill(x[part.place]) for x in said)
        parts.append(replace(part, old=old, reference=reference))
    values, nothing = control["values"], np.zeros((0, stage.layout.response_slots))
    return Pending(
        samples,
        _slot(control["selection"], "selection", arrays),
        _slot(control["expansion"], "expansion", arrays),
        control["drawn"],
        Batch(rollouts, arrays.get("advantages", nothing), arrays.get("returns"), arrays.get("values")),
        parts,
        control.get("generated", 0),  # absent in what a version without budgets left
        control["miniBatch"],
        tuple(map(floats, control["updates"])),
        None if values is None else tuple(map(floats, values)),
        plans.read(control.get("planned", ())),
    )


def _slot(plain: Plain, name: str, arrays: Mapping[str, np.ndarray]) -> SlotState:
    own = {k.removeprefix(f"{name}/"): v for k, v in arrays.items() if k.startswith(f"{name}/")}
    return SlotState(plain, own)
