"""A Plan in the making: a working copy of the status, and the acts asked for so far.

Decides when a change of status is worth a write; what changes is decided by its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from ratchet_api.base import ApiModel
from ratchet_api.status import HISTORY, AttemptRecord, AttemptStatus, Counters, EarlierAttempts, Status
from ratchet_operator.decide import stamps
from ratchet_operator.decide.observed_job import ObservedJob
from ratchet_operator.plan import Delete, Event, Patch, Plan, Raw

FLUSHED = ("progress", "checkpoint")
"""Parts of status that change with every step; they are written at most every 10 s, or with anything else."""

FLUSHED_OF_FLEET = ("version", "waitingCalls", "resultsPerSecond")
"""Parts of status.rollouts that do so, too."""

FLUSH_SECONDS = 10.0
"""How soon what is not written now is looked at again."""

M = TypeVar("M", bound=ApiModel)


def revised(model: M, **changes: Any) -> M:
    """The same value with some fields changed, in Python's names."""
    copy = type(model).__new__(type(model))
    # As `model_copy(update=...)`, which is several times as slow: a pass makes dozens of these.
    copy.__setstate__(
        {
            "__dict__": {**model.__dict__, **changes},
            "__pydantic_fields_set__": model.__pydantic_fields_set__ | changes.keys(),
            "__pydantic_extra__": None,
            "__pydantic_private__": None,
        }
    )
    return copy


@dataclass
class PlanBuilder:
    """Collects one pass. Mutable for that pass only: `decide` as a whole is a function."""

    observed: ObservedJob
    status: Status
    status_first: bool = False
    create: list[Raw] = field(default_factory=list)
    create_last: list[Raw] = field(default_factory=list)
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
        """Lists the attempt; what there is no room for any more goes into the sums of earlier ones."""
        others = [r for r in self.status.attempts if r.number != record.number]
        records = sorted([*others, record], key=lambda r: r.number)
        for gone in records[:-HISTORY]:
            self.revise(counters=revised(self.counters, earlier_attempts=with_one_more(self.counters, gone)))
        self.revise(attempts=records[-HISTORY:])

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
            if not write:
                self.wake_at(stamps.after(self.observed.now, FLUSH_SECONDS))
        soonest = min(self._wake, default=None)
        now = stamps.seconds(self.observed.now)
        return Plan(
            status=after if write else None,
            status_first=self.status_first and write,
            create=tuple(self.create),
            create_last=tuple(self.create_last),
            delete=tuple(self.delete),
            patch=tuple(self.patch),
            events=tuple(self.events),
            requeue_after=None if soonest is None else round(max(0.05, soonest - now), 3),
        )

    @property
    def acts(self) -> bool:
        return bool(self.create or self.create_last or self.delete or self.patch)


def with_one_more(counters: Counters, record: AttemptRecord) -> EarlierAttempts:
    """The sums of earlier attempts with one more."""
    sums = counters.earlier_attempts or EarlierAttempts()
    total = record.recovery.total if record.recovery is not None else None
    return revised(
        sums,
        verdicts=sums.verdicts | {record.verdict: sums.verdicts.get(record.verdict, 0) + 1},
        recoveries=sums.recoveries + (total is not None),
        recovery_milliseconds=sums.recovery_milliseconds + round(1000 * float(total or 0)),
    )


def at_once(status: Raw) -> Raw:
    """The part of a status that is written as soon as it changes."""
    conditions = [{k: v for k, v in c.items() if k != "message"} if _paced(c) else c for c in _conditions(status)]
    kept = {key: value for key, value in status.items() if key not in FLUSHED} | {"conditions": conditions}
    fleet = {key: value for key, value in (status.get("rollouts") or {}).items() if key not in FLUSHED_OF_FLEET}
    return kept | ({"rollouts": fleet} if fleet else {})


def paced(status: Raw) -> Raw:
    """The part of a status that waits for the next flush: what changes with every step, and words that change by
    themselves."""
    words = [c.get("message") for c in _conditions(status) if _paced(c)]
    fleet = [(status.get("rollouts") or {}).get(key) for key in FLUSHED_OF_FLEET]
    return {key: status.get(key) for key in FLUSHED} | {"words": words, "fleet": fleet}


def _conditions(status: Raw) -> list[Raw]:
    conditions: list[Raw] = status.get("conditions") or []
    return conditions


def _paced(condition: Raw) -> bool:
    """Whether its words change by themselves: how many nodes fit is the scheduler's to count, again and again."""
    return condition.get("type") in ("Learning", "RolloutsAvailable") or condition.get("reason") in (
        "WaitingForCapacity",
        "Starting",
    )
