"""What the API server and the network can do to the operator, case by case: nothing is lost, nothing starts twice."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web
from faultproxy import answer, cut, done_but_cut
from running_operator import until
from scripted_trainer import Pace

JOB_STATUS = "/rltrainingjobs/sums/status$"
REFUSALS = {
    # name -> method, path, what happens, how often
    "409 on the status": ("PUT", JOB_STATUS, answer(409, "Conflict"), 3),
    "422 on the status": ("PUT", JOB_STATUS, answer(422, "Invalid"), 2),
    "429 with Retry-After": ("GET", "/pods$", answer(429, "TooManyRequests", Retry_After="1"), 3),
    "500 on lists": ("GET", "/jobsets$", answer(500, "InternalError"), 4),
    "500 on a creation": ("POST", "/jobsets$", answer(500, "InternalError"), 2),
    "a webhook or a quota refuses": ("POST", "/jobsets$", answer(403, "Forbidden", "exceeded quota"), 2),
    "a creation is lost on the way": ("POST", "/(configmaps|jobsets)$", cut, 2),
    "a creation is done and its answer lost": ("POST", "/(configmaps|jobsets)$", done_but_cut(), 2),
    "a status is written and its answer lost": ("PUT", JOB_STATUS, done_but_cut(), 3),
    "the stage gate is written and its answer lost": ("PATCH", "/pods/", done_but_cut(), 1),
    "reads are cut": ("GET", "/(pods|jobsets|rltrainingjobs/sums)$", cut, 6),
    "events are refused": ("POST", "/events$", answer(500, "InternalError"), 1000),
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_a_fault_that_passes_leaves_no_trace(world, case):
    operator = await (await world.operator()).leads()
    fault = world.proxy.fault(*REFUSALS[case])
    await world.apply()
    status = await world.completed()
    assert fault.hits, "the fault happened"
    (gang,) = world.kubelet.gangs.values()
    assert gang.steps_run == list(range(1, 31))
    assert (status["attempt"]["number"], status["counters"].get("failures", 0)) == (1, 0)
    assert operator.metric('ratchet_reconcile_total{result="bug"}') == 0
    if case == "422 on the status":
        assert "StatusRefused" in dict(await world.events())
    if case == "a webhook or a quota refuses":
        assert "exceeded quota" in dict(await world.events())["CreateRefused"]


async def test_lost_watch_events_are_found_by_the_periodic_list(world):
    operator = await (await world.operator(RATCHET_RESYNC_SECONDS="0.5")).leads()
    world.proxy.lose_event = lambda event: event["type"] != "BOOKMARK"
    await world.apply()
    status = await world.completed()
    assert status["attempt"]["number"] == 1
    assert operator.metric("ratchet_resync_found_total") > 0


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


async def test_a_field_that_an_older_crd_drops_authorises_nothing(world):
    operator = await (await world.operator()).leads()

    async def prune(request):
        status, headers, content = await request.forward()
        body = json.loads(content)
        body.get("status", {}).get("attempt", {}).pop("fence", None)
        return web.Response(status=status, headers=headers, body=json.dumps(body).encode())

    world.proxy.fault("PUT", JOB_STATUS, prune, times=10**6)
    await world.apply()
    await until("an event says so", lambda: has_event(world, "StatusPruned"))
    assert operator.metric("ratchet_status_pruned_total") >= 1
    assert await world.items("jobsets") == []


@pytest.mark.parametrize("kind", ["configmaps", "jobsets"])
async def test_a_foreign_object_of_the_same_name_is_left_alone(world, kind):
    world.kubelet.pace["sums"] = Pace(stop_at=5)
    name, body = {
        "configmaps": ("sums-a1-job", {"apiVersion": "v1", "kind": "ConfigMap", "data": {"mine": "yes"}}),
        "jobsets": ("sums-a1", {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "spec": JOBSET}),
    }[kind]
    foreign = await world.api.create(world.path(kind), {**body, "metadata": {"name": name}})
    await (await world.operator()).leads()
    await world.apply()
    await world.until("it says NameConflict", lambda s: "NameConflict" in json.dumps(s.get("conditions", [])))
    there = await world.api.get(world.path(kind, name))
    assert there["metadata"]["uid"] == foreign["metadata"]["uid"]
    assert "deletionTimestamp" not in there["metadata"]
    await world.api.delete(world.path(kind, name))
    await world.running(step=5)


async def test_a_job_deleted_while_its_pods_start_leaves_nothing(world):
    await (await world.operator()).leads()
    world.kubelet.hold_start.clear()
    await world.apply()
    await until("pods are bound", lambda: bound(world))
    await world.api.delete(world.path("rltrainingjobs", "sums"))
    world.kubelet.hold_start.set()
    await until("everything is gone", lambda: empty(world))


async def test_a_job_applied_again_at_once_waits_for_its_predecessors_pods(world):
    await (await world.operator()).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=5, drain_seconds=1.0)
    await world.apply()
    first = await world.running(step=5)
    uid = (await world.job())["metadata"]["uid"]
    await world.api.delete(world.path("rltrainingjobs", "sums"))
    await world.apply()
    world.kubelet.pace["sums"].stop_at = None
    status = await world.completed()
    assert (await world.job())["metadata"]["uid"] != uid
    assert world.kubelet.overlaps == []
    assert status["attempt"]["jobSetUID"] != first["attempt"]["jobSetUID"]


async def test_a_missing_right_is_said_on_the_job_and_its_return_noticed(world):
    await (await world.operator()).leads()
    role = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{world.namespace}/roles/ratchet"
    rules = (await world.api.get(role))["rules"]
    fewer = [rule for rule in rules if "jobsets" not in rule["resources"]]
    await world.api.patch(role, {"rules": fewer}, "application/merge-patch+json")
    await until("the right is gone", lambda: forbidden(world))
    await world.apply()
    await until("an event says so", lambda: has_event(world, "Forbidden"))
    await world.api.patch(role, {"rules": rules}, "application/merge-patch+json")
    status = await world.completed()
    assert status["counters"].get("failures", 0) == 0


async def test_a_slow_job_does_not_hold_up_the_others(world):
    """One job's creations hang until their time-out; another's go through."""
    await (await world.operator()).leads()

    async def hang(request):
        if request.json["metadata"]["name"].startswith("slow-"):
            await asyncio.sleep(60)

    world.proxy.fault("POST", "/(configmaps|jobsets)$", hang, times=10**6)
    await world.apply("slow")
    await world.apply("quick")
    await world.completed("quick")
    assert [item for item in await world.items("jobsets") if item["metadata"]["name"].startswith("slow")] == []


JOBSET = {
    "suspend": True,
    "replicatedJobs": [
        {
            "name": "w",
            "template": {
                "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}}}
            },
        }
    ],
}


def error_event(code, reason):
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": ""}
    return {"type": "ERROR", "object": status}


async def has_event(world, reason):
    return reason in dict(await world.events())


async def bound(world):
    pods = await world.items("pods")
    return len(pods) == 2 and all(pod["spec"].get("nodeName") for pod in pods)


async def empty(world):
    found = [await world.items(plural) for plural in ("pods", "jobsets", "rltrainingjobs")]
    maps = [item for item in await world.items("configmaps") if item["metadata"]["name"].startswith("sums")]
    return not any(found) and not maps


async def forbidden(world):
    """Whether the API server has noticed the change of the role."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{world.namespace}:ratchet",
            "resourceAttributes": {
                "namespace": world.namespace,
                "verb": "list",
                "group": "jobset.x-k8s.io",
                "resource": "jobsets",
            },
        },
    }
    found = await world.api.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return not found["status"]["allowed"]
