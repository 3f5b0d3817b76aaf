"""State: the one value that decides the future of a run, and its form in a checkpoint.

Decides what survives. A commit holds complete steps: params, optimizer, where the curriculum stands, what the slots
keep, and the running digest of the metric stream. What is not here must not influence a later step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import numpy as np

from ratchet_api.canonical import canonical
from ratchet_trainer.checkpoints.digests import PENDING
from ratchet_trainer.errors import CheckpointUnreadable
from ratchet_trainer.model.lora import joined, split, trained

Plain = dict[str, Any]
NO_LINES = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class StageState:
    """Where a run stands in its curriculum. `start_step` is the step whose weights the stage starts from; its first
    step is the next one. `windows` keeps the latest values of the metrics that rules watch, as float.hex(). `done` is
    the rule that ended the stage: it is never looked at again, a restart included. `inputs`: digests of what the stage
    reads (its data set, the tokenizer)."""

    index: int
    name: str
    spec_hash: str
    start_step: int
    updates_at_start: int
    windows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    done: str | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)


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
    metrics_digest: chained SHA-256 of all metric lines so far; lines: those since the last commit. pending: the step
    after `step` has begun; what its updates have moved (params, optimizer, critic, updates) is as they left it.
    """

    step: int
    updates: int
    next_ordinal: int
    stage: StageState
    params: Any
    optimizer: Any
    selection: Plain
    expansion: Plain = field(default_factory=dict)
    critic: Any = None
    reference: Any = None
    reference_version: int | None = None
    metrics_digest: str = NO_LINES
    lines: tuple[bytes, ...] = ()
    pending: MidStep | None = None

    @property
    def position(self) -> tuple[int, int]:
        """How far the run is: steps, and mini-batches of the step after them."""
        return self.step, 0 if self.pending is None else self.pending.control["miniBatch"]

    def arrays(self) -> dict[str, jax.Array | np.ndarray]:
        """Flat path -> array: `params/...` (those that are trained), `optimizer/mu/...`, `critic/params/...`,
        `reference/...`, and `pending/...` in the middle of a step."""
        tree = {
            "params": trained(self.params),
            "optimizer": self.optimizer,
            "critic": self.critic,
            "reference": self.reference,
        }
        pending = {} if self.pending is None else {f"{PENDING}{k}": v for k, v in self.pending.arrays.items()}
        return dict(sorted((flat_paths(tree) | pending).items()))

    @property
    def whole_reference(self) -> Any:
        """The reference's parameters, frozen ones included; None without one."""
        return None if self.reference is None else joined(self.reference, split(self.params)[1])

    def control(self) -> Plain:
        """Everything but arrays and lines, as plain JSON."""
        stage = asdict(self.stage) | {"windows": {k: list(v) for k, v in self.stage.windows.items()}}
        stage["inputs"] = dict(self.stage.inputs)
        return {
            "step": self.step,
            "updates": self.updates,
            "nextOrdinal": self.next_ordinal,
            "stage": stage,
            "selection": self.selection,
            "expansion": self.expansion,
            "referenceVersion": self.reference_version,
            "metricsDigest": self.metrics_digest,
            **({} if self.pending is None else {"pending": self.pending.control}),
        }

    @classmethod
    def restored(cls, arrays: Mapping[str, Any], control: Plain, template: dict[str, Any]) -> State:
        """The state that a checkpoint holds; `template` {params, optimizer, critic, reference} gives structure and
        shapes, None for a part that the stage does not have.

        Raises CheckpointUnreadable if the arrays are not this model's.
        """
        under_way = {path.removeprefix(PENDING): a for path, a in arrays.items() if path.startswith(PENDING)}
        arrays = {path: a for path, a in arrays.items() if not path.startswith(PENDING)}
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
        windows = {k: tuple(v) for k, v in stage["windows"].items()}
        return cls(
            step=control["step"],
            updates=control["updates"],
            next_ordinal=control["nextOrdinal"],
            stage=StageState(**{**stage, "windows": windows}),
            **tree,
            selection=control["selection"],
            expansion=control["expansion"],
            reference_version=control["referenceVersion"],
            metrics_digest=control["metricsDigest"],
            pending=MidStep(under_way, control["pending"]) if "pending" in control else None,
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
