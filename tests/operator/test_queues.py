"""A JobSet in a queue of Kueue: waited for without a clock; an attempt that the queue takes back is nobody's fault."""

from __future__ import annotations

import pytest
from plan_story import QUEUE, Story
from test_placement_ladder import LADDER

IN_QUEUE = {"jobSetTemplate": {"labels": {QUEUE: "research"}}}


def queued(**spec) -> Story:
    story = Story(**IN_QUEUE, **spec)
    story.settle()
    return story


def running(**spec) -> Story:
    """An attempt that waited for ten minutes and then made three steps."""
    story = queued(**spec).later(600).admit()
    story.settle()
    story.place()
    story.run()
    story.settle()
    story.later(30).report(step=3, checkpoint={"step": 2})
    story.settle()
    return story


def drained(story: Story) -> Story:
    """All pods left with 75 after a common last step, and are gone."""
    for pod in story.pods:
        story.leave(pod, 75, step=3)
    return story


def test_a_job_in_a_queue_says_in_which_one_and_how_to_learn_what_is_in_its_way():
    story = queued()
    placed = story.condition("Placed")
    assert (placed["status"], placed["reason"]) == ("False", "WaitingForQuota")
    assert "JobSet sums-a1 waits for quota in queue research" in placed["message"]
    assert f"-n team -l kueue.x-k8s.io/job-uid={story.attempt['jobSetUID']}" in placed["message"]
    assert (story.condition("Progressing")["status"], story.condition("Running")["status"]) == ("False", "False")
    assert story.condition("Progressing")["reason"] == "NotRunning"
    assert story.status["phase"] == "Placing"
    assert story.attempt["queuedTime"] == story.attempt["createdTime"]
    assert "Queued" in story.events
    plan = story.later(100_000).decide()
    assert plan.empty
    assert plan.requeue_after is None


def test_the_wait_for_a_placement_begins_when_the_queue_lets_the_job_go():
    story = queued(placements=LADDER).later(100_000)
    assert story.decide().empty
    story.admit().settle()
    assert story.attempt["admittedTime"] == story.now
    assert "Admitted" in story.events
    assert story.condition("Placed")["reason"] == "WaitingForCapacity"
    story.later(59).settle()
    assert story.attempt["number"] == 1
    story.later(2).settle()
    assert (story.record(1)["verdict"], story.attempt["placement"]) == ("Unschedulable", "on-demand")


def test_a_job_in_a_queue_whose_placement_was_removed_leaves_it():
    story = queued(placements=LADDER)
    story.job["spec"]["placements"] = LADDER[1:]
    story.settle()
    assert (story.record(1)["verdict"], story.attempt["placement"]) == ("Unschedulable", "on-demand")
    assert [jobset["metadata"]["name"] for jobset in story.jobsets] == ["sums-a2"]


def test_the_patience_with_a_container_that_does_not_start_begins_when_the_queue_lets_the_job_go():
    story = queued().later(1000).admit()
    story.settle()
    story.place()
    pod = story.pod(0)
    pod["status"]["containerStatuses"] = [{"name": "trainer", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]
    assert story.later(5).decide().requeue_after == pytest.approx(115)
    assert story.status["attempts"] == []
    story.later(121).decide()
    assert story.record(1)["verdict"] == "StartFailed"


def test_an_attempt_that_the_queue_takes_back_is_charged_as_lost_capacity_and_queues_again():
    story = running(restart={"preemptionLimit": 1, "failureLimit": 0})
    story.evict()
    plan = story.decide()
    record = story.record(1)
    assert (record["verdict"], record["chargedTo"], record["notice"]) == ("QueueEvicted", "preemptions", "graceful")
    assert "its queue, research, suspended JobSet sums-a1" in record["evidence"]
    assert plan.status_first
    # The JobSet goes at once: left alone, the queue could let it start pods again while the old ones still write.
    assert [(it.kind, it.name) for it in plan.delete] == [("JobSet", "sums-a1")]
    story.settle()
    assert story.attempt["number"] == 1, "the old pods may still write"
    assert story.condition("Placed")["reason"] == "Ending"

    drained(story).later(4).settle()
    assert story.record(1)["endStep"] == 3
    assert "recovery" not in story.record(1), "when it goes on is the queue's to say"
    assert story.attempt["number"] == 2
    assert story.condition("Placed")["reason"] == "WaitingForQuota"
    assert "sums-a2" in story.condition("Placed")["message"]
    assert story.status["phase"] == "Placing"
    assert story.counters == story.counters | {"preemptions": 1, "failures": 0, "disturbancesWithoutProgress": 0}

    story.gone().later(5000).admit()
    story.settle()
    story.place("pool-b")
    story.run()
    story.settle()
    assert story.status["phase"] == "Running"


def test_an_eviction_that_was_missed_is_seen_by_what_it_left():
    """The operator was away: no pod is there any more, and all that tells of them is status."""
    story = running()
    story.evict()
    story.pods.clear()
    story.settle()
    assert story.record(1)["verdict"] == "QueueEvicted"
    assert story.attempt["number"] == 2


def test_an_admission_that_was_missed_is_seen_by_the_pods():
    """The operator was away while the queue let the job go and took it back: its pods are still ending."""
    story = queued().later(60).admit()
    story.place()
    story.run()
    story.evict().decide()
    assert story.record(1)["verdict"] == "QueueEvicted"


def test_pods_that_leave_by_force_after_an_eviction_do_not_fail():
    story = running()
    story.evict().settle()
    for pod in story.pods:
        story.leave(pod, 137)
    story.settle()
    assert story.record(1)["verdict"] == "QueueEvicted"
    assert story.counters["failures"] == 0


def test_a_spot_machine_that_goes_while_the_queue_evicts_is_a_preemption():
    story = running()
    story.shut_down("pool-a-0", "pool-a-1").evict()
    story.decide()
    assert story.record(1)["verdict"] == "Preempted"


def test_a_job_in_a_queue_can_be_suspended_and_leaves_the_queue():
    story = queued()
    story.job["spec"]["suspend"] = True
    story.settle()
    assert story.jobsets == []
    assert (story.record(1)["verdict"], story.condition("Suspended")["status"]) == ("Drained", "True")


def test_a_jobset_that_somebody_suspends_by_hand_is_named_as_that():
    story = Story()
    story.decide()
    story.jobsets[-1]["spec"]["suspend"] = True
    story.settle()
    placed = story.condition("Placed")
    assert placed["reason"] == "WaitingForQuota"
    assert "names no queue" in placed["message"]
    assert "kubectl describe jobset sums-a1 -n team" in placed["message"]

    story = Story().begin()
    story.evict().decide()
    assert story.record(1)["verdict"] == "QueueEvicted"
    assert "somebody who is not Ratchet" in story.record(1)["evidence"]


def test_a_workload_made_by_hand_is_refused_because_every_attempt_has_its_own():
    story = Story(jobSetTemplate={"labels": {QUEUE: "research", "kueue.x-k8s.io/prebuilt-workload-name": "mine"}})
    story.settle()
    accepted = story.condition("Accepted")
    assert accepted["status"] == "False"
    assert "spec.jobSetTemplate.labels" in accepted["message"]
    assert "every attempt has one of its own" in accepted["message"]
