"""Preemption, abrupt loss, maintenance notice and drain: which signs come, in which order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from ratchet_cluster.control import Refused

TRAINER = """
trap 'echo asked; sleep 0.5; echo -n drained > /dev/termination-log; exit 75' TERM
echo up
while :; do sleep 0.05; done
"""
ON_TPU = {
    "container": {"resources": {"limits": {"google.com/tpu": 4}}},
    "tolerations": [{"key": "google.com/tpu", "operator": "Exists"}],
}
TERMINATION = "cloud.google.com/impending-node-termination"


def conditions(found: dict) -> dict[str, dict]:
    return {one["type"]: one for one in found["status"].get("conditions", [])}


def version(event: dict) -> int:
    """One etcd counts all writes: versions order the events of different kinds."""
    return int(event["object"]["metadata"]["resourceVersion"])


def first(events: list[dict], name: str, holds) -> dict:
    """The first event of the object for which `holds` is true."""
    return next(one for one in events if one["object"]["metadata"]["name"] == name and holds(one))


@pytest.fixture
def pools(desk) -> Iterator[None]:
    """Both pools whole, before and after."""

    def whole() -> bool:
        nodes = [node for node in desk.cluster.nodes() if node["name"] != "system"]
        usable = all(node["ready"] and node["taints"] == ["google.com/tpu"] for node in nodes)
        return len(nodes) == 4 and usable

    desk.wait_until(whole, 60)
    yield
    desk.wait_until(whole, 60)


@pytest.mark.usefixtures("pools")
def test_preemption_with_notice(desk, tmp_path) -> None:
    before = {node["name"]: node["uid"] for node in desk.cluster.nodes()}
    for index in (0, 1):
        desk.create(desk.pod(f"p{index}", TRAINER, nodeName=f"pool-a-{index}", **ON_TPU))
        desk.says(f"p{index}", "up")
    with (
        desk.watched("pods", tmp_path / "pods") as pod_events,
        desk.watched("nodes", tmp_path / "nodes") as node_events,
    ):
        assert desk.cluster.preempt("pool-a-1") == ["pool-a-0", "pool-a-1"], "a multi-host pool goes as one"
        desk.wait_until(lambda: {"pool-a-0", "pool-a-1"} & {node["name"] for node in desk.cluster.nodes()} == set())
        gone = desk.wait_until(lambda: [one for one in node_events() if one["type"] == "DELETED"])
        pods = [e for e in pod_events() if e["object"]["metadata"]["namespace"] == desk.namespace]
        nodes = node_events()
    for index in (0, 1):
        node, pod = f"pool-a-{index}", f"p{index}"
        tainted = first(nodes, node, lambda e: any(t["key"] == TERMINATION for t in e["object"]["spec"]["taints"]))
        unready = first(nodes, node, lambda e: conditions(e["object"])["Ready"]["status"] == "False")
        assert conditions(unready["object"])["Ready"]["message"] == "node is shutting down"
        ended = first(pods, pod, lambda e: e["object"]["status"]["phase"] == "Failed")
        status = ended["object"]["status"]
        assert status["reason"] == "Terminated"
        assert conditions(ended["object"])["DisruptionTarget"]["reason"] == "TerminationByKubelet"
        assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 75
        assert status["containerStatuses"][0]["state"]["terminated"]["message"] == "drained"
        early = [e for e in pods if e["object"]["metadata"]["name"] == pod and version(e) < version(ended)]
        assert not any("DisruptionTarget" in conditions(e["object"]) for e in early)
        assert max(version(tainted), version(unready)) < version(ended)
        removed = first(nodes, node, lambda e: e["type"] == "DELETED")
        assert version(ended) < version(removed)
    assert gone
    back = desk.wait_until(
        lambda: (
            (found := {n["name"]: n["uid"] for n in desk.cluster.nodes() if n["ready"]}).keys() == before.keys()
            and found
        )
    )
    assert all((back[name] != before[name]) == name.startswith("pool-a") for name in before)


@pytest.mark.usefixtures("pools")
def test_who_needs_longer_than_the_notice_is_killed(desk) -> None:
    slow = "trap 'echo asked' TERM; echo up; while :; do sleep 0.05; done"
    desk.create(desk.pod("p", slow, nodeName="pool-b-0", terminationGracePeriodSeconds=2, **ON_TPU))
    desk.says("p", "up")
    desk.cluster.preempt("pool-b-0")
    status = desk.ended("p")
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 137
    assert status["reason"] == "Terminated"
    assert desk.log("p").count("asked") == 1 or desk.cluster.pod_log(desk.namespace, "p").count("asked") == 1


@pytest.mark.usefixtures("pools")
def test_loss_without_notice(desk, tmp_path) -> None:
    before = {node["name"]: node["uid"] for node in desk.cluster.nodes()}
    desk.create(desk.pod("p", TRAINER, nodeName="pool-a-0", **ON_TPU))
    desk.says("p", "up")
    with (
        desk.watched("pods", tmp_path / "pods") as pod_events,
        desk.watched("nodes", tmp_path / "nodes") as node_events,
    ):
        desk.cluster.preempt("pool-a-0", abrupt=True)
        assert "asked" not in desk.wait_until(lambda: desk.cluster.pod_log(desk.namespace, "p"))
        desk.wait_until(lambda: "pool-a-0" not in {node["name"] for node in desk.cluster.nodes()})
        deleted = desk.wait_until(lambda: [e for e in node_events() if e["type"] == "DELETED"])
        mine = [e["object"] for e in pod_events() if e["object"]["metadata"]["namespace"] == desk.namespace]
        statuses = [one["status"] for one in mine]
    readiness = conditions(first(deleted, "pool-a-0", lambda e: True)["object"])["Ready"]["status"]
    assert readiness == "Unknown", "nobody said a word: the lease ran out"
    assert not any(status["phase"] in ("Succeeded", "Failed") for status in statuses)
    assert "running" in statuses[-1]["containerStatuses"][0]["state"]
    assert desk.ended("p")["phase"] == "Failed", "the machine that took the name over knows nothing of the pod"
    desk.wait_until(
        lambda: before["pool-a-0"] not in {n["uid"] for n in desk.cluster.nodes()} and len(desk.cluster.nodes()) == 5
    )


@pytest.mark.usefixtures("pools")
def test_a_pool_that_is_going_cannot_be_preempted_again(desk) -> None:
    desk.cluster.preempt("pool-b-0")
    with pytest.raises(Refused, match="already"):
        desk.cluster.preempt("pool-b-1")


@pytest.mark.parametrize(
    ("node", "words"), [("nowhere", "there are system, pool-a-0"), ("system", "system node stays")]
)
def test_what_cannot_be_preempted(desk, node: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        desk.cluster.preempt(node)


@pytest.mark.usefixtures("pools")
def test_announced_maintenance_is_a_label_on_the_whole_pool(desk) -> None:
    label = "cloud.google.com/scheduled-maintenance-time"
    try:
        assert desk.cluster.notice("pool-a-0", seconds=100) == ["pool-a-0", "pool-a-1"]
        for node in ("pool-a-0", "pool-a-1"):
            assert int(desk.get(node, "node")["metadata"]["labels"][label]) > 0
        assert label not in desk.get("pool-b-0", "node")["metadata"]["labels"]
    finally:
        desk.kubectl("label", "nodes", "pool-a-0", "pool-a-1", f"{label}-")


@pytest.mark.usefixtures("pools")
def test_drain_evicts_through_the_api(desk, tmp_path) -> None:
    desk.create(desk.pod("p", TRAINER, nodeName="pool-a-0", **ON_TPU))
    desk.says("p", "up")
    try:
        with desk.watched("pods", tmp_path / "pods") as events:
            desk.cluster.drain("pool-a-0")
            mine = [e["object"] for e in events() if e["object"]["metadata"]["namespace"] == desk.namespace]
        assert any(conditions(one).get("DisruptionTarget", {}).get("reason") == "EvictionByEvictionAPI" for one in mine)
        assert desk.get("pool-a-0", "node")["spec"]["unschedulable"] is True
        assert desk.cluster.pod_log(desk.namespace, "p") == "up\nasked\n"
    finally:
        with contextlib.suppress(Exception):
            desk.kubectl("uncordon", "pool-a-0")
