"""Maintenance on a real control plane with the real scheduler: announced, begun, over, on a slice of two hosts."""

from __future__ import annotations

import time

from running_operator import until
from scripted_trainer import Pace


async def running(world, step: int = 6):
    """The gang of a job that stands still at that step, on the nodes of pool a."""
    await (await world.operator()).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=step)
    await world.apply()
    status = await world.running(step=step)
    return world.kubelet.gangs[status["attempt"]["jobSetUID"]]


async def test_a_slice_in_maintenance_is_left_for_another_and_no_step_is_made_twice(world):
    gang = await running(world)
    nodes = list(world.kubelet.nodes)
    for name in nodes:
        await world.kubelet.label(name, scheduled_maintenance_time=str(int(time.time()) + 1800))
    await until("a checkpoint is asked for", lambda: gang.checkpoints_asked)
    assert not gang.draining, "what is announced ends nothing"
    spare = await world.kubelet.add_pool("b")
    world.kubelet.pace["sums"].stop_at = None
    for name in nodes:
        await world.kubelet.maintain(name)
    status = await world.completed()
    (record,) = status["attempts"][:1]
    assert (record["verdict"], record["notice"], record["stepsLost"]) == ("Maintenance", "graceful", 0)
    assert status["counters"].get("failures", 0) == 0
    assert not world.kubelet.overlaps
    made = [step for gang in world.kubelet.gangs.values() for step in gang.steps_run]
    assert made == list(range(1, 31)), "every step once"
    pods = [pod for pod in await world.items("pods") if pod["metadata"]["labels"]["ratchet.dev/attempt"] == "2"]
    assert {pod["spec"]["nodeName"] for pod in pods} == set(spare)
    assert "MaintenanceAnnounced" in dict(await world.events())


async def test_a_new_attempt_prefers_nodes_without_a_maintenance_that_is_due(world):
    """Both pools are free when the attempt begins; the scheduler takes the one that stays."""
    await (await world.operator()).leads()
    for name in list(world.kubelet.nodes):
        await world.kubelet.label(name, scheduled_maintenance_time=str(int(time.time()) + 1800))
    late = await world.kubelet.add_pool("late")
    for name in late:
        await world.kubelet.label(name, scheduled_maintenance_time=str(int(time.time()) + 7 * 86_400))
    await world.apply()
    await world.completed()
    assert {pod["spec"]["nodeName"] for pod in await world.items("pods")} == set(late)


async def test_a_machine_that_comes_back_under_its_name_was_lost(world):
    gang = await running(world)
    name = list(world.kubelet.nodes)[1]
    world.kubelet.pace["sums"].stop_at = None
    await world.kubelet.restart_machine(name)
    status = await world.completed()
    record = status["attempts"][0]
    assert (record["verdict"], record["chargedTo"]) == ("NodeLost", "preemptions")
    assert "was started anew" in record["evidence"]
    assert gang.step >= 6
    assert status["counters"].get("failures", 0) == 0
