"""The pass in the making: a working copy of the status, and the acts asked for so far.

Turns them into a Plan at the end. Decides when a change of status is worth a write; what changes is decided by its
neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from ratchet_api.base import ApiModel
from ratchet_api.status import HISTORY, AttemptRecord, AttemptStatus, Counters, Status
from ratchet_operator.decide import stamps
from ratchet_operator.decide.world import World
from ratchet_operator.plan import Delete, Event, Patch, Plan, Raw

FLUSHED = ("progress", "checkpoint")
"""Parts of status that change with every step; they are written at most every 10 s, or with anything else."""

M = TypeVar("M", bound=ApiModel)


def revised(model: M, **changes: Any) -> M:
    """The same value with some fields changed, in Python's names."""
    return model.model_copy(update=changes)


@dataclass
class Draft:
    """Mutable for one pass only; `decide` as a whole is a function."""

    world: World
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
    def of(cls, world: World) -> Draft:
        return cls(world, world.status)

    @property
    def attempt(self) -> AttemptStatus | None:
        return self.status.attempt

    @property
    def counters(self) -> Counters:
        return self.status.counters or Counters()

    def revise(self, **changes: Any) -> None:
        self.status = revised(self.status, **changes)

    def revise_attempt(self, **changes: Any) -> None:
        assert self.status.attempt is not None
        self.revise(attempt=revised(self.status.attempt, **changes))

    def count(self, **changes: int) -> None:
        self.revise(counters=revised(self.counters, **changes))

    def record(self, number: int) -> AttemptRecord | None:
        """The record of an attempt whose end was seen."""
        return next((r for r in self.status.attempts if r.number == number), None)

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
        before, after = self.world.status.manifest(), self.status.manifest()
        write = before != after
        if write and not self.world.snapshot.flush_due and not self.acts:
            write = _without(before) != _without(after)
        soonest = min(self._wake, default=None)
        now = stamps.seconds(self.world.now)
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


def _without(manifest: Raw) -> Raw:
    return {key: value for key, value in manifest.items() if key not in FLUSHED}
