"""The document: what `ratchet status JOB -o json` prints, and all that the screen is drawn from.

Decides its shape; schema: `ratchet_cli/schemas/job-status.json`. What is not known is absent. Times are those of the
API server, spans are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any


@dataclass(frozen=True)
class StageView:
    """A stage of the spec: `state` is done, current or ahead; `kind` sft, curate or the method of rl."""

    name: str
    kind: str
    state: str
    limit: int | None = None
    start_step: int | None = None
    end_step: int | None = None
    rule: str | None = None
    needs_approval: bool = False
    approved: bool = False


@dataclass(frozen=True)
class AttemptView:
    """The attempt that runs or is being started."""

    number: int
    placement: str | None = None
    pods_ready: int | None = None
    pods_total: int | None = None
    age_seconds: float | None = None
    verdict: str | None = None
    evidence: str | None = None


@dataclass(frozen=True)
class PodView:
    """A pod of the present attempt, or one that an earlier one has left; `problem`: why it does not run."""

    name: str
    attempt: int | None
    slice: int | None
    host: int | None
    node: str | None
    phase: str
    ready: bool
    ending: bool = False
    problem: str | None = None


@dataclass(frozen=True)
class PlaceView:
    """Where it runs, or is to run: one placement of the spec."""

    placement: str
    capacity: str | None = None
    accelerator: str | None = None
    topology: str | None = None
    slices: int = 1
    hosts: int | None = None
    chips: int | None = None


@dataclass(frozen=True)
class ProgressView:
    """How far, and how fast. `source` is `trainer` where the leader itself answered, else `status`."""

    source: str
    step: int | None = None
    target_step: int | None = None
    share: float | None = None
    doing: str | None = None
    tokens_per_second: float | None = None
    steps_per_second: float | None = None
    seconds_left: float | None = None
    said_seconds_ago: float | None = None


@dataclass(frozen=True)
class LearningView:
    """The condition Learning, the latest reward and accuracy, and curves of metric -> [step, value] where they can be
    read from here."""

    status: str
    reason: str | None = None
    message: str | None = None
    reward: float | None = None
    accuracy: float | None = None
    curves: dict[str, list[tuple[int, float]]] | None = None


@dataclass(frozen=True)
class Wait:
    """Something that keeps the job from its next step, or speaks against it, and what to do about it. `level` is
    error (the job will not go on by itself), wait (it will) or note."""

    level: str
    condition: str
    reason: str
    message: str
    advice: str | None = None
    age_seconds: float | None = None


@dataclass(frozen=True)
class CheckpointView:
    """The newest committed checkpoint."""

    step: int
    age_seconds: float | None = None
    path: str | None = None


@dataclass(frozen=True)
class Recovery:
    """One attempt that ended."""

    attempt: int
    verdict: str
    evidence: str | None = None
    charged_to: str | None = None
    steps_lost: int | None = None
    seconds: float | None = None
    age_seconds: float | None = None


@dataclass(frozen=True)
class CostView:
    """What disturbances cost: counters over the life of the job, and the last attempts that ended."""

    attempts: int | None = None
    preemptions: int | None = None
    failures: int | None = None
    steps_lost: int | None = None
    mean_recovery_seconds: float | None = None
    goodput: float | None = None
    recoveries: tuple[Recovery, ...] = ()


@dataclass(frozen=True)
class EventView:
    """An event of the job, its JobSet or a pod; newest last."""

    type: str
    reason: str
    about: str
    message: str
    count: int = 1
    age_seconds: float | None = None


@dataclass(frozen=True)
class NextCommand:
    """A command that makes sense now, and why."""

    command: str
    why: str


@dataclass(frozen=True)
class JobView:
    """Everything about one job."""

    namespace: str
    name: str
    phase: str
    age_seconds: float | None
    suspend: bool
    stages: tuple[StageView, ...]
    stage: int | None
    progress: ProgressView | None
    attempt: AttemptView | None
    place: PlaceView | None
    pods: tuple[PodView, ...]
    learning: LearningView
    waits: tuple[Wait, ...]
    checkpoint: CheckpointView | None
    cost: CostView
    events: tuple[EventView, ...]
    next: tuple[NextCommand, ...]
    unread: tuple[str, ...]
    """What could not be read, and why, one line each."""


def plain(found: Any) -> Any:
    """A document as JSON data: camelCase, without what is not known."""
    if is_dataclass(found):
        parts = ((field.name, getattr(found, field.name)) for field in fields(found))
        return {_camel(name): plain(value) for name, value in parts if value is not None}
    if isinstance(found, tuple | list):
        return [plain(entry) for entry in found]
    if isinstance(found, dict):
        return {key: plain(value) for key, value in found.items()}
    return round(found, 6) if isinstance(found, float) else found


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)
