"""Which job is looked at when: one pass a job at a time, coalescing, fairness, back-off."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter

import pytest_asyncio

from ratchet_operator.queue import Again, Queue

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


async def test_a_failing_job_backs_off_and_others_go_on(work):
    work.answers[A] = [Again(failed=True)] * 4
    async with running(work) as queue:
        loop = asyncio.get_running_loop()
        queue.add(A)
        times = []
        for _ in range(5):
            await work.next()
            times.append(loop.time())
            queue.add(B)
            assert await work.next() == B, "nobody waits for it"
        for failures, (before, after) in enumerate(itertools.pairwise(times)):
            assert after - before >= 0.1 * 2**failures, "no sooner than twice the wait before"


async def test_an_event_wakes_a_job_that_backs_off(work):
    work.answers[A] = [Again(after=1000.0, failed=True)]
    async with running(work) as queue:
        queue.add(A)
        await work.next()
        await settled(queue)
        queue.add(A)
        assert await work.next() == A  # not after 1000 s


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


async def test_the_heart_stops_when_a_pass_hangs(work, monkeypatch):
    monkeypatch.setattr("ratchet_operator.queue.STUCK_SECONDS", 0.05)
    async with running(work) as queue:
        work.go.clear()
        queue.add(A)
        await work.next()
        await asyncio.sleep(0.06)
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
