"""No phase of an attempt is without a clock: of one that tells of no progress, nothing, or never starts."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiohttp import web
from plan_story import Story

from ratchet_cluster.ports import free_ports
from ratchet_operator import progress as polling
from ratchet_operator.clock import Clock
from ratchet_operator.decide import stamps
from ratchet_operator.job_metrics import phase_reason
from ratchet_operator.progress import Leader, Progress

DEADLINE = {"progressDeadlineSeconds": 120}


def silent(story: Story) -> Story:
    """Nothing is heard from now on, which the poller says after a minute."""
    story.silent_since = story.now
    story.later(60).settle()
    return story


def test_a_trainer_that_falls_silent_is_unknown_and_then_hung():
    story = Story(restart=DEADLINE).begin()
    story.report(step=3, phase="update").settle()
    silent(story)
    said = story.condition("Progressing")
    assert (said["status"], said["reason"]) == ("Unknown", "NoAnswer")
    assert "port 8490" in said["message"], "what may be the matter"
    assert phase_reason(story.status) == ("Running", "NoAnswer")
    assert "NoAnswer" in story.events
    assert story.decide().requeue_after == pytest.approx(120, abs=1), "it looks again at one and a half times 120 s"
    story.later(119).settle()
    assert story.attempt["number"] == 1
    assert "endedTime" not in story.attempt
    plan = story.later(1).decide()
    assert story.record(1)["verdict"] == "Hung"
    assert story.counters["failures"] == 1
    assert {d.grace_seconds for d in plan.delete if d.kind == "Pod"} == {30}, "who only cannot be heard may commit"


def test_a_trainer_that_never_answers_has_the_time_of_a_start():
    story = silent(Story(restart=DEADLINE).begin())
    assert story.condition("Progressing")["reason"] == "NoAnswer"
    story.later(1.5 * 3600 - 61).settle()
    assert "endedTime" not in story.attempt
    story.later(1).settle()
    assert story.record(1)["verdict"] == "Hung"
    assert "has not answered for 5400 s" in story.record(1)["evidence"]


def test_an_answer_ends_the_silence():
    story = silent(Story(restart=DEADLINE).begin())
    story.silent_since = None
    story.report(step=1).settle()
    assert (story.condition("Progressing")["status"], story.condition("Progressing")["reason"]) == ("True", "Training")
    story.later(3600).settle()
    assert "endedTime" not in story.attempt


def test_ten_minutes_without_progress_start_no_new_attempt():
    """Status calls of a healthy job that time out are no reason to recover it."""
    story = Story().begin()
    story.report(step=3).settle()
    story.silent_since = story.now
    for _ in range(10):
        story.later(60).settle()
    assert (story.attempt["number"], story.counters.get("failures", 0)) == (1, 0)
    assert len(story.jobsets) == 1


def test_a_restarted_operator_goes_on_counting_and_does_not_begin_with_a_verdict():
    story = Story(restart=DEADLINE).begin()
    story.later(1).report(step=3, phase="update").settle()
    silent(story)
    story.progress = story.silent_since = None
    story.later(100).settle()
    assert story.condition("Progressing")["reason"] == "NoAnswer", "nothing has been heard yet"
    story.silent_since = story.now
    story.later(80).settle()
    assert story.record(1)["verdict"] == "Hung", "180 s after silence was noted"
    fresh = Story(restart=DEADLINE).begin()
    fresh.report(step=3, phase="update").settle()
    fresh.progress = None
    fresh.later(86_400).settle()
    assert "endedTime" not in fresh.attempt, "an operator that was away knows nothing bad"


def test_a_pod_that_has_a_node_and_never_runs_is_a_failed_start():
    story = Story()
    story.settle()
    story.make_pods()
    story.place()
    story.settle()
    assert story.later(5).decide().requeue_after == pytest.approx(5395, abs=1)
    story.later(5396).settle()
    assert story.record(1)["verdict"] == "StartFailed"
    assert "sums-a1-s-0-0" in story.record(1)["evidence"]


async def test_the_poller_tells_of_silence_and_of_its_end(monkeypatch):
    """By a trainer that takes calls and answers none, one that answers for another attempt, and one that answers."""
    (port,) = free_ports(1)
    for name, value in {"PORT": port, "SILENT_SECONDS": 0.2, "HOLD_SECONDS": 0.1, "RETRY_MOST": 0.05}.items():
        monkeypatch.setattr(polling, name, value)
    leader, how, told = Leader("127.0.0.1", "job-uid", 1, "set-uid"), ["hangs"], asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if how[0] == "hangs":
            await asyncio.sleep(60)
        said = {"jobUID": "job-uid", "attempt": 2 if how[0] == "lies" else 1, "jobSetUID": "set-uid"}
        return web.json_response({"v": 1, **said, "revision": "1", "phase": "update"})

    app = web.Application()
    app.router.add_get("/progress", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    clock = Clock()
    progress = Progress(clock, lambda key, urgent: told.set() if urgent else None)
    key = ("team", "sums")
    try:
        clock.hear("Mon, 30 Nov 2026 09:00:00 GMT", time.monotonic(), time.monotonic())
        began = clock.now()
        progress.follow(key, leader)
        assert progress.silent_since(key) is None
        await heard(told)
        since = progress.silent_since(key)
        assert since is not None
        assert stamps.seconds(since) >= stamps.seconds(began)
        how[0] = "lies"
        await asyncio.sleep(0.2)
        assert progress.silent_since(key) == since, "an answer for another attempt is none"
        how[0] = "answers"
        await heard(told)
        assert progress.silent_since(key) is None
        await runner.cleanup()
        await heard(told)
        assert stamps.seconds(progress.silent_since(key) or began) > stamps.seconds(since), "since the last answer"
        progress.follow(key, None)
        assert progress.silent_since(key) is None
    finally:
        await progress.close()
        await runner.cleanup()


async def heard(told: asyncio.Event) -> None:
    async with asyncio.timeout(30):
        await told.wait()
    told.clear()
