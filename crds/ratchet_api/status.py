"""What the operator remembers and shows: `status`.

Status is memory as well as display: attempt numbers, budgets, history and stages are written here before the
act that they authorize. Decides names and limits; what goes in is decided in `ratchet_operator/decide`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ratchet_api.base import LIST_MAP, ApiModel, Count

PHASES = ("Pending", "Placing", "Running", "Recovering", "AwaitingApproval", "Suspended", "Completed", "Failed")
CONDITIONS = (
    "Accepted",
    "Placed",
    "Running",
    "Progressing",
    "Learning",
    "RolloutsAvailable",
    "Suspended",
    "AwaitingApproval",
    "Completed",
    "Failed",
)


HISTORY = 20
"""Attempts kept in `status.attempts`."""


def _text(description: str, length: int = 256) -> str | None:
    return Field(default=None, max_length=length, description=description)


def _time(description: str) -> str | None:
    return Field(default=None, max_length=40, json_schema_extra={"format": "date-time"}, description=description)


def _count(description: str) -> int:
    return Field(default=0, description=description)


def _maybe_count(description: str) -> int | None:
    return Field(default=None, description=description)


class Condition(ApiModel):
    """One aspect of the job's state, as metav1.Condition."""

    type: str = Field(max_length=64, description="Name of the aspect.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(
        min_length=1, max_length=64, description="One CamelCase word saying why; a documented, finite set."
    )
    message: str = Field(default="", max_length=4096, description="In words, with what to do.")
    last_transition_time: str = Field(
        max_length=40, json_schema_extra={"format": "date-time"}, description="When `status` last changed."
    )
    observed_generation: Count | None = _maybe_count("Generation of the spec that this was evaluated on.")


class StagePosition(ApiModel):
    """The stage that the job is in."""

    name: str = Field(max_length=40, description="Name of the stage.")
    index: Count = _count("Its position in spec.stages, from 0.")
    start_step: Count = _count("Step whose weights the stage began from; its first own step is one more.")


class StageRecord(ApiModel):
    """A stage that began, and how it ended."""

    name: str = Field(max_length=40, description="Name of the stage.")
    index: Count = _count("Its position in spec.stages.")
    start_step: Count = _count("Step whose weights the stage began from.")
    end_step: Count | None = _maybe_count("Last step of the stage; absent while it runs.")
    rule: str | None = _text("Why it ended: the rule or guard that held, or its limit.")
    needs_approval: bool | None = Field(
        default=None, description="Whether what comes after it waits for an entry in spec.approvals; absent: no."
    )
    approved_time: str | None = _time("When the operator saw that entry.")
    start_time: str | None = _time("When the operator let it begin.")
    end_time: str | None = _time("When the operator recorded its end.")
    generated_tokens: Count | None = _maybe_count("Tokens sampled for its steps, as last reported, once it is over.")
    chip_seconds: Count | None = _maybe_count(
        "Seconds of chips that it took, booked where an attempt or the stage ended; see spec.budgets."
    )


class Progress(ApiModel):
    """How far the training is, as the leader last reported it."""

    step: Count = _count("Last finished step.")
    target_step: Count | None = _maybe_count("Step at which the present stage ends at the latest.")
    text: str | None = _text("`step/target`, for the column.", 64)
    phase: str | None = _text("What the trainer is doing: generate, update, save, ...", 32)
    reward: str | None = _text("Mean reward of the last step, a decimal string.", 32)
    accuracy: str | None = _text("Mean accuracy of the last step, a decimal string.", 32)
    tokens_per_second: str | None = _text("Tokens sampled or trained on per second, a decimal string.", 32)
    generated_tokens: Count | None = _maybe_count("Tokens sampled for the steps of the present stage so far.")
    estimated_completion_time: str | None = _time("When the last declared stage would reach its limit at this speed.")
    updated_at: str | None = _time("When this was last written.")


class CheckpointStatus(ApiModel):
    """The newest checkpoint that the trainer has committed."""

    step: Count = _count("Its step.")
    time: str | None = _time("When it was reported.")
    path: str | None = _text("Its folder, below spec.checkpoint.directory.", 1024)


class AttemptStatus(ApiModel):
    """The attempt that runs or is being started."""

    number: Count = _count("Number of the attempt; it only grows and fences off older ones.")
    job_set: str | None = _text("Name of its JobSet.", 63)
    job_set_uid: str | None = Field(default=None, max_length=64, alias="jobSetUID", description="Uid of its JobSet.")
    fence: Count | None = _maybe_count("leaseTransitions of the operator's Lease when it was authorized.")
    placement: str | None = _text("Name of the placement it runs on.", 40)
    start_step: Count | None = _maybe_count("Newest committed step when it was authorized.")
    start_time: str | None = _time("When it was authorized.")
    created_time: str | None = _time("When its JobSet was seen created.")
    queued_time: str | None = _time("When its JobSet was seen held back by a queue; absent where none held it.")
    admitted_time: str | None = _time("When it was seen let go; from then on its pods look for nodes.")
    running_time: str | None = _time("When all its pods were first seen Running.")
    ended_time: str | None = _time("When its first sign of an end was seen.")
    drain_deadline: str | None = _time("When the notice window of the gang ends.")
    verdict: str | None = _text("Provisional verdict, once an end was seen.", 32)
    evidence: str | None = _text("What the verdict rests on.", 1024)
    pods_ready: Count = _count("Pods that are Ready.")
    pods_total: Count = _count("Pods that the attempt has.")


class RecoveryParts(ApiModel):
    """Where the seconds of a recovery went, decimal strings."""

    detect: str | None = _text("First sign at the pod or node to the operator's seeing it.", 16)
    drain: str | None = _text("Until the last old pod had ended.", 16)
    fence: str | None = _text("Until it was certain that no old pod can write.", 16)
    place: str | None = _text("Until all new pods were Running.", 16)
    start: str | None = _text("Process start and imports.", 16)
    restore: str | None = _text("Reading the checkpoint.", 16)
    compile: str | None = _text("Compiling or loading compiled programs.", 16)
    step: str | None = _text("The first step above the last committed one.", 16)
    total: str | None = _text("Sign of loss to the end of that step.", 16)


class AttemptRecord(ApiModel):
    """An attempt that ended, and why."""

    number: Count = _count("Number of the attempt.")
    verdict: str = Field(max_length=32, description="Why it ended.")
    evidence: str | None = _text("What the verdict rests on: pod, node, exit code, message.", 1024)
    charged_to: str | None = _text("Budget that paid for it: preemptions, failures or nothing.", 16)
    placement: str | None = _text("Placement it ran on.", 40)
    start_step: Count | None = _maybe_count("Newest committed step when it began.")
    end_step: Count | None = _maybe_count("Last step it reported.")
    steps_lost: Count | None = _maybe_count("Steps it reported that the next attempt executed again.")
    start_time: str | None = _time("When it was authorized.")
    end_time: str | None = _time("When its first sign of an end was seen.")
    final_time: str | None = _time("When its last pod had ended.")
    notice: Literal["graceful", "abrupt", "none"] | None = Field(
        default=None, description="Whether its end was announced: graceful, abrupt, or none for an end of its own."
    )
    recovery: RecoveryParts | None = Field(
        default=None, description="How long the attempt after it took to make progress."
    )


class EarlierAttempts(ApiModel):
    """Sums over the attempts that `status.attempts` has no room for any more; with those it lists, over all."""

    verdicts: dict[str, Count] = Field(default={}, max_length=64, description="How many ended with each verdict.")
    recoveries: Count = _count("How many were recovered from: a new step was made.")
    recovery_milliseconds: Count = _count("What those recoveries took in all, in milliseconds.")


class Counters(ApiModel):
    """Totals over the life of the job."""

    attempts: Count = _count("Attempts so far.")
    preemptions: Count = _count("Attempts ended by capacity that was taken away.")
    failures: Count = _count("Failures not forgiven so far.")
    disturbances_without_progress: Count = _count("Attempts in a row that ended without a new step.")
    steps_lost: Count = _count("Steps executed again.")
    chip_seconds: dict[str, Count] = Field(
        default={},
        max_length=8,
        description="Seconds of chips that all attempts took, by capacity, booked where an attempt or a stage ended.",
    )
    earlier_attempts: EarlierAttempts | None = Field(
        default=None, description="What is left of attempts that are not listed any more."
    )


class WorkerStatus(ApiModel):
    """A worker of the fleet: its present JobSet, and how that ended if it has."""

    worker: Count = _count("Its number, from 0.")
    attempt: Count = _count("Number of its JobSet, NAME-wWORKER-aATTEMPT; no two JobSets of the fleet have the same.")
    placement: str | None = _text("Name of the placement of spec.rollouts that it runs on.", 40)
    pods_total: Count = _count("Pods that it has.")
    start_time: str | None = _time("When that JobSet was authorized.")
    created_time: str | None = _time("When it was seen created.")
    running_time: str | None = _time("When all its pods were first seen Running.")
    end_time: str | None = _time("When it was seen to end; the next one starts after a back-off.")
    verdict: str | None = _text("Why it, or the one before it, ended.", 32)
    evidence: str | None = _text("What that rests on.")
    failures: Count = _count("Ends of its own doing in a row; the back-off grows with them.")
    hopeless: Count = _count("Those of them in a row that a repetition would repeat: exit codes 64, 65 and 77.")


class RolloutsStatus(ApiModel):
    """The fleet that samples: how many workers there are, and what the trainer says of their work."""

    desired: Count = _count("Workers that there should be now; 0 while nothing is sampled.")
    running: Count = _count("Workers of which all pods run.")
    text: str | None = _text("`running/desired`, for the column.", 16)
    version: str | None = _text("Digest of the newest weights that workers may fetch.", 64)
    waiting_calls: Count | None = _maybe_count("Calls without a result, as the trainer last said.")
    results_per_second: str | None = _text("Results that come in a second, a decimal string.", 32)
    restarts: Count = _count("Workers that ended and are, or were, replaced.")
    last_attempt: Count = _count("Highest number that a JobSet of a worker has had.")
    trainer_waits: bool | None = Field(
        default=None,
        description="Whether the trainer has given its machines back for want of workers, and begins again once "
        "workers.min of them run.",
    )
    without_room: dict[str, str] = Field(
        default={}, max_length=8, description="When a placement was last given up, because it had no room."
    )
    workers: list[WorkerStatus] = Field(
        default=[],
        max_length=256,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["worker"]},
        description="The workers, by number.",
    )


class ArtifactStatus(ApiModel):
    """Weights that the trainer has written for other tools: spec.export."""

    stage: str = Field(max_length=40, description="The stage that they are the result of.")
    step: Count = _count("Their step.")
    path: str = Field(max_length=1024, description="Their folder, as the trainer's pods see it.")


class TrackerStatus(ApiModel):
    """How far a tracker of spec.trackers has been told of the run."""

    name: str = Field(max_length=40, description="Its name in spec.trackers.")
    state: Literal["Following", "Behind", "Left"] = Field(
        description="Following: it has every committed step, but for those of the last seconds. Behind: it could not "
        "be told and is tried again. Left: this attempt has given it up; the next one begins anew."
    )
    step: Count | None = _maybe_count("Last step that it has.")
    message: str | None = _text("Why it is not following, and what helps.", 1024)


class Resolved(ApiModel):
    """What was decided once for the life of the job."""

    image: str | None = _text("Trainer image of every attempt.", 1024)


class RewindStatus(ApiModel):
    """The last order of spec.rewind that was carried out."""

    id: Count = _count("Its number.")
    lineage: Count = _count("Counts rewinds, from 1: steps of an older lineage are kept, but are no candidates.")
    attempt: Count = _count("The last attempt before it.")


class ExactSince(ApiModel):
    """From where on the bits are those of an undisturbed run: something that they follow from changed there."""

    step: Count = _count("Step that the run went on from.")
    reason: str | None = _text("What changed: versions, settings or topology.", 1024)


class Status(ApiModel):
    """What the operator has seen and decided."""

    observed_generation: Count | None = _maybe_count("Generation of the spec that this status speaks of.")
    phase: Literal[PHASES] | None = Field(  # type: ignore[valid-type]
        default=None,
        description="One word derived from the conditions, for the column; use the conditions in programs.",
    )
    conditions: list[Condition] = Field(
        default=[],
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        description="The job's state, aspect by aspect; all present from the first reconcile.",
    )
    stage: StagePosition | None = Field(default=None, description="The stage that the job is in.")
    stages: list[StageRecord] = Field(default=[], max_length=64, description="Stages that began, in order.")
    awaits_acceptance: bool | None = Field(
        default=None,
        description="Whether the last stage has ended and the next one waits until the condition Accepted is True.",
    )
    progress: Progress | None = Field(default=None, description="How far the training is.")
    checkpoint: CheckpointStatus | None = Field(default=None, description="The newest committed checkpoint.")
    attempt: AttemptStatus | None = Field(default=None, description="The attempt that runs or is being started.")
    attempts: list[AttemptRecord] = Field(
        default=[],
        max_length=HISTORY,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["number"]},
        description=f"The last {HISTORY} attempts that ended, oldest first.",
    )
    rollouts: RolloutsStatus | None = Field(
        default=None, description="The fleet of spec.rollouts; absent: the job has had none."
    )
    counters: Counters | None = Field(default=None, description="Totals over the life of the job.")
    resolved: Resolved | None = Field(default=None, description="What was decided once for the life of the job.")
    rewind: RewindStatus | None = Field(default=None, description="The last rewind; absent: there was none.")
    exact_since: ExactSince | None = Field(
        default=None,
        description="Absent while the run is bit for bit that of an undisturbed one from its first step.",
    )
    artifacts: list[ArtifactStatus] = Field(
        default=[],
        max_length=64,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["stage"]},
        description="Weights that were written for other tools, one entry a stage.",
    )
    trackers: list[TrackerStatus] = Field(
        default=[],
        max_length=8,
        json_schema_extra=LIST_MAP,
        description="The trackers of spec.trackers, as the last attempt has seen them.",
    )
    finished_time: str | None = _time("When the job was Completed or Failed.")
