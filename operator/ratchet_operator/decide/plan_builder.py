"""A Plan in the making: a working copy of the status, and the acts asked for so far.

Decides when a change of status is worth a write; what changes is decided by its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from ratchet_api.base import ApiModel
from ratchet_api.status import HISTORY, AttemptRecord, AttemptStatus, Counters, Status
from ratchet_operator.decide import stamps
from ratchet_operator.decide.observed_job import ObservedJob
from ratchet_operator.plan import Delete, Event, Patch, Plan, Raw

FLUSHED = ("progress", "checkpoint")
"""Parts of status that change with every step; they are written at most every 10 s, or with anything else."""

M = TypeVar("M", bound=ApiModel)


def revised(model: M, **changes: Any) -> M:
    """The same value with some fields changed, in Python's names."""
    return model.model_copy(update=changes)


@dataclass
class PlanBuilder:
    """Collects one pass. Mutable for that pass only: `decide` as a whole is a function."""

    observed: ObservedJob
    status: Status
    status_first: bool = False
    create: list[Raw] = field(default_factory=list)
    delete: list[Delete] = field(default_factory=list)
    patch: list[Patch] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    waiting: tuple[str, str] | None = None
    """Why nothing goes on, as reason and message of the condition Placed."""
    _wake: list[float] = field(default_factory=list)

    @classmethod
    def begin(cls, observed: ObservedJob) -> PlanBuilder:
        return cls(observed, observed.status)

    @property
    def attempt(self) -> AttemptStatus | None:
        return self.status.attempt

    @property
    def counters(self) -> Counters:
        return self.status.counters or Counters()

    def revise(self, **changes: Any) -> None:
        self.status = revised(self.status, **changes)

    def revise_attempt(self, attempt: AttemptStatus, **changes: Any) -> AttemptStatus:
        """Writes the attempt with these changes into the status, and returns it."""
        changed = revised(attempt, **changes)
        self.revise(attempt=changed)
        return changed

    def count(self, **changes: int) -> None:
        self.revise(counters=revised(self.counters, **changes))

    def record(self, number: int) -> AttemptRecord | None:
        """The record of an attempt whose end was seen."""
        return next((r for r in self.status.attempts if r.number == number), None)

    def settled(self) -> AttemptRecord | None:
        """The record of the present attempt once all its pods have ended, as far as anybody can tell."""
        record = self.record(self.attempt.number) if self.attempt is not None else None
        return record if record is not None and record.final_time is not None else None

    def put_record(self, record: AttemptRecord) -> None:
        others = [r for r in self.status.attempts if r.number != record.number]
        self.revise(attempts=sorted([*others, record], key=lambda r: r.number)[-HISTORY:])

    def event(self, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        self.events.append(Event(kind, reason, message))

    def wait(self, reason: str, message: str) -> None:
        """Says why the next attempt does not start; the first reason given is shown."""
        self.waiting = self.waiting or (reason, message)

    def wake_at(self, stamp: str) -> None:
        self._wake.append(stamps.seconds(stamp))

    def plan(self) -> Plan:
        before, after = self.observed.status.manifest(), self.status.manifest()
        write = before != after
        if write and not self.observed.snapshot.flush_due and not self.acts:
            write = at_once(before) != at_once(after)
        soonest = min(self._wake, default=None)
        now = stamps.seconds(self.observed.now)
        return Plan(
            status=after if write else None,
            status_first=self.status_first and write,
            create=tuple(self.create),
            delete=tuple(self.delete),
            patch=tuple(self.patch),
            events=tuple(self.events),
            requeue_after=None if soonest is None else round(max(0.05, soonest - now), 3),
        )

    @property
    def acts(self) -> bool:
        return bool(self.create or self.delete or self.patch)


def at_once(status: Raw) -> Raw:
    """The part of a status that is written as soon as it changes."""
    conditions = [{k: v for k, v in c.items() if k != "message"} if _paced(c) else c for c in _conditions(status)]
    return {key: value for key, value in status.items() if key not in FLUSHED} | {"conditions": conditions}


def paced(status: Raw) -> Raw:
    """The part of a status that waits for the next flush: what changes with every step, and the words of the condition
    Learning."""
    words = [c.get("message") for c in _conditions(status) if _paced(c)]
    return {key: status.get(key) for key in FLUSHED} | {"learning": words}


def _conditions(status: Raw) -> list[Raw]:
    conditions: list[Raw] = status.get("conditions") or []
    return conditions


def _paced(condition: Raw) -> bool:
    return condition.get("type") == "Learning"
