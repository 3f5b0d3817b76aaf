"""What the operator sees may be late, lost or from the past: it finds out, and starts nothing twice."""

from __future__ import annotations

import asyncio
import json

from aiohttp import web
from faultproxy import error_event
from history import POD
from running_operator import until
from scripted_trainer import Pace


async def test_lost_watch_events_are_found_by_the_periodic_list(world):
    operator = await (await world.operator(RATCHET_RESYNC_SECONDS="0.5")).leads()
    world.proxy.lose_event = lambda event: event["type"] != "BOOKMARK"
    await world.apply()
    status = await world.completed()
    assert status["attempt"]["number"] == 1
    assert operator.metric("ratchet_resync_found_total") > 0


async def test_a_failed_pod_that_no_watch_told_of_is_found_by_the_periodic_list(world):
    await (await world.operator(RATCHET_RESYNC_SECONDS="0.5")).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=5)
    await world.apply()
    status = await world.running(step=5)
    world.proxy.lose_event = lambda event: event["type"] != "BOOKMARK"
    world.kubelet.gangs[status["attempt"]["jobSetUID"]].end(1, "IndexError")
    world.kubelet.pace["sums"].stop_at = None
    status = await world.completed()
    (record,) = status["attempts"][:-1]
    assert (record["verdict"], record["chargedTo"]) == ("ApplicationFailed", "failures")
    assert (status["attempt"]["number"], status["counters"]["failures"]) == (2, 1)


async def test_pods_that_are_gone_but_still_listed_are_not_ended_again(world):
    """A preemption is counted once, whatever a lagging list still shows of it."""
    await (await world.operator(RATCHET_RESYNC_SECONDS="0.5")).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=6)
    await world.apply()
    await world.running(step=6)
    taken = list(world.kubelet.nodes)
    await world.kubelet.add_pool("b")
    await asyncio.gather(*map(world.kubelet.shut_down, taken))
    await world.running(attempt=2, step=6)
    failed = [it for it in world.recorder.versions if it.kind == POD and it.raw["status"].get("phase") == "Failed"]
    gone = {it.uid: it.raw for it in failed}
    assert len(gone) == 2

    async def list_them_still(request):
        if "labelSelector" not in request.query or "watch" in request.query:
            return None
        status, headers, content = await request.forward()
        body = json.loads(content)
        there = {pod["metadata"]["uid"] for pod in body["items"]}
        body["items"] += [pod for uid, pod in gone.items() if uid not in there]
        headers.pop("Content-Length", None)
        return web.Response(status=status, headers=headers, body=json.dumps(body).encode())

    lagging = world.proxy.fault("GET", "/pods$", list_them_still, times=4)
    world.kubelet.pace["sums"].stop_at = None
    status = await world.completed()
    assert lagging.hits
    assert (status["attempt"]["number"], status["counters"]["preemptions"]) == (2, 1)
    assert world.kubelet.overlaps == []


async def test_an_old_version_of_the_job_is_never_written_over_the_new_one(world):
    """A lagging server and a watch out of the past show attempt 1 when there are two, and something is to be done: the
    write is refused."""
    await (await world.operator()).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=6)
    await world.apply()
    await world.running(step=6)
    past = await world.job()
    first = list(world.kubelet.nodes)
    await world.kubelet.add_pool("b")
    for node in first:
        await world.kubelet.remove_node(node)
    await world.running(attempt=2, step=6)

    async def replay(request):
        return web.json_response(past)

    second = [node for node in world.kubelet.nodes if node not in first]
    await world.kubelet.add_pool("c")
    replayed = world.proxy.fault("GET", "/rltrainingjobs/sums$", replay, times=3)
    world.proxy.say_in_watch("rltrainingjobs", {"type": "MODIFIED", "object": past})
    for node in second:
        await world.kubelet.remove_node(node)
    await until("it is shown", lambda: replayed.hits == 3)
    world.kubelet.pace["sums"].stop_at = None
    status = await world.completed()
    refused = [write for write in world.proxy.writes if write[0] == "PUT" and write[2] == 409]
    assert refused, "it was tried, and the resourceVersion held"
    assert (status["attempt"]["number"], status["counters"]["preemptions"]) == (3, 2)
    assert "StatusReset" not in dict(await world.events())
    assert world.kubelet.overlaps == []


async def test_an_expired_watch_is_listed_again(world):
    await (await world.operator()).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=5)
    await world.apply()
    await world.running(step=5)
    for plural in ("pods", "rltrainingjobs", "jobsets", "nodes"):
        world.proxy.say_in_watch(plural, error_event(410, "Expired"))
    world.kubelet.pace["sums"].stop_at = None
    status = await world.completed()
    assert status["attempt"]["number"] == 1


async def test_watches_that_break_for_good_start_the_worker_again(world):
    operator = await (await world.operator()).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=5)
    await world.apply()
    await world.running(step=5)
    first = operator.worker
    world.proxy.say_in_watch("pods", error_event(500, "InternalError"))
    await until("another worker", lambda: operator.worker not in (None, first))
    world.kubelet.pace["sums"].stop_at = None
    status = await world.completed()
    assert status["attempt"]["number"] == 1


async def test_lists_from_the_past_start_nothing_twice(world):
    """A lagging API server shows the pods of the attempt before; preconditions and the next look hold."""
    await (await world.operator(RATCHET_RESYNC_SECONDS="0.5")).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=6)
    await world.apply()
    await world.running(step=6)
    past = {}

    async def remember(request):
        if "labelSelector" in request.query and "watch" not in request.query:
            past[request.path] = await request.forward()

    fault = world.proxy.fault("GET", "/(pods|jobsets)$", remember, times=10)
    await until("lists are remembered", lambda: len(past) == 2)
    fault.times = 0
    spare = await world.kubelet.add_pool("b")
    for node in [name for name in world.kubelet.nodes if name not in spare]:
        await world.kubelet.remove_node(node)
    await world.running(attempt=2, step=6)

    async def replay(request):
        if request.path in past and "watch" not in request.query:
            status, headers, body = past[request.path]
            return web.Response(status=status, headers=headers, body=body)
        return None

    replayed = world.proxy.fault("GET", "/(pods|jobsets)$", replay, times=6)
    world.kubelet.pace["sums"].stop_at = None
    status = await world.completed()
    assert replayed.hits == 6
    assert world.kubelet.overlaps == []
    assert status["counters"].get("failures", 0) == 0
    assert status["stages"][-1]["endStep"] == 30
