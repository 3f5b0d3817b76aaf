"""A step in the middle of its updates: all that decides the rest of it, and its form in a checkpoint.

Decides what is kept when a process must leave after weights have moved and before the step is done: what was sampled
and judged, what it is worth, what the models said of it before the first update, which mini-batch is next, and what the
updates so far reported; not what the clock said. Whether a step is finished or left is `run`'s matter, when a state is
committed `commits`'.

Numbers of every row and token are arrays of the checkpoint, [R, T] without the dummies of a layout; the rest is plain
data, floats as float.hex().
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.slots import SlotState
from ratchet_trainer.algorithm.types import Batch, Draw, Group, Outcome, Request, Rollout, StepSamples
from ratchet_trainer.data.prompt import Prompt
from ratchet_trainer.step.old_logprobs import MiniBatch, mini_batches
from ratchet_trainer.step.stage import Stage
from ratchet_trainer.step.state import MidStep

Plain = dict[str, Any]
Metrics = dict[str, float]
MODELS = ("old", "reference")
"""Fields of MiniBatch: whose log-probabilities these are."""


@dataclass(frozen=True)
class Pending:
    """What the rest of a step needs besides the state. `samples` are scored and have their dispositions; `selection`
    and `expansion` stand as after sampling; `drawn` counts the step's draws. `done`: mini-batches that are behind it;
    `updates` and `values`, what those reported, the policy's and the critic's (None without one)."""

    samples: StepSamples
    selection: SlotState
    expansion: SlotState
    drawn: int
    batch: Batch
    parts: Sequence[MiniBatch]
    done: int = 0
    updates: tuple[Metrics, ...] = ()
    values: tuple[Metrics, ...] | None = None

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
    rollouts = [r for g in groups for r in g.rollouts]
    batch, learner, slots = pending.batch, stage.programs.learner, stage.layout.response_slots
    arrays = {
        "response": _padded([np.array(r.response, np.int32) for r in rollouts], slots),
        "behaviour": _padded([r.behaviour_logp for r in rollouts], slots),
        "entropy": _padded([r.entropy for r in rollouts], slots),
    }
    if batch.rollouts:  # an array without elements is not kept
        numbers = {"advantages": batch.advantages, "returns": batch.returns, "values": batch.values}
        arrays |= {k: v for k, v in numbers.items() if v is not None}
    for name in MODELS:
        said = [getattr(part, name) for part in pending.parts]
        if said and said[0] is not None:
            laid_out = zip(said, pending.parts, strict=True)
            rows = [learner.on_host(x, stage.layout_of(part.rows), part.rows) for x, part in laid_out]
            arrays[name] = np.concatenate(rows).astype(said[0].dtype)
    asked = {(r.request, r.prompt, r.trained_prompt): None for r in rollouts}
    index = {key: i for i, key in enumerate(asked)}
    for name, slot in {"selection": pending.selection, "expansion": pending.expansion}.items():
        arrays |= {f"{name}/{key}": value for key, value in slot.arrays.items()}
    return MidStep(
        arrays,
        {
            "miniBatch": pending.done,
            "selection": pending.selection.plain,
            "expansion": pending.expansion.plain,
            "drawn": pending.drawn,
            "updates": [_hex(found) for found in pending.updates],
            "values": None if pending.values is None else [_hex(found) for found in pending.values],
            "trained": len(pending.samples.trained),
            "asked": [
                [asdict(request), asdict(prompt), None if plain == prompt else asdict(plain)]
                for request, prompt, plain in asked
            ],
            "groups": [
                {
                    "draw": asdict(group.draw),
                    "disposition": group.disposition,
                    "rewards": [float(reward).hex() for reward in group.rewards],
                    "parts": {name: [value.hex() for value in values] for name, values in group.parts.items()},
                    "rollouts": [_rollout(r, index[r.request, r.prompt, r.trained_prompt]) for r in group.rollouts],
                }
                for group in groups
            ],
        },
    )


def taken_up(kept: MidStep, stage: Stage) -> Pending:
    """What `written` wrote down, for the devices that there are now."""
    arrays, control = kept.arrays, kept.control
    asked = [(_request(request), _prompt(shown), _prompt(plain or shown)) for request, shown, plain in control["asked"]]
    numbers = zip(arrays["response"], arrays["behaviour"], arrays["entropy"], strict=True)

    def rollout(plain: Plain) -> Rollout:
        request, shown, trained_prompt = asked[plain["asked"]]
        response, behaviour, entropy = next(numbers)
        return _back(request, shown, trained_prompt, plain, response, behaviour, entropy)

    groups = [
        Group(
            Draw(**group["draw"]),
            tuple(map(rollout, group["rollouts"])),
            tuple(map(float.fromhex, group["rewards"])),
            {name: tuple(map(float.fromhex, values)) for name, values in group["parts"].items()},
            group["disposition"],
        )
        for group in control["groups"]
    ]
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
        control["miniBatch"],
        tuple(map(_floats, control["updates"])),
        None if values is None else tuple(map(_floats, values)),
    )


def _padded(rows: Iterable[np.ndarray], slots: int) -> np.ndarray:
    return np.stack([np.pad(row, (0, slots - len(row))) for row in rows])


def _hex(numbers: Mapping[str, float]) -> dict[str, str]:
    return {name: float(value).hex() for name, value in numbers.items()}


def _floats(numbers: Mapping[str, str]) -> dict[str, float]:
    return {name: float.fromhex(value) for name, value in numbers.items()}


def _rollout(rollout: Rollout, asked: int) -> Plain:
    outcome = rollout.outcome
    exact = _hex({"accuracy": outcome.accuracy, "score": outcome.score}) | {"parts": _hex(outcome.parts)}
    return {
        "asked": asked,
        "length": len(rollout.response),
        "sample": rollout.sample,
        "version": rollout.version,
        "finish": rollout.finish,
        "forced": rollout.forced,
        "outcome": asdict(outcome) | exact,
    }


def _back(
    request: Request,
    prompt: Prompt,
    trained_prompt: Prompt,
    plain: Plain,
    response: np.ndarray,
    behaviour: np.ndarray,
    entropy: np.ndarray,
) -> Rollout:
    length, outcome = plain["length"], plain["outcome"]
    exact = _floats({name: outcome[name] for name in ("accuracy", "score")}) | {"parts": _floats(outcome["parts"])}
    return Rollout(
        request,
        prompt,
        trained_prompt,
        plain["sample"],
        tuple(response[:length].tolist()),
        behaviour[:length],
        entropy[:length],
        plain["version"],
        plain["finish"],
        Outcome(**outcome | exact),
        plain["forced"],
    )


def _request(plain: Plain) -> Request:
    typed = {"draw": Draw(**plain["draw"]), "purpose": Purpose(plain["purpose"]), "prefix": tuple(plain["prefix"])}
    return Request(**plain | typed)


def _prompt(plain: Plain) -> Prompt:
    return Prompt(**plain | {"tokens": tuple(plain["tokens"])})


def _slot(plain: Plain, name: str, arrays: Mapping[str, np.ndarray]) -> SlotState:
    own = {k.removeprefix(f"{name}/"): v for k, v in arrays.items() if k.startswith(f"{name}/")}
    return SlotState(plain, own)
