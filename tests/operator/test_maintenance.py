"""Maintenance: what nodes announce, the checkpoints that are asked for beforehand, the time that a gang gets."""

from __future__ import annotations

import asyncio
import json

import pytest
from plan_story import Story, node

from ratchet_operator.decide import stamps
from ratchet_operator.decide.observed_node import Node
from ratchet_operator.observe import Nodes, trim

NOW = "2026-01-02T03:04:05.000Z"
LABEL = "cloud.google.com/scheduled-maintenance-time"
UPCOMING = "node.gke.io/upcoming-maintenance"
END = "node.gke.io/machine-termination-datetime"


def announce(story: Story, *names: str, seconds: float) -> str:
    """Announces maintenance of these nodes; when it is."""
    at = int(story.time + seconds)
    for name in names:
        story.nodes[name]["metadata"]["labels"][LABEL] = str(at)
    return stamps.stamp(at)


def told(story: Story) -> int:
    return story.gate()["checkpointRequest"]


# --- what nodes say ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "annotations", "at"),
    [
        ({}, {}, None),
        ({LABEL: "1767323045"}, {}, NOW),
        ({LABEL: "soon"}, {}, None),
        ({LABEL: "-5"}, {}, None),
        ({LABEL: "9" * 60}, {}, None),
        ({LABEL: "999999999999"}, {}, None),
        ({}, {END: "2026-01-02T04:04:05+01:00"}, NOW),
        ({}, {END: "2026-01-02T03:04:05"}, None),
        ({}, {END: "next week"}, None),
        ({}, {UPCOMING: json.dumps({"window_start_time": "2026-01-02T03:04:05+00:00"})}, NOW),
        ({}, {UPCOMING: json.dumps({"window_start_time": 5})}, None),
        ({}, {UPCOMING: "[1]"}, None),
        ({}, {UPCOMING: "[" * 100_000}, None),
        ({}, {UPCOMING: "{"}, None),
        ({LABEL: "1767323045"}, {END: "2027-01-01T00:00:00Z"}, NOW),
        ({LABEL: "1798761600"}, {END: "2026-01-02T03:04:05Z"}, NOW),
    ],
)
def test_the_first_announced_end_counts_and_what_cannot_be_read_is_none(labels, annotations, at):
    raw = node("n")
    raw["metadata"] |= {"labels": labels, "annotations": annotations}
    announced = Node("n", raw).announced
    assert (announced.at if announced else None) == at


def test_annotations_that_matter_survive_the_trimming_of_nodes_and_wake_the_job():
    woken = []
    nodes = Nodes(woken.append)
    raw = node("n")
    raw["metadata"]["annotations"] = {END: NOW, "node.alpha.kubernetes.io/ttl": "0"}
    assert trim(raw)["metadata"]["annotations"] == {END: NOW}
    nodes.hear(node("n"), gone=False)
    pod = {"metadata": {"name": "p"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}}
    asyncio.run(nodes.of(None, ("team", "sums"), [pod]))
    nodes.hear(raw, gone=False)
    assert woken == [("team", "sums")]


@pytest.mark.parametrize(("label", "seconds"), [("105", 105.0), ("", 15.0), ("1e9", 15.0), ("99999", 15.0)])
def test_nodes_may_say_that_they_give_longer_notice(label, seconds):
    raw = node("n")
    raw["metadata"]["labels"] = {"ratchet.dev/notice-seconds": label}
    assert Node("n", raw).notice_seconds == seconds


# --- before it begins -------------------------------------------------------------------------------------------------


def test_an_announcement_ends_nothing_and_asks_for_nothing_yet():
    story = Story().begin()
    announce(story, "pool-a-0", "pool-a-1", seconds=7 * 86_400)
    plan = story.decide()
    assert (plan.status, plan.patch, plan.events) == (None, (), ())
    assert plan.requeue_after == pytest.approx(7 * 86_400 - 3600, abs=2)


def test_a_checkpoint_is_asked_for_an_hour_and_two_minutes_before_and_each_once():
    story = Story().begin()
    at = announce(story, "pool-a-0", "pool-a-1", seconds=7200)
    story.later(3601)
    story.settle()
    assert told(story) == int(stamps.seconds(at)) - 3600
    assert "MaintenanceAnnounced" in story.events
    story.later(3000)
    assert story.decide().empty, "nobody is asked twice for the same"
    story.later(600)
    story.settle()
    assert told(story) == int(stamps.seconds(at)) - 120
    story.later(600)
    assert story.decide().empty, "the time has come, the machine has not gone: the attempt goes on"
    assert story.events.count("MaintenanceAnnounced") == 2
    assert "verdict" not in story.attempt


def test_lead_time_and_grace_are_the_users():
    story = Story(maintenance={"leadSeconds": 600}, podTemplate={"terminationGracePeriodSeconds": 300}).begin()
    at = int(stamps.seconds(announce(story, "pool-a-1", seconds=700)))
    assert story.decide().empty
    story.later(101)
    story.settle()
    assert told(story) == at - 600
    story.later(300)
    story.settle()
    assert told(story) == at - 300


def test_a_maintenance_that_is_moved_asks_again():
    story = Story().begin()
    announce(story, "pool-a-1", seconds=60)
    story.settle()
    first = told(story)
    later = announce(story, "pool-a-1", seconds=86_400)
    assert story.decide().empty
    assert told(story) == first, "a number only grows"
    story.later(86_000)
    story.settle()
    assert told(story) == int(stamps.seconds(later)) - 3600 > first


def test_the_attempt_after_it_is_asked_as_well():
    """Its trainer knows of no request yet, and may run on a node that goes soon as well."""
    story = Story().begin()
    at = int(stamps.seconds(announce(story, "pool-a-0", seconds=600)))
    story.settle()
    story.leave(story.pod(0), 70).leave(story.pod(1), 69).jobset_failed()
    story.settle()
    story.make_pods()
    for pod, place in ((story.pod(0), "pool-a-0"), (story.pod(1), "pool-a-1")):
        pod["spec"]["nodeName"] = place
        bound = {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamps.whole(story.now)}
        pod["status"]["conditions"] = [bound]
    story.run()
    story.settle()
    assert story.gate()["attempt"] == 2
    assert told(story) == at - 3600


# --- when it begins ---------------------------------------------------------------------------------------------------


def begin_maintenance(story: Story, *names: str) -> None:
    for name in names:
        story.nodes[name]["metadata"]["labels"]["cloud.google.com/active-node-maintenance"] = "ONGOING"
        story.nodes[name]["spec"]["taints"] = [{"key": "cloud.google.com/impending-node-termination"}]


@pytest.mark.parametrize(("grace", "given"), [(30, 30), (1800, 1800), (3600, 3600)])
def test_the_whole_gang_is_told_to_go_with_all_the_grace_of_its_pods(grace, given):
    """Also the pods on the machines that go: without graceful termination in the cluster nobody else tells them."""
    story = Story(podTemplate={"terminationGracePeriodSeconds": grace}).begin()
    begin_maintenance(story, "pool-a-1")
    story.settle()
    for pod in (story.pod(0), story.pod(1)):
        assert pod["metadata"]["deletionGracePeriodSeconds"] == given
    assert stamps.between(story.now, story.attempt["drainDeadline"]) == given


def test_whoever_is_being_ended_already_sets_the_time_for_the_others():
    story = Story(podTemplate={"terminationGracePeriodSeconds": 600}).begin()
    begin_maintenance(story, "pool-a-1")
    pod = story.pod(1)
    pod["metadata"]["deletionTimestamp"] = stamps.whole(stamps.after(story.now, 200))
    pod["metadata"]["deletionGracePeriodSeconds"] = 600
    story.settle()
    assert story.pod(0)["metadata"]["deletionGracePeriodSeconds"] == 200


def test_longer_notice_of_the_nodes_is_given_to_the_gang():
    story = Story(podTemplate={"terminationGracePeriodSeconds": 600}).begin()
    for name in ("pool-a-0", "pool-a-1"):
        story.nodes[name]["metadata"]["labels"]["ratchet.dev/notice-seconds"] = "105"
    story.shut_down("pool-a-1")
    story.settle()
    assert story.record(1)["verdict"] == "Preempted"
    assert story.pod(0)["metadata"]["deletionGracePeriodSeconds"] == 105


def test_nothing_is_lost_and_no_failure_is_charged():
    story = Story().begin()
    announce(story, "pool-a-0", "pool-a-1", seconds=600)
    story.report(step=6, checkpoint={"step": 6})
    story.settle()
    story.later(600)
    begin_maintenance(story, "pool-a-0", "pool-a-1")
    story.settle()
    story.later(2).leave(story.pod(0), 75, step=7).leave(story.pod(1), 75, step=7)
    story.settle()
    record = story.record(1)
    assert (record["verdict"], record["endStep"]) == ("Maintenance", 7)
    assert record["evidence"].startswith("maintenance of node pool-a-0 of pod sums-a1-s-0-0 has begun (label ")
    assert record["chargedTo"] == "preemptions"
    assert (story.counters["failures"], story.counters["preemptions"]) == (0, 1)
    assert story.attempt["number"] == 2
    assert story.jobsets[-1]["metadata"]["name"] == "sums-a2"


def test_a_survivor_that_left_first_is_refunded():
    """The node was lost for all that was seen; then it said why it went."""
    story = Story().begin()
    story.nodes["pool-a-1"]["absent"] = True
    story.settle()
    assert (story.record(1)["verdict"], story.counters["preemptions"]) == ("NodeLost", 1)
    story.nodes["pool-a-1"]["metadata"]["labels"]["cloud.google.com/active-node-maintenance"] = "ONGOING"
    story.settle()
    assert (story.record(1)["verdict"], story.counters["preemptions"]) == ("Maintenance", 1)


def test_who_took_capacity_on_demand_is_said():
    story = Story().begin()
    story.nodes["pool-a-1"]["metadata"]["labels"] = {"cloud.google.com/gke-nodepool": "pool-a"}
    story.shut_down("pool-a-1")
    story.settle()
    assert "neither spot nor flex-start" in story.record(1)["evidence"]
    spot = Story().begin()
    spot.nodes["pool-a-1"]["metadata"]["labels"] = {"cloud.google.com/gke-spot": "true"}
    spot.shut_down("pool-a-1")
    spot.settle()
    assert "neither" not in spot.record(1)["evidence"]


def test_a_notice_that_is_no_number_of_seconds_is_refused():
    where = {"name": "p", "accelerator": "tpu-v6e-slice", "topology": "4x4"}
    story = Story(placements=[where | {"nodeSelector": {"ratchet.dev/notice-seconds": "long"}}])
    story.settle()
    accepted = story.condition("Accepted")
    assert accepted["status"] == "False"
    assert "'long' is no number of seconds from 1 to 3600" in accepted["message"]
