"""What an attempt's pods need is looked at before a slice is taken; the job waits, says why, and goes on by itself."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from api_verbs import Asked
from faultproxy import answer
from plan_story import QUEUE, Story
from running_operator import until

from ratchet_operator.decide import decide
from ratchet_operator.decide.preflight import asked_of_quotas
from ratchet_operator.snapshot import Surroundings

CLAIM = ("PersistentVolumeClaim", "checkpoints")
BOUND = {"status": {"phase": "Bound"}}


def quota(hard: dict[str, str], used: dict[str, str] | None = None, **spec):
    return {"metadata": {"name": "team"}, "spec": {"hard": hard, **spec}, "status": {"hard": hard, "used": used or {}}}


def placed(story: Story, objects=None, quotas=()):
    """Status, reason and message of Placed for a job that finds this; and whether something was created."""
    around = Surroundings({CLAIM: BOUND} | (objects or {}), quotas)
    plan = decide(replace(story.snapshot(), surroundings=around))
    (found,) = (c for c in plan.status["conditions"] if c["type"] == "Placed")
    return found["reason"], found["message"], plan


def test_a_missing_claim_is_named_with_its_place_and_nothing_is_created():
    reason, message, plan = placed(Story(), {CLAIM: None})
    assert reason == "MissingObjects"
    assert message.startswith("spec.checkpoint.claimName: the namespace has no PersistentVolumeClaim checkpoints; make")
    assert plan.create == ()
    assert plan.requeue_after == 5.0
    assert ("Warning", "MissingObjects") in [(event.type, event.reason) for event in plan.events]
    (progressing,) = (c for c in plan.status["conditions"] if c["type"] == "Progressing")
    assert (progressing["status"], progressing["reason"]) == ("False", "NotRunning")


def test_a_second_look_says_nothing_new_and_writes_nothing():
    story = Story()
    _, _, plan = placed(story, {CLAIM: None})
    story.apply(plan)
    again = decide(replace(story.snapshot(), surroundings=Surroundings({CLAIM: None})))
    assert (again.status, again.events, again.create) == (None, (), ())
    assert again.requeue_after == 5.0


def test_it_goes_on_when_the_thing_is_there():
    story = Story()
    story.apply(placed(story, {CLAIM: None})[2])
    plan = decide(replace(story.snapshot(), surroundings=Surroundings({CLAIM: BOUND})))
    assert [body["kind"] for body in plan.create] == ["ConfigMap", "JobSet"]


def test_a_lost_claim_and_missing_config_maps_are_named():
    template = {"volumes": [{"name": "l", "mountPath": "/l", "configMap": {"name": "lists"}}]}
    story = Story(podTemplate=template)
    _, message, _ = placed(story, {CLAIM: {"status": {"phase": "Lost"}}, ("ConfigMap", "lists"): None})
    assert "the volume of PersistentVolumeClaim checkpoints is gone" in message
    assert "spec.podTemplate.volumes[0]: the namespace has no ConfigMap lists" in message


def test_what_could_not_be_looked_at_stops_nothing():
    plan = decide(replace(Story().snapshot(), surroundings=Surroundings()))
    assert [body["kind"] for body in plan.create] == ["ConfigMap", "JobSet"]


QUOTAS = [
    # hard, used, whether the two pods of four chips and their JobSet have room, what is said
    ({"pods": "2"}, {"pods": "0"}, True, ""),
    ({"pods": "1"}, {"pods": "0"}, False, "allows 1 of pods, the attempt's pods want 2; ask for less"),
    ({"pods": "3"}, {"pods": "2"}, False, "allows 3 of pods, 2 of it in use, and the attempt's pods want 2"),
    ({"requests.google.com/tpu": "8"}, {"requests.google.com/tpu": "0"}, True, ""),
    ({"requests.google.com/tpu": "8"}, {"requests.google.com/tpu": "4"}, False, "8 of requests.google.com/tpu"),
    ({"requests.cpu": "7"}, {"requests.cpu": "500m"}, False, "allows 7 of requests.cpu"),
    ({"cpu": "8"}, {"cpu": "0"}, True, ""),
    ({"limits.memory": "16Gi"}, {"limits.memory": "0"}, True, ""),
    ({"limits.memory": "17179869183"}, {"limits.memory": "0"}, False, "limits.memory"),
    ({"count/jobs.batch": "0"}, {}, False, "count/jobs.batch"),
    ({"count/jobsets.jobset.x-k8s.io": "0"}, {}, True, ""),
    ({"persistentvolumeclaims": "0"}, {}, True, ""),
    ({"pods": "1e0"}, {}, False, "allows 1e0 of pods"),
    ({"pods": "what"}, {}, True, ""),
]


@pytest.mark.parametrize(("hard", "used", "fits", "words"), QUOTAS, ids=[f"{h}-{u}" for h, u, *_ in QUOTAS])
def test_quotas(hard, used, fits, words):
    amounts = {"requests": {"cpu": "4"}, "limits": {"memory": "8Gi"}}
    reason, message, plan = placed(Story(podTemplate={"resources": amounts}), quotas=[quota(hard, used)])
    assert bool(plan.create) == fits, message
    assert (reason == "ResourceQuotaFull") != fits
    assert words in message


def test_a_quota_for_some_pods_only_is_not_judged():
    full = quota(
        {"pods": "0"}, scopeSelector={"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Exists"}]}
    )
    assert placed(Story(), quotas=[full])[2].create


def test_a_job_that_queues_is_held_back_by_what_never_fits_only():
    queued = {"jobSetTemplate": {"labels": {QUEUE: "research"}}}
    assert placed(Story(**queued), quotas=[quota({"pods": "3"}, {"pods": "3"})])[2].create
    assert placed(Story(**queued), quotas=[quota({"pods": "1"}, {"pods": "0"})])[0] == "ResourceQuotaFull"


def test_what_an_attempt_counts_for():
    jobset = Story().decide().create[1]
    assert asked_of_quotas(jobset) == {
        "count/jobs.batch": 1.0,
        "pods": 2.0,
        "count/pods": 2.0,
        "requests.google.com/tpu": 8.0,
    }


# On the real API server.


async def test_a_job_waits_for_its_claim_and_takes_it_up(world):
    await (await world.operator()).leads()
    await world.apply(checkpoint={"directory": "/other/sums", "claimName": "other"})
    status = await world.until("it waits", lambda s: "MissingObjects" in json.dumps(s.get("conditions", [])))
    assert status["attempt"]["number"] == 1
    assert await world.items("jobsets") == []
    assert await world.items("pods") == []

    async def told():
        return "MissingObjects" in [reason for reason, _ in await world.events()]

    await until("an event says so", told)
    claim = await world.api.get(world.path("persistentvolumeclaims", "checkpoints"))
    bound = {key: claim["spec"][key] for key in ("accessModes", "resources")}
    body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "other"}}
    await world.api.create(world.path("persistentvolumeclaims"), body | {"spec": bound | {"storageClassName": ""}})
    await world.until("its JobSet is there", lambda s: "jobSetUID" in s.get("attempt", {}))
    assert (await world.status())["counters"]["attempts"] == 1


async def test_a_job_waits_for_room_in_its_quota(world):
    spec = {"hard": {"requests.google.com/tpu": "4"}}
    body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "team"}, "spec": spec}
    await world.api.create(world.path("resourcequotas"), body)
    await (await world.operator()).leads()
    await world.apply()
    status = await world.until("it waits", lambda s: "ResourceQuotaFull" in json.dumps(s.get("conditions", [])))
    said = next(c["message"] for c in status["conditions"] if c["type"] == "Placed")
    assert "ResourceQuota team allows 4 of requests.google.com/tpu, the attempt's pods want 8" in said
    assert await world.items("jobsets") == []
    change = {"spec": {"hard": {"requests.google.com/tpu": "8"}}}
    await world.api.patch(world.path("resourcequotas", "team"), change, "application/merge-patch+json")
    await world.running()
    await world.completed()


async def test_an_operator_with_the_rights_of_an_older_chart_goes_on(world):
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{world.namespace}/roles/ratchet"
    role = await world.api.get(path)
    kept = [r for r in role["rules"] if not {"persistentvolumeclaims", "resourcequotas"} & set(r["resources"])]
    await world.api.patch(path, {"rules": kept}, "application/merge-patch+json")
    world.lacks = {Asked("get", "", "persistentvolumeclaims"), Asked("list", "", "resourcequotas")}
    await (await world.operator()).leads()
    await world.apply()
    await world.running()
    await until("both were tried", lambda: world.proxy.forbidden == world.lacks)


async def test_a_question_that_is_not_answered_stops_nothing(world):
    world.proxy.fault(
        "GET", "/(persistentvolumeclaims|resourcequotas)", answer(503, "ServiceUnavailable", "busy"), times=9
    )
    await (await world.operator()).leads()
    await world.apply()
    await world.running()
