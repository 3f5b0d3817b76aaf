"""State: the one value that decides the future of a run, and its form in a checkpoint.

Decides what survives. A commit holds complete steps: params, optimizer, where the curriculum stands, what the slots
keep, and the running digest of the metric stream. What is not here must not influence a later step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import jax
import numpy as np

from ratchet_api.canonical import canonical
from ratchet_trainer.algorithm.slots import SlotState
from ratchet_trainer.checkpoints.digests import ON_HOST, PENDING
from ratchet_trainer.errors import CheckpointUnreadable
from ratchet_trainer.model.lora import joined, split, trained
from ratchet_trainer.step import plans
from ratchet_trainer.step.plans import Plan

Plain = dict[str, Any]
SLOTS = "selection/", "expansion/"
"""Where a checkpoint has the arrays of these slots."""
NO_LINES = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class StageState:
    """Where a run stands in its curriculum. `start_step` is the step whose weights the stage starts from; its first
    step is the next one. `windows` keeps the latest values of the metrics that rules watch, as float.hex(). `done` is
    the rule that ended the stage: it is never looked at again, a restart included; `needs_approval`: whether what comes
    after waits for an approval. `generated_tokens`: of all responses that its steps asked for, however often they were
    sampled. `inputs`: digests of what the stage reads (its data set, the tokenizer). `best`: the
    step with the best weights so far and how good they are, as float.hex()."""

    index: int
    name: str
    spec_hash: str
    start_step: int
    updates_at_start: int
    windows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    generated_tokens: int = 0
    done: str | None = None
    needs_approval: bool = False
    inputs: Mapping[str, str] = field(default_factory=dict)
    best: tuple[int, str] | None = None


@dataclass(frozen=True)
class MidStep:
    """A step in the middle of its updates, as `pending` writes it down: host arrays, equal on all processes, and plain
    JSON, of which `miniBatch` says how many mini-batches are behind it."""

    arrays: Mapping[str, np.ndarray]
    control: Plain


@dataclass(frozen=True)
class State:
    """A complete step. `params` and `optimizer` are nested dicts and tuples of global arrays, the rest is plain data.

    next_ordinal: first number that no draw of this run has. critic: its `params` and `optimizer`; reference:
    weights, as far as they are trained, of the step `reference_version`; None in stages whose method has none.
    reference_window: what decides when they are renewed, in this stage.
    metrics_digest: chained SHA-256 of all metric lines so far; lines: those since the last commit. pending: the step
    after `step` has begun; what its updates have moved (params, optimizer, critic, updates) is as they left it.
    curated: stage that made a data set -> SHA-256 of the file with its items. planned: what the next steps are sampled
    with, in their order; none without lag.
    """

    step: int
    updates: int
    next_ordinal: int
    stage: StageState
    params: Any
    optimizer: Any
    selection: SlotState = field(default_factory=SlotState)
    expansion: SlotState = field(default_factory=SlotState)
    critic: Any = None
    reference: Any = None
    reference_version: int | None = None
    reference_window: Plain = field(default_factory=dict)
    metrics_digest: str = NO_LINES
    lines: tuple[bytes, ...] = ()
    pending: MidStep | None = None
    curated: Mapping[str, str] = field(default_factory=dict)
    planned: tuple[Plan, ...] = ()

    @property
    def boundary(self) -> Plain | None:
        """The end of the stage as journal, `/progress` and termination message tell of it; None before it."""
        if self.stage.done is None:
            return None
        ended = {"stage": self.stage.index, "step": self.step, "rule": self.stage.done}
        return ended | ({"needsApproval": True} if self.stage.needs_approval else {})

    @property
    def stage_shown(self) -> Plain:
        """The stage as `/progress` and termination message tell of it."""
        stage = self.stage
        shown = {"name": stage.name, "index": stage.index, "startStep": stage.start_step}
        return shown | {"generatedTokens": stage.generated_tokens}

    @property
    def position(self) -> tuple[int, int]:
        """How far the run is: steps, and mini-batches of the step after them."""
        return self.step, 0 if self.pending is None else self.pending.control["miniBatch"]

    def arrays(self) -> dict[str, jax.Array | np.ndarray]:
        """Flat path -> array: `params/...` (those that are trained), `optimizer/mu/...`, `critic/params/...`,
        `reference/...`, those of the slots, and `pending/...` in the middle of a step."""
        tree = {
            "params": trained(self.params),
            "optimizer": self.optimizer,
            "critic": self.critic,
            "reference": self.reference,
        }
        host = {} if self.pending is None else {f"{PENDING}{k}": v for k, v in self.pending.arrays.items()}
        for name, slot in zip(SLOTS, (self.selection, self.expansion), strict=True):
            host |= {f"{name}{k}": v for k, v in slot.arrays.items()}
        return dict(sorted((flat_paths(tree) | host).items()))

    def recorded(self, metrics: Mapping[str, float]) -> State:
        """The state with a line of these metrics in the metric stream."""
        line = metric_line(self.step, self.stage.name, metrics)
        return replace(self, lines=(*self.lines, line), metrics_digest=chain(self.metrics_digest, line))

    @property
    def whole_reference(self) -> Any:
        """The reference's parameters, frozen ones included; None without one."""
        return None if self.reference is None else joined(self.reference, split(self.params)[1])

    def control(self) -> Plain:
        """Everything but arrays and lines, as plain JSON."""
        stage = asdict(self.stage) | {"windows": {k: list(v) for k, v in self.stage.windows.items()}}
        stage |= {"inputs": dict(self.stage.inputs), "best": self.stage.best and list(self.stage.best)}
        return {
            "step": self.step,
            "updates": self.updates,
            "nextOrdinal": self.next_ordinal,
            "stage": stage,
            "selection": self.selection.plain,
            "expansion": self.expansion.plain,
            "referenceVersion": self.reference_version,
            **({"referenceWindow": self.reference_window} if self.reference_window else {}),
            "metricsDigest": self.metrics_digest,
            **({} if self.pending is None else {"pending": self.pending.control}),
            **({} if not self.curated else {"curated": dict(self.curated)}),
            **({} if not self.planned else {"planned": plans.written(self.planned)}),
        }

    @classmethod
    def restored(cls, arrays: Mapping[str, Any], control: Plain, template: dict[str, Any]) -> State:
        """The state that a checkpoint holds; `template` {params, optimizer, critic, reference} gives structure and
        shapes, None for a part that the stage does not have.

        Raises CheckpointUnreadable if the arrays are not this model's.
        """
        host = {
            prefix: {path.removeprefix(prefix): a for path, a in arrays.items() if path.startswith(prefix)}
            for prefix in ON_HOST
        }
        arrays = {path: a for path, a in arrays.items() if not path.startswith(ON_HOST)}
        wanted = flat_paths(template)
        for path in sorted(wanted.keys() | arrays.keys()):
            have = arrays[path].shape if path in arrays else None
            want = wanted[path].shape if path in wanted else None
            if have != want:
                raise CheckpointUnreadable(
                    f"array {path} is {have or 'absent'} in the checkpoint and {want or 'absent'} in this version's "
                    f"model; resume with the image that wrote it"
                )
        tree = jax.tree_util.tree_map_with_path(lambda path, _: arrays[_name(path)], template)
        stage = control["stage"]
        typed = {
            "windows": {k: tuple(v) for k, v in stage["windows"].items()},
            "best": stage["best"] and tuple(stage["best"]),
        }
        return cls(
            step=control["step"],
            updates=control["updates"],
            next_ordinal=control["nextOrdinal"],
            stage=StageState(**{**stage, **typed}),
            **tree,
            selection=SlotState(control["selection"], host["selection/"]),
            expansion=SlotState(control["expansion"], host["expansion/"]),
            reference_version=control["referenceVersion"],
            reference_window=control.get("referenceWindow", {}),
            metrics_digest=control["metricsDigest"],
            pending=MidStep(host[PENDING], control["pending"]) if "pending" in control else None,
            curated=control.get("curated", {}),
            planned=plans.read(control.get("planned", ())),
        )


def flat_paths(tree: Any) -> dict[str, Any]:
    """Leaves by path, for example `params/blocks/0/attention/input`."""
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def metric_line(step: int, stage: str, metrics: Mapping[str, float]) -> bytes:
    """One line of the metric stream: canonical JSON, numbers as the shortest decimal strings that give them back."""
    shown = {name: repr(float(value)) for name, value in metrics.items()}
    return canonical({"step": step, "stage": stage, "metrics": shown}) + b"\n"


def chain(digest: str, line: bytes) -> str:
    """The digest of a stream after one more line: SHA-256(digest before, line)."""
    return hashlib.sha256(bytes.fromhex(digest) + line).hexdigest()


def params_of(arrays: Mapping[str, Any], template: Any) -> Any:
    """The trained parameters among a checkpoint's arrays; `template` gives structure and shapes. Raises
    CheckpointUnreadable if they are another model's."""
    wanted = flat_paths({"params": template})
    if any(path not in arrays or arrays[path].shape != leaf.shape for path, leaf in wanted.items()):
        raise CheckpointUnreadable("the weights of an earlier step are not those of this model")
    return jax.tree_util.tree_map_with_path(lambda path, _: arrays[_name(path)], {"params": template})["params"]
