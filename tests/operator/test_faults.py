"""What the API server and the network can do to the operator, case by case: nothing is lost, nothing starts twice."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
from aiohttp import web
from api_verbs import Asked
from faultproxy import answer, cut, done_but_cut, done_but_silent, error_event
from running_operator import until
from scripted_trainer import Pace

from ratchet_cluster.api import MERGE

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
    "a creation is done and its answer takes too long": ("POST", "/(configmaps|jobsets)$", done_but_silent(), 2),
    "events are refused": ("POST", "/events$", answer(500, "InternalError"), 1000),
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_a_fault_that_passes_leaves_no_trace(world, case):
    operator = await (await world.operator(RATCHET_LEASE_SECONDS="6")).leads()  # and so no request waits over 4 s
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


async def test_a_server_that_answers_500_for_long_fails_no_job(world):
    """Lists and watches fail while the job loses its machines; the operator is healthy and then makes up for it."""
    operator = await (await world.operator()).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=5)
    await world.apply()
    before = await world.running(step=5)
    ill = world.proxy.fault("GET", "/(pods|jobsets|rltrainingjobs)", answer(500, "InternalError"), times=10**6)
    taken = list(world.kubelet.nodes)
    await world.kubelet.add_pool("b")
    for node in taken:
        await world.kubelet.remove_node(node)
    world.proxy.say_in_watch("pods", error_event(500, "InternalError"))
    await until("much has failed", lambda: ill.hits > 12)  # who is refused asks less and less often
    now = await world.status()
    assert [now[key] for key in ("phase", "attempt", "counters")] == [
        before[key] for key in ("phase", "attempt", "counters")
    ]
    ill.times = 0
    await operator.leads()
    await until("it is healthy", lambda: operator.get("/healthz")[0] == 200)
    world.kubelet.pace["sums"].stop_at = None
    status = await world.completed()
    assert (status["attempt"]["number"], status["counters"].get("failures", 0)) == (2, 0)
    assert status["attempts"][0]["chargedTo"] != "failures", "who looks late finds less, and never a failure"


async def test_a_server_that_asks_for_patience_gets_it_and_other_jobs_their_turn(world):
    await (await world.operator()).leads()
    loop, asked = asyncio.get_running_loop(), []

    async def busy(request):
        if request.query.get("labelSelector") != "ratchet.dev/job-name=slow":
            return None
        asked.append(loop.time())
        return await answer(429, "TooManyRequests", Retry_After="2")(request)

    fault = world.proxy.fault("GET", "/pods$", busy, times=10**6)
    await world.apply("slow")
    await world.apply("quick")
    await until("it is asked again, and again", lambda: touch_until(world, "slow", lambda: len(asked) > 2))
    await world.completed("quick")
    pauses = [later - sooner for sooner, later in itertools.pairwise(asked)]
    assert min(pauses) > 1.9, "events do not wake it sooner"
    fault.times = 0
    await world.completed("slow")


async def test_whoever_writes_second_decides_anew(world):
    """Somebody is always quicker: nothing of theirs is lost, and the job goes on."""
    operator = await (await world.operator()).leads()
    last = None

    async def come_first(request):
        nonlocal last
        last = await world.touch()

    fault = world.proxy.fault("PUT", JOB_STATUS, come_first, times=5)
    await world.apply()
    await world.completed()
    assert fault.hits == 5
    assert (await world.job())["metadata"]["annotations"] == last["metadata"]["annotations"]
    conflicts = [
        w for w in world.proxy.writes if w[:3] == ("PUT", world.path("rltrainingjobs", "sums") + "/status", 409)
    ]
    assert len(conflicts) >= 5
    assert operator.metric('ratchet_reconcile_total{result="bug"}') == 0
    (gang,) = world.kubelet.gangs.values()
    assert gang.steps_run == list(range(1, 31))


async def test_a_job_whose_status_is_refused_for_good_holds_up_no_other(world):
    """As with a CRD that is older than the operator."""
    operator = await (await world.operator()).leads()
    refused = world.proxy.fault("PUT", JOB_STATUS, answer(422, "Invalid", "status.attempt: no such field"), times=10**6)
    await world.apply()
    await until("it was refused again", lambda: refused.hits > 1)
    await world.apply("other")
    await world.completed("other")
    assert "no such field" in dict(await world.events())["StatusRefused"]
    assert operator.metric('ratchet_reconcile_total{result="refused"}') > 1
    assert [it for it in await world.items("jobsets") if it["metadata"]["name"].startswith("sums")] == []
    refused.times = 0
    await world.completed()


BETWEEN = {"the status": ("PUT", JOB_STATUS), "its objects": ("POST", "/(configmaps|jobsets)$")}


@pytest.mark.parametrize("write", BETWEEN)
async def test_a_job_that_goes_between_a_look_and_a_write_leaves_nothing(world, write):
    operator = await (await world.operator()).leads()

    async def too_late(request):
        await world.api.delete(world.path("rltrainingjobs", "sums"))

    fault = world.proxy.fault(*BETWEEN[write], too_late)
    await world.apply()
    await until("it was deleted", lambda: fault.hits)
    await until("everything is gone", lambda: empty(world))
    await until("its pass is over", lambda: touch_another(world))
    assert operator.metric('ratchet_reconcile_total{result="bug"}') == 0


async def test_a_real_quota_is_waited_for_and_charged_to_nobody(world):
    await (await world.operator()).leads()
    what = "count/jobsets.jobset.x-k8s.io"
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {what: "0"}}}
    await world.api.create(world.path("resourcequotas"), quota)
    await world.apply()
    await until("an event says so", lambda: has_event(world, "CreateRefused"))
    assert "quota" in dict(await world.events())["CreateRefused"]
    status = await world.status()
    assert status["attempt"]["number"] == 1
    await world.api.delete(world.path("resourcequotas", "none"))
    status = await world.completed()
    assert (status["attempt"]["number"], status["counters"].get("failures", 0)) == (1, 0)


async def test_a_clean_up_that_is_refused_is_tried_until_it_is_done(world):
    """Four pods and a JobSet; twenty deletions fail. The job is Suspended when the last pod is gone, and not before."""
    await (await world.operator()).leads()
    await world.kubelet.add_pool("b")
    world.kubelet.pace["sums"] = Pace(stop_at=5)
    two = {"name": "spot", "accelerator": "tpu-v6e-slice", "topology": "2x4", "chipsPerNode": 4, "capacity": "Spot",
           "slices": 2}  # fmt: skip
    await world.apply(placements=[two])
    await world.running(step=5)
    refused = world.proxy.fault("DELETE", "/(pods|jobsets)/", answer(500, "InternalError"), times=20)
    running_when_suspended = []

    async def look(request):
        if request.json["status"].get("phase") == "Suspended":
            running_when_suspended.append(len(world.kubelet.running))

    world.proxy.fault("PUT", JOB_STATUS, look, times=10**6)
    await world.edit(suspend=True)
    await world.until("it is Suspended", lambda s: s.get("phase") == "Suspended")
    assert refused.hits == 20
    assert running_when_suspended[0] == 0
    await until("the JobSet is gone", lambda: world.gone("jobsets", "sums-a1"))


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
    before = len(world.proxy.writes)
    world.kubelet.hold_start.set()
    await until("everything is gone", lambda: empty(world))
    made = [w for w in world.proxy.writes[before:] if w[0] == "POST" and not w[1].endswith("/events")]
    assert made == [], "nothing is made for a job that is gone"


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


@pytest.mark.parametrize(("resource", "group"), [("jobsets", "jobset.x-k8s.io"), ("pods", "")])
async def test_a_missing_right_is_said_on_the_job_and_its_return_noticed(world, resource, group):
    """The job goes on meanwhile, and so does another one's life once the right is back."""
    await (await world.operator()).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=5)
    await world.apply()
    before = await world.running(step=5)
    role = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{world.namespace}/roles/ratchet"
    rules = (await world.api.get(role))["rules"]
    fewer = [rule for rule in rules if resource not in rule["resources"]]
    verbs = ("create", "delete", "get", "list", "patch", "watch")
    world.lacks = {Asked(verb, group, resource) for verb in verbs}
    await world.api.patch(role, {"rules": fewer}, MERGE)
    await until("the right is gone", lambda: forbidden(world, group, resource))
    await world.apply("second")
    await until("an event says so", lambda: has_event(world, "Forbidden", "second"))
    assert resource in dict(await world.events("second"))["Forbidden"]
    assert (await world.status())["attempt"]["number"] == before["attempt"]["number"]
    await world.api.patch(role, {"rules": rules}, MERGE)
    world.kubelet.pace["sums"].stop_at = None
    for name in ("sums", "second"):
        status = await world.completed(name)
        assert (status["attempt"]["number"], status["counters"].get("failures", 0)) == (1, 0)


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


async def has_event(world, reason, name="sums"):
    return reason in dict(await world.events(name))


async def touch_until(world, name, done):
    """Touches the job now; whether it is `done`."""
    await world.touch(name)
    return done()


async def touch_another(world):
    """Whether another job's life goes on: its suspension is said."""
    if await world.gone("rltrainingjobs", "another"):
        await world.apply("another", suspend=True)
    return (await world.status("another")).get("phase") == "Suspended"


async def bound(world):
    pods = await world.items("pods")
    return len(pods) == 2 and all(pod["spec"].get("nodeName") for pod in pods)


async def empty(world):
    found = [await world.items(plural) for plural in ("pods", "jobsets", "rltrainingjobs")]
    maps = [item for item in await world.items("configmaps") if item["metadata"]["name"].startswith("sums")]
    return not any(found) and not maps


async def forbidden(world, group, resource):
    """Whether the API server has noticed the change of the role."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{world.namespace}:ratchet",
            "resourceAttributes": {
                "namespace": world.namespace,
                "verb": "list",
                "group": group,
                "resource": resource,
            },
        },
    }
    found = await world.api.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return not found["status"]["allowed"]
