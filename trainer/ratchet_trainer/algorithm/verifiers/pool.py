"""Verification in processes that can be killed, with safe points for the caller between two looks.

Decides who gets which case, how long a case may take and what becomes of one whose worker hangs or dies: once more in a
fresh worker, then outcome `timeout` or `crash`. Everything happens inside `poll`, in one thread: nothing runs behind
the caller's back, and nothing is started for a verifier that runs inline.

    pool = VerifierPool(spec.to_json(), workers=4)
    handle = pool.submit(cases)
    while (outcomes := pool.poll(handle, 0.2)) is None:
        safe_point()                      # may leave: pool.abandon(handle), pool.close()

Outcomes come in the order of the cases, whoever finishes first. Workers are sessions of their own (a SIGTERM to the
trainer's group does not reach them) and die with the thread that polls.
"""

from __future__ import annotations

import logging
import pickle
import select
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ratchet_trainer.algorithm.outcome import Case, Outcome, Status, anomaly, outcome_from_json
from ratchet_trainer.algorithm.verifiers import registry
from ratchet_trainer.algorithm.verifiers.spec import VerifierSpec
from ratchet_trainer.algorithm.verifiers.worker_process import Died, WorkerProcess
from ratchet_trainer.errors import ConfigurationInvalid

START_SECONDS = 120.0
"""How long a worker may take until it is ready: importing a user's module may cost."""
LOOK_SECONDS = 0.25
"""Longest wait until dead workers are looked for: a child that they forked may hold their pipe open."""
WORKERS_MAX = 32
"""Hosts with hundreds of cores need no more: each worker is a Python of its own."""
SHORTAGE_SECONDS = 300.0
"""How long workers may fail to start where others have started before: the machine may be short of memory a while."""
TOLD_MAX = 50
"""Different messages about cases without an outcome that are logged."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Anomaly:
    """A case whose verifier gave no outcome, and why."""

    item: int
    status: Status
    message: str


@dataclass
class _Batch:
    cases: Sequence[Case]
    outcomes: list[Outcome | None]
    missing: int


@dataclass
class _Task:
    handle: int
    place: int
    tried: int = 0


@dataclass
class _Seat:
    """A worker and what it is doing. `due`: monotonic time at which it is given up."""

    process: WorkerProcess
    due: float
    ready: bool = False
    served: int = 0
    task: _Task | None = field(default=None)


class VerifierPool:
    """Verifies batches with at most `workers` processes, started when there is something for them to do.

    `spec` is a `VerifierSpec` as JSON. `deadline` (seconds a case) and `memory_mib` replace the verifier's own.
    """

    def __init__(
        self, spec: Mapping[str, Any], workers: int, deadline: float | None = None, memory_mib: int | None = None
    ):
        self.spec = VerifierSpec.from_json(spec)
        self.anomalies: deque[Anomaly] = deque(maxlen=100)
        self._workers = min(max(1, workers), WORKERS_MAX)
        self._deadline = registry.deadline(self.spec) if deadline is None else deadline
        self._memory_mib = registry.memory_mib(self.spec) if memory_mib is None else memory_mib
        self._inline = registry.build(self.spec) if registry.verify_inline(self.spec) else None
        self._batches: dict[int, _Batch] = {}
        self._queue: deque[_Task] = deque()
        self._again: deque[_Task] = deque()  # for workers that have served nobody yet
        self._seats: list[_Seat] = []
        self._told: set[tuple[Status, str]] = set()
        self._started = False  # whether a worker was ever ready
        self._short_since: float | None = None  # when one first was not, since then
        self._next = 0

    def submit(self, cases: Sequence[Case]) -> int:
        """Takes a batch; what it returns is for `poll` and `abandon`. Starts nothing."""
        handle, self._next = self._next, self._next + 1
        self._batches[handle] = _Batch(cases, [None] * len(cases), len(cases))
        self._queue.extend(_Task(handle, place) for place in range(len(cases)))
        return handle

    def poll(self, handle: int, seconds: float) -> list[Outcome] | None:
        """The outcomes of a batch in the order of its cases, or None if they are not all there after `seconds`.

        Raises ConfigurationInvalid if the verifier cannot be had at all (no such module, no secret) or an item is not
        as it needs it (no tests), KeyError for a batch that is unknown, given out or abandoned.
        """
        batch, end = self._batches[handle], time.monotonic() + seconds
        while batch.missing:
            if self._inline is not None:
                self._verify_inline()
            else:
                self._advance(max(0.0, end - time.monotonic()))
            if batch.missing and time.monotonic() >= end:
                return None
        del self._batches[handle]
        return [outcome for outcome in batch.outcomes if outcome is not None]

    def ready(self, seconds: float) -> bool:
        """Whether a worker is ready to verify; one is started if there is none, and waited for at most so long. Raises
        ConfigurationInvalid if the verifier cannot be had."""
        if self._inline is not None:
            return True
        if not self._seats:
            process = WorkerProcess(self.spec, self._memory_mib)
            self._seats.append(_Seat(process, time.monotonic() + START_SECONDS))
        self._advance(seconds)
        return any(seat.ready for seat in self._seats)

    def abandon(self, handle: int) -> None:
        """Forgets a batch. Workers that have one of its cases are ended."""
        self._batches.pop(handle, None)
        self._queue = deque(task for task in self._queue if task.handle != handle)
        self._again = deque(task for task in self._again if task.handle != handle)
        for seat in [s for s in self._seats if s.task is not None and s.task.handle == handle]:
            self._end(seat)

    def close(self) -> None:
        """Ends all workers and whatever they started. The pool can be used again afterwards."""
        for handle in list(self._batches):
            self.abandon(handle)
        for seat in list(self._seats):
            self._end(seat)

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _verify_inline(self) -> None:
        task = self._queue.popleft()
        assert self._inline is not None
        self._settle(task, self._inline(self._batches[task.handle].cases[task.place]))

    def _settle(self, task: _Task, outcome: Outcome) -> None:
        if (batch := self._batches.get(task.handle)) is not None:
            batch.outcomes[task.place] = outcome
            batch.missing -= 1

    def _advance(self, seconds: float) -> None:
        """One round: give out cases, wait for a word, hear it, look at the clock."""
        self._give_out()
        now = time.monotonic()
        wait = max(0.0, min([seconds, LOOK_SECONDS, *(s.due - now for s in self._seats if s.task or not s.ready)]))
        reading = {s.process.reading: s for s in self._seats}
        writing = {s.process.writing: s for s in self._seats if s.process.unsent}
        waiting = select.poll()  # not select(): a process with JAX in it may have many descriptors
        for descriptor in reading:
            waiting.register(descriptor, select.POLLIN)
        for descriptor in writing:
            waiting.register(descriptor, select.POLLOUT)
        for descriptor, _ in waiting.poll(1000 * wait):
            seat = writing.get(descriptor) or reading[descriptor]
            if seat in self._seats and descriptor in writing:
                seat.process.send()
            elif seat in self._seats:
                self._hear(seat)
        now = time.monotonic()
        for seat in list(self._seats):
            if seat.process.ended() and not seat.process.readable():
                self._lost(seat, seat.process.why_ended())
            elif seat.due <= now and (seat.task or not seat.ready) and not seat.process.readable():
                self._late(seat)

    def _give_out(self) -> None:
        free = [s for s in self._seats if s.ready and s.task is None]
        for seat in free:
            queue = self._again if self._again and not seat.served else self._queue
            if queue:
                self._give(seat, queue.popleft())
        if self._again and not any(not s.served and s.task is None for s in self._seats):
            for seat in [s for s in free if s.task is None][: len(self._again)]:
                self._end(seat)  # makes room for a fresh one
        needed = len(self._queue) + len(self._again) - sum(not s.ready for s in self._seats)
        while needed > 0 and len(self._seats) < self._workers:
            needed -= 1
            process = WorkerProcess(self.spec, self._memory_mib)
            self._seats.append(_Seat(process, time.monotonic() + START_SECONDS))

    def _give(self, seat: _Seat, task: _Task) -> None:
        seat.task, seat.due = task, time.monotonic() + self._deadline
        seat.process.send(pickle.dumps(self._batches[task.handle].cases[task.place]))

    def _hear(self, seat: _Seat) -> None:
        try:
            messages = seat.process.receive()
        except Died as error:
            self._lost(seat, str(error))
            return
        for message in messages:
            if "refused" in message:
                self._end(seat)
                raise ConfigurationInvalid(f"{self._where(seat.task)}: {message['refused']}")
            if "ready" in message:
                seat.ready = True
                self._started, self._short_since = True, None
                continue
            task, seat.task = seat.task, None
            seat.served += 1
            if task is None:
                self._end(seat)  # it speaks unasked
                return
            try:
                outcome = outcome_from_json(message["outcome"]) if "outcome" in message else None
            except ValueError as error:
                outcome, message = None, {"crash": str(error)}
            if outcome is None:
                self._failed(task, "crash", str(message.get("crash", "it answered nonsense")))
            else:
                if "message" in message:
                    self._note(task, outcome.status, str(message["message"]))
                self._settle(task, outcome)
            if outcome is None or message.get("leaving"):
                self._end(seat)
                return

    def _lost(self, seat: _Seat, why: str) -> None:
        self._end(seat)
        if seat.task is not None:
            self._failed(seat.task, "crash", f"its process {why}")
        elif not seat.ready:
            self._not_started(
                f"its process {why} while it started; see that it can be imported with {self._memory_mib} MiB"
            )

    def _not_started(self, why: str) -> None:
        """A worker that was never ready: the verifier cannot be had, or, where it could be, there is a shortage."""
        now = time.monotonic()
        self._short_since = self._short_since or now
        if not self._started or now - self._short_since > SHORTAGE_SECONDS:
            raise ConfigurationInvalid(f"verifier {self.spec.name}: {why}")
        log.warning("verifier %s: %s; another one is started", self.spec.name, why)

    def _late(self, seat: _Seat) -> None:
        self._end(seat)
        if seat.task is None:
            self._not_started(f"it did not start in {START_SECONDS:g} s")
            return
        self._failed(seat.task, "timeout", f"no outcome after {self._deadline:g} s")

    def _failed(self, task: _Task, status: Status, why: str) -> None:
        if task.handle not in self._batches:
            return
        task.tried += 1
        if task.tried < 2:
            self._again.append(task)
            return
        self._note(task, status, f"twice: {why}")
        self._settle(task, anomaly(status))

    def _note(self, task: _Task, status: Status, why: str) -> None:
        if (batch := self._batches.get(task.handle)) is None:
            return
        self.anomalies.append(Anomaly(int(batch.cases[task.place].item["index"]), status, why))
        if (status, why) not in self._told and len(self._told) < TOLD_MAX:  # a broken verifier says the same of all
            self._told.add((status, why))
            log.warning("%s: %s: %s; others like it are not logged", self._where(task), status, why)

    def _where(self, task: _Task | None) -> str:
        batch = None if task is None else self._batches.get(task.handle)
        place = "" if batch is None or task is None else f", item {batch.cases[task.place].item['index']}"
        return f"verifier {self.spec.name}{place}"

    def _end(self, seat: _Seat) -> None:
        if seat in self._seats:
            self._seats.remove(seat)
        seat.process.kill()
