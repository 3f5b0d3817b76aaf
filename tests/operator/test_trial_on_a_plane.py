"""Cases of the hostile trial, and of other operators' users, on a real API server: what it refuses is said on the job,
what is over stays over, and every way out that a message names is one."""

from __future__ import annotations

import pytest
from running_operator import until
from scripted_trainer import Pace

from ratchet_api.protocol import Exit
from ratchet_cluster.api import ApiError

AGAIN = {"id": 1, "stage": "reason"}
TOO_HIGH, LOWER = {"learningRate": "1e299"}, {"learningRate": "1e-6"}


def condition(status, kind):
    return next((c for c in status.get("conditions", ()) if c["type"] == kind), {})


def explodes(stage):
    """A learning rate that no step survives."""
    rate = (stage.get("rl") or {}).get("optimizer", {}).get("learningRate")
    return int(Exit.DETERMINISTIC_FAILURE) if rate == TOO_HIGH["learningRate"] else None


def stages(rate):
    return [
        {"name": "warm-up", "sft": {"dataset": "sums"}, "advance": {"steps": 10}},
        {"name": "reason", "rl": {"dataset": "sums", "method": "grpo", "optimizer": rate}, "advance": {"steps": 20}},
    ]


async def failed_in_its_second_stage(world):
    world.kubelet.pace["sums"] = Pace(fails=explodes)
    await world.apply(stages=stages(TOO_HIGH))
    status = await world.until("the job is Failed", lambda s: s.get("phase") == "Failed")
    failed = condition(status, "Failed")
    assert failed["reason"] == "DeterministicFailure"
    assert "spec.rewind: {id: 1, stage: reason}" in failed["message"]
    return status


async def test_a_failed_job_goes_on_with_other_settings_by_an_edit(world):
    await (await world.operator()).leads()
    await failed_in_its_second_stage(world)
    with pytest.raises(ApiError, match=r"where spec\.rewind begins it again"):
        await world.edit(stages=stages(LOWER))
    await world.edit(stages=stages(LOWER), rewind=AGAIN)
    status = await world.completed()
    assert [(s["name"], s["startStep"], s["endStep"]) for s in status["stages"]] == [
        ("warm-up", 0, 10),
        ("reason", 10, 30),
    ]
    assert status["rewind"]["lineage"] == 2
    gang = world.kubelet.gangs[status["attempt"]["jobSetUID"]]
    assert gang.steps_run == list(range(11, 31)), "from the end of the stage before"
    with pytest.raises(ApiError, match="id only grows"):
        await world.edit(rewind={"id": 1, "stage": "warm-up"})
    await world.edit(suspend=True)
    await world.until("the edit was seen", lambda s: s["observedGeneration"] == 3)
    await until("an event says so", lambda: has_event(world, "EditIgnored"))


async def test_another_job_goes_on_from_a_failed_ones_directory_and_none_from_a_live_ones(world):
    await (await world.operator()).leads()
    await failed_in_its_second_stage(world)
    checkpoint = {"directory": "/checkpoints/sums", "claimName": "checkpoints", "existing": "Resume"}
    world.kubelet.storage["heir"] = world.kubelet.storage["sums"]
    world.kubelet.pace["heir"] = Pace(fails=explodes, stop_at=15)
    await world.apply("heir", stages=stages(LOWER), checkpoint=checkpoint, rewind=AGAIN)
    await world.running(name="heir", step=15)
    await world.apply("third", stages=stages(LOWER), checkpoint=checkpoint)
    refused = await world.until("it is refused", lambda s: condition(s, "Accepted").get("status") == "False", "third")
    assert f"job {world.namespace}/heir works in it" in condition(refused, "Accepted")["message"]
    world.kubelet.pace["heir"].stop_at = None
    status = await world.completed("heir")
    gang = world.kubelet.gangs[status["attempt"]["jobSetUID"]]
    assert gang.steps_run == list(range(11, 31))
    assert status["attempt"]["number"] == 1
    world.kubelet.storage["third"] = world.kubelet.storage["heir"]
    await world.until("its turn comes", lambda s: s.get("attempt", {}).get("number") == 1, "third")
    assert (await world.status("heir"))["phase"] == "Completed"


async def test_who_refuses_pods_and_jobsets_is_said_on_the_job(world):
    await (await world.operator()).leads()
    quotas = world.path("pods").replace("/pods", "/resourcequotas")

    async def quota(name, what, **more):
        spec = {"hard": {what: "0"}} | more
        body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": spec}
        await world.api.create(quotas, body)
        await until("it is in force", lambda: in_force(name))

    async def in_force(name):
        return ((await world.api.get(f"{quotas}/{name}")).get("status") or {}).get("hard")

    await quota("no-jobsets", "count/jobsets.jobset.x-k8s.io")
    await world.apply()
    status = await world.until("it says so", lambda s: condition(s, "Placed").get("reason") == "CreateRefused")
    assert "quota: no-jobsets" in condition(status, "Placed")["message"], "exceeded, or not yet counted"
    assert "Forbidden" not in dict(await world.events()), "no right is missing"
    await quota("no-pods", "pods", scopes=["NotTerminating"])  # of one for all pods Ratchet itself knows, beforehand
    await world.api.delete(f"{quotas}/no-jobsets")
    status = await world.until("it says so", lambda s: condition(s, "Placed").get("reason") == "PodsRefused")
    assert "exceeded quota: no-pods" in condition(status, "Placed")["message"]
    await world.edit(suspend=True)
    await world.until("a job that never started can rest", lambda s: s["phase"] == "Suspended")
    await world.api.delete(f"{quotas}/no-pods")
    await world.edit(suspend=False)
    status = await world.completed()
    assert status["counters"].get("failures", 0) == 0


async def test_what_is_left_of_a_job_that_is_over_may_go_and_nothing_is_made_again(world):
    await (await world.operator(RATCHET_RESYNC_SECONDS="0.5")).leads()
    await world.apply("done")
    completed = await world.completed("done")
    world.kubelet.pace["sums"] = Pace(fails=explodes)
    await world.apply(stages=stages(TOO_HIGH))
    failed = await world.until("the job is Failed", lambda s: s.get("phase") == "Failed")
    for name in ("done-a1", "sums-a1"):
        await world.api.delete(world.path("jobsets", name))
        await until("it is gone", lambda name=name: world.gone("jobsets", name))
    seen = world.proxy.requests
    await until("the operator has looked again", lambda: world.proxy.requests > seen + 20)
    assert await world.items("jobsets") == []
    for name, before in (("done", completed), ("sums", failed)):
        after = await world.status(name)
        assert (after["phase"], after["counters"]) == (before["phase"], before["counters"])


async def test_a_job_that_is_suspended_while_it_starts_leaves_nothing_and_rests_after_its_last_pod(world):
    await (await world.operator()).leads()
    world.kubelet.hold_start.clear()
    await world.apply()
    await until("pods are bound", lambda: bound(world))
    await world.edit(suspend=True)
    world.kubelet.hold_start.set()
    await world.until("it rests", lambda s: s["phase"] == "Suspended")
    assert [p for p in await world.items("pods") if p["status"]["phase"] in ("Pending", "Running")] == []
    assert await world.items("jobsets") == []
    await world.edit(suspend=False)
    await world.completed()


async def test_a_leader_that_is_deleted_is_replaced_and_never_waited_for(world):
    await (await world.operator()).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=5)
    await world.apply()
    await world.running(step=5)
    leader = next(p for p in await world.items("pods") if p["metadata"]["name"].startswith("sums-a1-s-0-0"))
    await world.api.delete(world.path("pods", leader["metadata"]["name"]))
    await world.running(attempt=2, step=5)
    world.kubelet.pace["sums"].stop_at = None
    status = await world.completed()
    assert status["attempts"][0]["verdict"] == "Deleted"
    assert world.kubelet.overlaps == []


async def test_a_named_code_wins_over_its_echo_on_another_host(world):
    await (await world.operator()).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=5)
    await world.apply()
    status = await world.running(step=5)
    gang = world.kubelet.gangs[status["attempt"]["jobSetUID"]]

    async def names_the_cause():
        gang.draining = True
        gang.end(Exit.CONFIGURATION_INVALID, "ConfigurationInvalid")

    gang.sigterm = names_the_cause  # while it is being ended for the other's sake
    follower = next(p for p in await world.items("pods") if p["metadata"]["name"].startswith("sums-a1-s-0-1"))
    await world.kubelet.kill(follower, Exit.PEER_LOST)
    status = await world.until("the job is Failed", lambda s: s.get("phase") == "Failed")
    assert condition(status, "Failed")["reason"] == "ConfigurationInvalid"
    assert status["attempt"]["number"] == 1, "no second gang"


async def test_a_pass_that_fails_is_a_condition_of_its_job_and_others_go_on(world):
    """A date that somebody wrote into status, and that no clock can come to."""
    await (await world.operator()).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=5)
    await world.apply()
    await world.running(step=5)
    path = world.path("rltrainingjobs", "sums") + "/status"

    async def remember(*attempts):
        await world.api.patch(path, {"status": {"attempts": list(attempts)}}, "application/merge-patch+json")

    await remember({"number": 7, "verdict": "Preempted", "finalTime": "9999-12-31T23:59:59Z"})
    status = await world.until("it says so", lambda s: condition(s, "Accepted")["reason"] == "InternalError")
    assert "which is a bug" in condition(status, "Accepted")["message"]
    await world.kubelet.add_pool("b")
    await world.apply("other")
    await world.completed("other")
    await remember()
    await world.until("it is well again", lambda s: condition(s, "Accepted")["status"] == "True")
    world.kubelet.pace["sums"].stop_at = None
    await world.completed()


async def has_event(world, reason):
    return reason in dict(await world.events())


async def bound(world):
    pods = await world.items("pods")
    return len(pods) == 2 and all(pod["spec"].get("nodeName") for pod in pods)
