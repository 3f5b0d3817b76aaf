"""Which job is looked at when: one pass a job at a time, coalescing, fairness, back-off."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

import pytest_asyncio

from ratchet_operator.queue import STUCK_SECONDS, Again, Queue

A, B, C = ("ns", "a"), ("ns", "b"), ("ns", "c")


class Work:
    """A pass that the test holds up and answers."""

    def __init__(self) -> None:
        self.started: asyncio.Queue = asyncio.Queue()
        self.passes: Counter = Counter()
        self.answers: dict = {}
        self.running: set = set()
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, key):
        assert key not in self.running, "two passes over one job at once"
        self.running.add(key)
        self.passes[key] += 1
        self.started.put_nowait(key)
        await self.go.wait()
        self.running.discard(key)
        answers = self.answers.get(key, [])
        return answers.pop(0) if answers else Again()

    async def next(self):
        async with asyncio.timeout(10):
            return await self.started.get()


class Clock:
    """A monotonic clock that stands still until a test moves it."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest_asyncio.fixture
async def work():
    return Work()


@contextlib.asynccontextmanager
async def running(work, workers=16, **more):
    queue = Queue(work, workers=workers, **more)
    task = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def settled(queue):
    async with asyncio.timeout(10):
        while not queue.idle:
            await asyncio.sleep(0.005)


async def test_triggers_during_a_pass_become_one_more_pass(work):
    async with running(work) as queue:
        work.go.clear()
        queue.add(A)
        await work.next()
        for _ in range(50):
            queue.add(A)
        work.go.set()
        await work.next()
        await settled(queue)
    assert work.passes[A] == 2


async def test_a_busy_job_does_not_starve_the_others(work):
    async with running(work, workers=1) as queue:
        work.go.clear()
        queue.add(A)
        await work.next()
        for key in (A, B, C):
            queue.add(key)
        work.go.set()
        assert [await work.next() for _ in range(3)] == [B, C, A]


async def test_a_failing_job_waits_twice_as_long_each_time_and_others_go_on(work):
    work.answers[A] = [Again(failed=True)] * 4
    clock = Clock()
    async with running(work, monotonic=clock) as queue:
        queue.add(A)
        assert await work.next() == A
        for wait in (0.1, 0.2, 0.4, 0.8):
            await settled(queue)
            clock.now += wait - 0.01
            queue.add(B)
            assert await work.next() == B, "nobody waits for it, and it is not its turn yet"
            await settled(queue)
            clock.now += 0.02
            queue.add(B)  # wakes the loop
            assert [await work.next(), await work.next()] == [B, A]


async def test_an_event_wakes_a_job_that_backs_off(work):
    work.answers[A] = [Again(after=1000.0, failed=True)]
    async with running(work) as queue:
        queue.add(A)
        await work.next()
        await settled(queue)
        queue.add(A)
        assert await work.next() == A  # not after 1000 s


async def test_nothing_wakes_a_job_before_the_time_that_the_server_asked_for(work):
    work.answers[A] = [Again(failed=True, not_before=30.0)]
    clock = Clock()
    async with running(work, monotonic=clock) as queue:
        queue.add(A)
        await work.next()
        await settled(queue)
        for _ in range(3):
            queue.add(A)  # an event
            queue.add_after(A, 0.5)  # progress
            clock.now += 9.9
            queue.add(B)
            assert await work.next() == B
            await settled(queue)
        clock.now += 0.4
        queue.add(B)
        assert [await work.next(), await work.next()] == [B, A]
        await settled(queue)
        queue.add(A)
        assert await work.next() == A, "and then it is a job like any other"


async def test_the_echo_of_a_write_is_no_reason_to_look_again(work):
    seen = {("uid", "7")}
    async with running(work, is_news=lambda key, version: version not in seen) as queue:
        work.go.clear()
        queue.add(A, ("uid", "6"))
        await work.next()
        queue.add(A, ("uid", "7"))  # during the pass that writes it
        work.go.set()
        await settled(queue)
        queue.add(A, ("uid", "7"))  # after it
        await settled(queue)
        assert work.passes[A] == 1
        queue.add(A, ("uid", "8"))
        await work.next()
        await settled(queue)
    assert work.passes[A] == 2


async def test_the_earliest_wish_to_look_again_counts(work):
    async with running(work) as queue:
        queue.add_after(A, 1000.0)
        queue.add_after(A, 0.01)
        queue.add_after(A, 1000.0)
        assert await work.next() == A
        await settled(queue)
    assert work.passes[A] == 1


async def test_a_forgotten_job_is_not_looked_at_again(work):
    async with running(work) as queue:
        queue.add_after(A, 0.05)
        queue.forget(A)
        queue.add_after(B, 0.1)
        assert await work.next() == B
    assert work.passes[A] == 0


async def test_the_heart_stops_when_a_pass_hangs(work):
    clock = Clock()
    async with running(work, monotonic=clock) as queue:
        work.go.clear()
        queue.add(A)
        await work.next()
        clock.now += STUCK_SECONDS + 1
        stopped = queue.beat
        queue.add(B)  # wakes the loop
        await work.next()
        assert queue.beat == stopped
        work.go.set()
        await settled(queue)
        queue.add(C)
        await work.next()
        assert queue.beat > stopped


async def test_a_pass_that_runs_on_is_cut_off_at_the_end(work):
    """Once the queue is closed nothing writes any more: the Lease may be given up."""
    async with running(work) as queue:
        work.go.clear()
        queue.add(A)
        await work.next()
        await queue.close(0.05)
        assert queue.idle
        work.go.set()
        await asyncio.sleep(0)
        assert work.running == {A}, "it did not go on to its end"
