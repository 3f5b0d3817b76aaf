"""The verdicts: why an attempt can have ended, strongest first, and what each one costs.

Decides names and charges, nothing else. Which verdict an attempt gets is read from the evidence in `end_signs`; the
charge is booked in `failure_budget`. A new verdict is one member here, one row of `TABLE`, and the evidence for it in
`end_signs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Charge(StrEnum):
    """Who pays for the end of an attempt, as `status.attempts[].chargedTo` has it."""

    PREEMPTIONS = "preemptions"
    FAILURES = "failures"
    NOTHING = "nothing"


class Notice(StrEnum):
    """Whether the pods were told before they had to go."""

    GRACEFUL = "graceful"
    ABRUPT = "abrupt"
    NONE = "none"
    """The end was the trainer's own."""


class Verdict(StrEnum):
    """Why an attempt ended. The order is the strength: of several signs the first one here gives the verdict."""

    COMPLETED = "Completed"
    PREEMPTED = "Preempted"
    MAINTENANCE = "Maintenance"
    NODE_LOST = "NodeLost"
    ADMISSION_REJECTED = "AdmissionRejected"
    EVICTED = "Evicted"
    QUEUE_EVICTED = "QueueEvicted"
    DELETED = "Deleted"
    CONFIGURATION_INVALID = "ConfigurationInvalid"
    DETERMINISTIC_FAILURE = "DeterministicFailure"
    CHECKPOINT_UNREADABLE = "CheckpointUnreadable"
    TAKEN_OVER = "TakenOver"
    STORAGE_UNAVAILABLE = "StorageUnavailable"
    ACCELERATOR_UNAVAILABLE = "AcceleratorUnavailable"
    START_FAILED = "StartFailed"
    OUT_OF_MEMORY = "OutOfMemory"
    HUNG = "Hung"
    APPLICATION_FAILED = "ApplicationFailed"
    WORKERS_FAILED = "WorkersFailed"
    FENCED = "Fenced"
    DRAINED = "Drained"
    PEER_LOST = "PeerLost"
    UNSCHEDULABLE = "Unschedulable"


@dataclass(frozen=True)
class Row:
    """What follows from a verdict."""

    charge: Charge
    notice: Notice = Notice.NONE
    way_out: str | None = None
    """Set when no further attempt can help: what the user is to do. The job is then Failed."""
    disturbs: bool = True
    """Whether there is something to recover from."""


TABLE: dict[Verdict, Row] = {
    Verdict.COMPLETED: Row(Charge.NOTHING, disturbs=False),
    Verdict.PREEMPTED: Row(Charge.PREEMPTIONS, Notice.GRACEFUL),
    Verdict.MAINTENANCE: Row(Charge.PREEMPTIONS, Notice.GRACEFUL),
    Verdict.NODE_LOST: Row(Charge.PREEMPTIONS, Notice.ABRUPT),
    Verdict.ADMISSION_REJECTED: Row(Charge.PREEMPTIONS, Notice.ABRUPT),
    Verdict.EVICTED: Row(Charge.PREEMPTIONS, Notice.GRACEFUL),
    # When the job goes on is the queue's to say, so there is nothing that Ratchet could recover from sooner or later.
    Verdict.QUEUE_EVICTED: Row(Charge.PREEMPTIONS, Notice.GRACEFUL, disturbs=False),
    Verdict.DELETED: Row(Charge.NOTHING, Notice.GRACEFUL),
    Verdict.CONFIGURATION_INVALID: Row(
        Charge.NOTHING, way_out="the configuration is wrong, and a repetition would find the same"
    ),
    Verdict.DETERMINISTIC_FAILURE: Row(
        Charge.NOTHING,
        way_out="a repetition would fail in the same way",
    ),
    Verdict.CHECKPOINT_UNREADABLE: Row(
        Charge.NOTHING,
        way_out="no checkpoint can be read, and starting over would lose the work; look at checkpoint.directory before "
        "creating the job again",
    ),
    Verdict.TAKEN_OVER: Row(
        Charge.NOTHING,
        way_out="another job goes on in its checkpoint directory, and two cannot; if this one is to go on instead, "
        "delete both and create it again with checkpoint.existing: Resume",
    ),
    Verdict.STORAGE_UNAVAILABLE: Row(Charge.NOTHING),
    # The machine's fault, as a lost node is: with every attempt the back-off grows, the failure budget does not shrink.
    Verdict.ACCELERATOR_UNAVAILABLE: Row(Charge.PREEMPTIONS),
    Verdict.START_FAILED: Row(Charge.FAILURES),
    Verdict.OUT_OF_MEMORY: Row(Charge.FAILURES),
    Verdict.HUNG: Row(Charge.FAILURES),
    Verdict.APPLICATION_FAILED: Row(Charge.FAILURES),
    Verdict.WORKERS_FAILED: Row(
        Charge.NOTHING,
        way_out="the workers would fail again in the same way; correct spec.rollouts or the image, and the job goes on",
        disturbs=False,
    ),
    Verdict.FENCED: Row(Charge.NOTHING),
    Verdict.DRAINED: Row(Charge.NOTHING),
    # The second one in a row without a new step is a failure: see `failure_budget`.
    Verdict.PEER_LOST: Row(Charge.NOTHING, Notice.ABRUPT),
    Verdict.UNSCHEDULABLE: Row(Charge.NOTHING, disturbs=False),
}
"""Every verdict has a row; a test holds the table to that."""

_BY_NAME = {verdict.value: verdict for verdict in Verdict}
_STRENGTH = {verdict: place for place, verdict in enumerate(Verdict)}


def known(text: str) -> Verdict | None:
    """The verdict of that name; None for one that only a newer operator writes into status."""
    return _BY_NAME.get(text)


def stronger(verdict: Verdict, than: str) -> bool:
    """Whether a verdict replaces the recorded one. A recorded verdict that is not known here stays."""
    recorded = known(than)
    return recorded is not None and _STRENGTH[verdict] < _STRENGTH[recorded]


def strength(verdict: Verdict) -> int:
    """Its place in the order; 0 is the strongest."""
    return _STRENGTH[verdict]


def way_out(text: str) -> str | None:
    """What the user is to do after a verdict that ends the job; None for a verdict after which attempts go on."""
    verdict = known(text)
    return None if verdict is None else TABLE[verdict].way_out


def ended_by_own_fault(text: str, charged_to: str | None) -> bool:
    """Whether an attempt failed by itself, so that somebody will want to read its log."""
    return charged_to == Charge.FAILURES or way_out(text) is not None
