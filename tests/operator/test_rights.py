"""Least privilege, both ways: the operator has every right that it uses, and uses every right that it has.

It runs under the chart's own service account, and the proxy before the API server writes down what it asks for.
"""

from __future__ import annotations

import json

import pytest
from aiohttp import web
from api_verbs import Asked, asked, granted
from faultproxy import answer, done_but_cut
from running_operator import until
from scripted_trainer import Pace
from test_faults import JOBSET

FOR_ADMISSION = Asked("update", "ratchet.dev", "rltrainingjobs/finalizers")
"""Never asked for by itself: the admission plugin OwnerReferencesPermissionEnforcement looks for it when an object is
created whose owner must outlive it (`blockOwnerDeletion`)."""


async def chart_grants(world) -> set[Asked]:
    """Every right of the service account, read from the API server."""
    rbac, found = "/apis/rbac.authorization.k8s.io/v1", []
    for bindings, where in (("rolebindings", f"/namespaces/{world.namespace}"), ("clusterrolebindings", "")):
        for binding in (await world.api.get(f"{rbac}{where}/{bindings}"))["items"]:
            subjects = [(s["name"], s.get("namespace")) for s in binding.get("subjects") or ()]
            if ("ratchet", world.namespace) in subjects:
                role = binding["roleRef"]
                place = where if role["kind"] == "Role" else ""
                found.append(await world.api.get(f"{rbac}{place}/{role['kind'].lower()}s/{role['name']}"))
    return granted(found)


async def test_every_right_is_used_and_every_right_that_is_used_is_granted(world):
    """A job whose creation is refused and cut, whose pods are slow to start, whose nodes vanish, and which ends well;
    and one whose name is taken."""
    await (await world.operator(RATCHET_RESYNC_SECONDS="0.5")).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=6)
    world.proxy.fault("POST", "/jobsets$", answer(403, "Forbidden", "exceeded quota"), times=3)
    world.proxy.fault("POST", "/(configmaps|jobsets)$", done_but_cut(), times=2)
    world.kubelet.hold_start.clear()
    await world.apply()
    await until("it asks why pods do not start", lambda: Asked("list", "", "events") in world.proxy.asked)
    world.kubelet.hold_start.set()
    await world.running(step=6)
    (jobset,) = await world.items("jobsets")
    assert jobset["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] is True
    spare = await world.kubelet.add_pool("b")
    for node in [name for name in world.kubelet.nodes if name not in spare]:
        await world.kubelet.remove_node(node)
    await world.running(attempt=2, step=6)
    world.kubelet.pace["sums"].stop_at = None
    await world.completed()
    taken = {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "metadata": {"name": "taken-a1"}}
    await world.api.create(world.path("jobsets"), {**taken, "spec": JOBSET})
    await world.apply("taken")
    await world.until("it says NameConflict", lambda s: "NameConflict" in json.dumps(s.get("conditions", [])), "taken")
    await until("the file of attempt 1 is deleted", lambda: world.gone("configmaps", "sums-a1-job"))
    await until("attempt 1 is deleted", lambda: Asked("delete", "jobset.x-k8s.io", "jobsets") in world.proxy.asked)
    rights = await chart_grants(world)
    assert world.proxy.forbidden == set()
    assert sorted(world.proxy.asked - rights) == [], "asked for, not granted"
    assert sorted(rights - world.proxy.asked - {FOR_ADMISSION}) == [], "granted, never asked for"
    assert FOR_ADMISSION in rights


@pytest.mark.parametrize("chart_values", [["watchNamespaces={default}"]])
async def test_an_event_on_the_lease_may_be_written_where_no_jobs_are_watched(world):
    await (await world.operator(RATCHET_WATCH_NAMESPACES="default")).leads()

    async def in_another_century(request):
        status, headers, content = await request.forward()
        return web.Response(status=status, headers={**headers, "Date": "Thu, 01 Jan 2099 00:00:00 GMT"}, body=content)

    world.proxy.fault("PUT", "/leases/", in_another_century, times=1)

    async def jumped() -> bool:
        return any(event["reason"] == "ClockJump" for event in await world.items("events"))

    await until("an event tells of the clock", jumped)
    assert world.proxy.forbidden == set()


async def test_a_right_that_is_missing_is_seen_as_forbidden(world):
    """The test above would see it: the proxy notes what RBAC refuses."""
    for name in ("ratchet", "ratchet-lease"):
        path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{world.namespace}/roles/{name}"
        role = await world.api.get(path)
        kept = [rule for rule in role["rules"] if "events" not in rule["resources"]]
        await world.api.patch(path, {"rules": kept}, "application/merge-patch+json")
    world.lacks = {Asked("create", "", "events")}
    await (await world.operator()).leads()
    await world.apply()
    await until("events are refused", lambda: world.proxy.forbidden == world.lacks)


@pytest.mark.parametrize(
    ("method", "path", "query", "words"),
    [
        ("GET", "/api/v1/namespaces/a/pods", {}, ("list", "", "pods")),
        ("GET", "/api/v1/pods", {"watch": "true"}, ("watch", "", "pods")),
        ("GET", "/api/v1/nodes/n", {}, ("get", "", "nodes")),
        ("GET", "/api/v1/namespaces/a", {}, ("get", "", "namespaces")),
        ("PUT", "/apis/g.io/v1/namespaces/a/things/t/status", {}, ("update", "g.io", "things/status")),
        ("DELETE", "/apis/g.io/v1/namespaces/a/things", {}, ("deletecollection", "g.io", "things")),
        ("GET", "/apis/g.io/v1", {}, None),
    ],
)
def test_a_request_is_a_verb_on_a_resource(method, path, query, words):
    assert asked(method, path, query) == words
