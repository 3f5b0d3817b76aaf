"""Machines that go twice, or do not answer; checkpoints that are gone; a trainer that always fails: on a real control
plane, with scripted trainers.
"""

from __future__ import annotations

from running_operator import until
from scripted_trainer import Pace

from ratchet_api.protocol import Exit


def condition(status, kind):
    return next((c for c in status.get("conditions", ()) if c["type"] == kind), {"reason": ""})


async def pods_of(world, attempt):
    """Pods of one attempt that have a node."""
    pods = [
        pod for pod in await world.items("pods") if pod["metadata"]["labels"]["ratchet.dev/attempt"] == str(attempt)
    ]
    return [pod for pod in pods if pod["spec"].get("nodeName")]


async def lose(world, nodes):
    for node in nodes:
        await world.kubelet.remove_node(node)


async def at_step_six(world, **spec):
    """The nodes of a running job that has made six steps."""
    await (await world.operator()).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=6)
    await world.apply(**spec)
    await world.running(step=6)
    return list(world.kubelet.nodes)


async def test_a_second_preemption_during_the_restart_is_one_attempt_more(world):
    first = await at_step_six(world)
    for pool in ("b", "c"):
        await world.kubelet.add_pool(pool)
    world.kubelet.hold_start.clear()
    await lose(world, first)

    async def both_bound():
        pods = await pods_of(world, 2)
        return pods if len(pods) == 2 else None

    second = {pod["spec"]["nodeName"] for pod in await until("attempt 2 has its nodes", both_bound)}
    await lose(world, second)
    world.kubelet.hold_start.set()
    world.kubelet.pace["sums"].stop_at = None
    status = await world.completed()
    assert (status["attempt"]["number"], status["counters"]["attempts"]) == (3, 3)
    assert (status["counters"]["preemptions"], status["counters"].get("failures", 0)) == (2, 0)
    assert world.kubelet.overlaps == []
    made = [write for write in world.proxy.writes if write[0] == "POST" and write[1].endswith("/jobsets")]
    assert len(made) == 3, "one JobSet an attempt"


async def test_a_pod_on_a_machine_that_does_not_answer_holds_the_next_attempt(world):
    """It may still write. Once somebody has seen to it that the machine is off, the job goes on."""
    first, second = await at_step_six(world)
    await world.kubelet.add_pool("b")
    pods = {pod["spec"]["nodeName"]: pod for pod in await pods_of(world, 1)}
    await world.kubelet.freeze(first)
    await world.kubelet.kill(pods[second], Exit.PEER_LOST)
    status = await world.until(
        "attempt 2 waits",
        lambda s: s["attempt"]["number"] == 2 and condition(s, "Placed")["reason"] == "WaitingForOldPods",
    )
    words = condition(status, "Placed")["message"]
    assert pods[first]["metadata"]["name"] in words
    assert "out-of-service" in words
    assert await world.gone("jobsets", "sums-a2")
    world.kubelet.pace["sums"].stop_at = None
    await world.kubelet.put_out_of_service(first)
    status = await world.completed()
    assert status["attempt"]["number"] == 2
    assert status["counters"].get("failures", 0) == 0
    assert world.kubelet.overlaps == []


async def test_storage_that_cannot_be_reached_is_tried_again_later_and_nobody_starts_over(world):
    await at_step_six(world)
    (gang,) = world.kubelet.gangs.values()
    gang.end(Exit.STORAGE_UNAVAILABLE, "cannot reach the bucket")
    status = await world.until("it backs off", lambda s: condition(s, "Placed")["reason"] == "BackingOff")
    (record,) = status["attempts"]
    assert (record["verdict"], record["chargedTo"]) == ("StorageUnavailable", "nothing")
    assert status["checkpoint"]["step"] == 6
    assert status["phase"] == "Recovering"


async def test_checkpoints_that_are_gone_after_progress_end_the_job_and_never_start_it_over(world):
    taken = await at_step_six(world)
    await world.until("step 6 is known", lambda s: (s.get("checkpoint") or {}).get("step", 0) > 0)
    world.excused = {"I4": "the test takes the checkpoints away"}
    await world.kubelet.add_pool("b")
    del world.kubelet.storage["sums"]
    await lose(world, taken)
    status = await world.until("the job is Failed", lambda s: s.get("phase") == "Failed")
    assert condition(status, "Failed")["reason"] == "CheckpointUnreadable"
    assert "checkpoint.directory" in condition(status, "Failed")["message"]
    assert world.kubelet.gangs[status["attempt"]["jobSetUID"]].steps_run == []


async def test_an_older_checkpoint_that_a_user_put_back_is_accepted_once(world):
    taken = await at_step_six(world)
    known = await world.until("a step is known", lambda s: (s.get("checkpoint") or {}).get("step", 0) > 2)
    world.excused = {"I4": "the test puts an older checkpoint in the place of the newest"}
    await world.kubelet.add_pool("b")
    world.kubelet.storage["sums"].step = 2
    await lose(world, taken)
    world.kubelet.pace["sums"].stop_at = None
    status = await world.completed()
    assert status["attempt"]["number"] == 2
    assert status["attempt"]["startStep"] == 2
    assert status["counters"]["stepsLost"] >= known["checkpoint"]["step"] - 2
    told = [message for reason, message in await world.events() if reason == "OlderCheckpoint"]
    assert len(told) == 1
    assert "from step 2" in told[0]
    assert world.kubelet.gangs[status["attempt"]["jobSetUID"]].steps_run == list(range(3, 31))


async def test_code_that_always_fails_spends_the_budget_and_says_how_it_failed(world):
    """Time is made to fly: giving up waits for two minutes, in which a lost machine may still come to light."""
    await (await world.operator(RATCHET_RESYNC_SECONDS="0.2")).leads()  # each list of it moves the clock on
    world.kubelet.pace["sums"] = Pace(crash=(0, 1, "ImportError: no module named rewards"))
    await world.apply(restart={"failureLimit": 1})
    await world.until("the budget is spent", lambda s: condition(s, "Placed")["reason"] == "AwaitingEvidence")
    fast = 0.0

    def ahead(actor):
        nonlocal fast
        fast += 1.0
        return fast

    world.proxy.skew = ahead

    async def failed():
        await world.touch()
        return (await world.status()).get("phase") == "Failed"

    await until("the job is Failed", failed)
    status = await world.status()
    over = condition(status, "Failed")
    assert over["reason"] == "FailureLimitExceeded"
    assert "ImportError" in over["message"]
    assert "code 1" in over["message"]
    assert (status["attempt"]["number"], status["counters"]["failures"]) == (2, 2)
