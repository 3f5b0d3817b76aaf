"""The work queue: which job is looked at when.

Decides order and pace alone: one pass per job at a time, triggers during a pass coalesce into one more, a failing job
waits twice as long each time, every waiting job gets its turn before any other gets a second one. What a pass does is
`reconcile`'s.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ratchet_operator import metrics

Key = tuple[str, str]
"""Namespace and name of a job."""

Version = tuple[str, str]
"""uid and resourceVersion of one object."""

BACKOFF_FIRST = 0.1
BACKOFF_MOST = 60.0
STUCK_SECONDS = 120.0


@dataclass(frozen=True)
class Again:
    """What a pass wants: nothing, another look after some seconds, or the same with growing back-off."""

    after: float | None = None
    failed: bool = False
    not_before: float = 0.0
    """Seconds for which nothing may wake the job: the API server asked for patience."""


class Queue:
    """Keys in, at most `workers` passes at a time out.

    `is_news` says whether the last pass over a job has neither seen nor written the version that a watch tells of: the
    echo of our own write is no reason to look again.
    """

    def __init__(
        self,
        work: Callable[[Key], Awaitable[Again]],
        is_news: Callable[[Key, Version], bool] = lambda key, version: True,
        workers: int = 16,
        monotonic: Callable[[], float] = time.monotonic,
    ):
        self._work = work
        self._monotonic = monotonic
        self._is_news = is_news
        self._workers = workers
        self._ready: dict[Key, None] = {}  # insertion order is the order of turns
        self._running: dict[Key, float] = {}  # key -> monotonic start
        self._turns: dict[Key, asyncio.Task[None]] = {}
        self._dirty: dict[Key, set[Version | None]] = {}
        self._due: dict[Key, float] = {}  # earliest time of a later turn
        self._heap: list[tuple[float, int, Key]] = []
        self._failures: dict[Key, int] = {}
        self._patience: dict[Key, float] = {}  # moment before which a failing job is not looked at, whatever happens
        self._count = itertools.count()
        self._wake = asyncio.Event()
        self._closed = False
        self.beat = self._monotonic()
        """When the dispatching loop last came round with no pass stuck: the operator's heartbeat."""

    def add(self, key: Key, version: Version | None = None) -> None:
        """Asks for a pass as soon as it is this job's turn, because of one object's version or for another reason.

        A failing job is not tried more than once a second, and not before the time that the API server asked for.
        """
        if key in self._running:
            self._dirty.setdefault(key, set()).add(version)
        elif version is not None and not self._is_news(key, version):
            return
        elif key in self._failures and max(self._due.get(key, 0.0), self._patience.get(key, 0.0)) > self._monotonic():
            patience = self._patience.get(key, 0.0) - self._monotonic()
            self.add_after(key, max(min(1.0, self._backoff(key)), patience))
        elif key not in self._ready:
            self._ready[key] = None
            self._wake.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Asks for a pass after a while; the earliest wish counts."""
        due = self._monotonic() + seconds
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._heap, (due, next(self._count), key))
            self._wake.set()

    def forget(self, key: Key) -> None:
        """The job is gone: no later turn, no back-off."""
        self._due.pop(key, None)
        self._failures.pop(key, None)
        self._patience.pop(key, None)

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing waits for its turn now."""
        return not self._ready and not self._running

    async def run(self) -> None:
        """Dispatches until cancelled or closed."""
        async with asyncio.TaskGroup() as group:
            while not self._closed:
                now = self._monotonic()
                if not any(now - since > STUCK_SECONDS for since in self._running.values()):
                    self.beat = now
                while self._heap and self._heap[0][0] <= now:
                    due, _, key = heapq.heappop(self._heap)
                    if self._due.get(key) == due:  # otherwise an earlier wish replaced it
                        del self._due[key]
                        self.add(key)
                while self._ready and len(self._running) < self._workers:
                    key = next(iter(self._ready))
                    del self._ready[key]
                    self._running[key] = now
                    self._turns[key] = group.create_task(self._turn(key))
                metrics.QUEUE_DEPTH.set(len(self._ready))
                self._wake.clear()
                pause = min(1.0, max(0.0, self._heap[0][0] - now)) if self._heap else 1.0
                try:
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    async def close(self, seconds: float) -> None:
        """Starts no further pass, waits a little for those that run, and cuts off what runs on: nothing is written
        afterwards. A pass may end anywhere; the next one converges."""
        self._closed = True
        self._wake.set()
        deadline = time.monotonic() + seconds
        while self._running and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        late = list(self._turns.values())
        for turn in late:
            turn.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _backoff(self, key: Key) -> float:
        return min(BACKOFF_MOST, BACKOFF_FIRST * 2.0 ** min(self._failures[key] - 1, 20))

    async def _turn(self, key: Key) -> None:
        try:
            again = await self._work(key)
        finally:
            del self._running[key], self._turns[key]
            heard = self._dirty.pop(key, set())
            self._wake.set()
        if again.failed:
            self._failures[key] = self._failures.get(key, 0) + 1
            patience = min(again.not_before, BACKOFF_MOST)
            self._patience[key] = self._monotonic() + patience
            self.add_after(key, max(self._backoff(key), again.after or 0.0, patience))
            return
        self._failures.pop(key, None)
        self._patience.pop(key, None)
        if again.after is not None:
            self.add_after(key, again.after)
        for version in heard:
            self.add(key, version)
