"""An operator that is killed after each single write of a job's whole life reaches the same end as one that lives."""

from __future__ import annotations

import asyncio
import os
import signal

from aiohttp import web
from faultproxy import Cut, Request
from running_operator import until
from scripted_trainer import Pace


async def test_killed_after_every_write_it_converges(world):
    world.kubelet.pace["sums"] = Pace(stop_at=6)
    kills = []

    async def kill_after(request: Request) -> web.Response | None:
        if request.is_write:
            status, headers, body = await request.forward()
            if status >= 300:
                return web.Response(status=status, headers=headers, body=body)  # nothing was written
            kills.append(f"{request.method} {request.path}")
            os.kill(operator.pid, signal.SIGKILL)
            raise Cut
        return None

    operator = await (await world.operator(supervised=False)).leads()
    keeper = asyncio.create_task(restart_for_ever(operator))
    world.proxy.fault("POST|PUT|PATCH|DELETE", "", kill_after, times=10**6)
    await world.apply()
    await world.running(step=6)
    spare = await world.kubelet.add_pool("b")
    world.kubelet.pace["sums"].stop_at = None
    for node in [name for name in world.kubelet.nodes if name not in spare]:
        await world.kubelet.remove_node(node)
    status = await world.completed()
    keeper.cancel()
    assert len(kills) > 8, "it was killed often"
    assert status["attempt"]["number"] == 2
    assert status["counters"]["preemptions"] == 1
    assert status["counters"].get("failures", 0) == 0
    assert [s["endStep"] for s in status["stages"]] == [10, 30]
    assert world.kubelet.overlaps == [], "never two attempts at once"
    first, second = world.kubelet.gangs.values()
    assert first.steps_run + second.steps_run == list(range(1, 31))
    created = [request for request in kills if request.startswith("POST") and "jobsets" in request]
    assert len(created) == 2, "one JobSet an attempt"
    # The pods of nodes that are gone go with PodGC, which takes its time.
    await until("only the last attempt's pods are left", lambda: one_attempt(world), seconds=150)


async def test_killed_before_it_records_the_next_stage_it_advances_once(world):
    kills = []

    world.kubelet.pace["sums"] = Pace(boundary_wait=600.0)  # the trainer waits for whoever comes back

    async def kill_before(request: Request) -> None:
        if not kills and (request.json["status"].get("stage") or {}).get("index") == 1:
            kills.append(request.path)
            os.kill(operator.pid, signal.SIGKILL)
            raise Cut

    operator = await (await world.operator(supervised=False)).leads()
    keeper = asyncio.create_task(restart_for_ever(operator))
    world.proxy.fault("PUT", "/rltrainingjobs/sums/status$", kill_before, times=10**6)
    await world.apply()
    status = await world.completed()
    keeper.cancel()
    assert len(kills) == 1
    assert [(s["name"], s["startStep"], s["endStep"]) for s in status["stages"]] == [
        ("warm-up", 0, 10),
        ("reason", 10, 30),
    ]
    told = [
        message for reason, message in await world.events() if reason == "StageBegins" and "reason begins" in message
    ]
    assert len(told) == 1
    assert status["attempt"]["number"] == 1
    (gang,) = world.kubelet.gangs.values()
    assert gang.steps_run == list(range(1, 31))


async def restart_for_ever(operator):
    while True:
        await operator.process.wait()
        await operator.start()


async def one_attempt(world):
    return {pod["metadata"]["labels"]["ratchet.dev/attempt"] for pod in await world.items("pods")} <= {"2"}
