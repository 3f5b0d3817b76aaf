"""Workers of a rollout fleet on a real control plane: they come, are lost, are replaced and go, and their trainer never
notices but by its speed.
"""

from __future__ import annotations

from running_operator import until
from scripted_kubelet import WORLD
from scripted_trainer import Pace

from ratchet_api.protocol import LABEL_WORKER, NO_WORKERS, Exit

STAGES = [{"name": "reason", "rl": {"dataset": "sums"}, "advance": {"steps": 12}}]


def condition(status, kind):
    return next((c for c in status.get("conditions", ()) if c["type"] == kind), {"reason": ""})


async def sampling(world, **workers):
    """A job whose trainer stands at step 3, with room for four workers."""
    for number in range(4):
        await world.kubelet.add_pool(f"w{number}", hosts=1, topology="2x2")
    await (await world.operator()).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=3)
    place = {"name": "spot", "accelerator": "tpu-v6e-slice", "topology": "2x2", "chipsPerNode": 4, "capacity": "Spot"}
    rollouts = {"workers": workers, "placements": [place | {"nodeSelector": {WORLD: world.namespace}}]}
    await world.apply(stages=STAGES, rollouts=rollouts)
    await world.running(step=3)


async def fleet(world, text, restarts=0):
    return await world.until(
        f"{text} workers run",
        lambda s: (s.get("rollouts") or {}).get("text") == text and s["rollouts"].get("restarts", 0) >= restarts,
    )


async def scale(world, count):
    await world.edit(rollouts={"workers": {"max": count}})


async def pod_of(world, number):
    pods = [p for p in await world.items("pods") if p["metadata"]["labels"].get(LABEL_WORKER) == str(number)]
    return next(p for p in pods if p["status"].get("phase") == "Running")


async def worker_jobsets(world):
    return sorted(
        jobset["metadata"]["name"]
        for jobset in await world.items("jobsets")
        if LABEL_WORKER in jobset["metadata"]["labels"] and "deletionTimestamp" not in jobset["metadata"]
    )


async def test_workers_come_and_go_and_are_replaced_while_their_trainer_goes_on(world):
    await sampling(world, min=1, max=1)
    await fleet(world, "1/1")
    await scale(world, 4)
    await fleet(world, "4/4")
    lost = (await pod_of(world, 2))["spec"]["nodeName"]
    await world.kubelet.remove_node(lost)
    await world.kubelet.add_pool("w4", hosts=1, topology="2x2")
    status = await fleet(world, "4/4", restarts=1)
    assert status["counters"].get("preemptions", 0) == 0
    noticed = (await pod_of(world, 3))["spec"]["nodeName"]
    await world.kubelet.shut_down(noticed)
    await world.kubelet.add_pool("w5", hosts=1, topology="2x2")
    await fleet(world, "4/4", restarts=2)
    world.kubelet.workers[1].end(1, "crash")
    status = await fleet(world, "4/4", restarts=3)
    by_number = {worker["worker"]: worker for worker in status["rollouts"]["workers"]}
    assert [by_number[number].get("failures", 0) for number in range(4)] == [0, 1, 0, 0]
    await scale(world, 2)
    await fleet(world, "2/2")
    assert [name.split("-a")[0] for name in await worker_jobsets(world)] == ["sums-w0", "sums-w1"]
    await scale(world, 0)
    status = await fleet(world, "0/0")
    assert condition(status, "RolloutsAvailable")["reason"] == "ScaledToZero"
    (gang,) = world.kubelet.gangs.values()
    gang.end(Exit.DRAINED, NO_WORKERS)
    status = await world.until("it waits", lambda s: condition(s, "Placed")["reason"] == "WaitingForWorkers")
    assert status["attempt"]["number"] == 1
    await scale(world, 2)
    await world.running(attempt=2, step=3)
    await world.edit(suspend=True)
    await world.until("it is suspended", lambda s: s.get("phase") == "Suspended")
    await until("no worker is left", lambda: _none(world))
    await world.edit(suspend=False)
    await world.running(attempt=3, step=3)
    await fleet(world, "2/2")
    world.kubelet.pace["sums"].stop_at = None
    status = await world.completed()
    await until("no worker is left", lambda: _none(world))
    assert (status["counters"].get("failures", 0), status["counters"].get("preemptions", 0)) == (0, 0)
    assert world.kubelet.overlaps == []


async def test_workers_that_all_fail_alike_end_the_job_and_a_deleted_job_leaves_nothing(world):
    await sampling(world, min=1, max=2)
    await fleet(world, "2/2")
    ends = {0: 0, 1: 0}

    async def over():
        for number in ends:
            worker = world.kubelet.workers.get(number)
            if worker is not None and not worker.ended.done():
                worker.end(Exit.CONFIGURATION_INVALID, "no such model")
                ends[number] += 1
        return (await world.status()).get("phase") == "Failed"

    await until("the job is Failed", over)
    status = await world.status()
    failed = condition(status, "Failed")
    assert failed["reason"] == "WorkersFailed"
    assert "no such model" in failed["message"]
    assert min(ends.values()) >= 3
    assert status["counters"].get("failures", 0) == 0
    await until("no worker is left", lambda: _none(world))
    await world.api.delete(world.path("rltrainingjobs", "sums"))
    await until("nothing is left", lambda: _nothing(world))


async def _none(world):
    return await worker_jobsets(world) == []


async def _nothing(world):
    maps = [it for it in await world.items("configmaps") if it["metadata"]["name"].startswith("sums-")]
    return await world.items("jobsets") == [] and maps == []
