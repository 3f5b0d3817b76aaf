"""What disturbances and failures cost, when they are forgiven, and when a job gives up or slows down."""

from __future__ import annotations

import pytest
from plan_story import Story


def fail(story: Story, code: int = 70, **message) -> None:
    """The present attempt ends with this code, its pods are gone, and the next one is up if there is to be one."""
    number = story.attempt["number"]
    story.leave(story.pod(0), code, **message).leave(story.pod(1), 69)
    story.jobset_failed()
    story.settle()
    story.pods = [p for p in story.pods if p["metadata"]["labels"]["ratchet.dev/attempt"] != str(number)]


def again(story: Story) -> None:
    story.settle()
    story.up("pool-b")


def test_the_job_fails_when_the_limit_is_exceeded_and_the_verdict_is_final():
    story = Story(restart={"failureLimit": 1}).begin()
    fail(story)
    again(story)
    fail(story)
    assert story.status["phase"] != "Failed"
    assert story.condition("Placed")["reason"] == "AwaitingEvidence"
    assert story.plans[-2].requeue_after == pytest.approx(120, abs=1)
    story.later(121).settle()
    failed = story.condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", "FailureLimitExceeded")
    assert story.status["finishedTime"]
    assert story.events[-1] == "Failed"


def test_late_evidence_of_a_lost_node_refunds_the_failure():
    story = Story(restart={"failureLimit": 0}).begin()
    story.leave(story.pod(0), 1).leave(story.pod(1), 69)
    story.jobset_failed()
    story.settle()
    assert story.counters["failures"] == 1
    story.later(60)
    story.nodes["pool-a-0"] = None
    story.settle()
    assert (story.counters["failures"], story.counters["preemptions"]) == (0, 1)
    assert story.record(1)["verdict"] == "NodeLost"
    assert story.attempt["number"] == 2, "so the job goes on"


def test_evidence_that_comes_too_late_changes_nothing():
    story = Story().begin()
    story.leave(story.pod(0), 1).leave(story.pod(1), 69)
    story.jobset_failed()
    story.settle()
    story.later(121)
    story.nodes["pool-a-0"] = None
    story.settle()
    assert story.record(1)["verdict"] == "ApplicationFailed"


@pytest.mark.parametrize(
    ("code", "reason"), [(64, "ConfigurationInvalid"), (65, "DeterministicFailure"), (77, "CheckpointUnreadable")]
)
def test_some_ends_are_final_at_once(code, reason):
    story = Story().begin()
    story.leave(story.pod(0), code, message="what is wrong").leave(story.pod(1), 69)
    story.settle()
    failed = story.condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", reason)
    assert "what is wrong" in failed["message"]
    assert story.attempt["number"] == 1
    assert len(story.jobsets) == 1, "its log can be read"


def test_preemptions_have_no_limit_unless_the_manifest_sets_one():
    story = Story(restart={"preemptionLimit": 0}).begin()
    story.shut_down("pool-a-0", "pool-a-1")
    story.settle()
    story.leave(story.pod(0), 75).leave(story.pod(1), 75)
    story.settle()
    story.later(121).settle()
    assert story.condition("Failed")["reason"] == "PreemptionLimitExceeded"


def test_failures_are_forgiven_after_healthy_steps():
    story = Story(restart={"healthySteps": 5}).begin()
    fail(story)
    again(story)
    assert story.counters["failures"] == 1
    story.report(step=4).settle()
    assert story.counters["failures"] == 1
    story.report(step=5).settle()
    assert story.counters["failures"] == 0


def test_steps_that_an_earlier_attempt_made_forgive_nothing():
    story = Story(restart={"healthySteps": 5}).begin()
    story.report(step=9).settle()
    fail(story)
    again(story)
    assert story.status["progress"]["step"] == 9
    story.report(step=1).settle()
    assert story.counters["failures"] == 1
    story.report(step=5).settle()
    assert story.counters["failures"] == 0


def test_one_lost_peer_is_free_and_the_second_without_a_step_is_a_failure():
    story = Story().begin()
    fail(story, 69)
    again(story)
    assert story.record(1)["chargedTo"] == "nothing"
    fail(story, 69)
    assert story.record(2)["chargedTo"] == "failures"


def test_a_lost_peer_after_new_steps_is_free_again():
    story = Story().begin()
    fail(story, 69)
    again(story)
    story.report(step=3, checkpoint={"step": 3}).settle()
    fail(story, 69)
    assert story.record(2)["chargedTo"] == "nothing"


def test_three_disturbances_without_a_step_stall_the_job():
    story = Story(restart={"failureLimit": 100}).begin()
    for number in (1, 2):
        fail(story)
        assert story.attempt["number"] == number + 1, "at full speed so far"
        again(story)
    fail(story)
    assert story.counters["disturbancesWithoutProgress"] == 3
    progressing = story.condition("Progressing")
    assert (progressing["status"], progressing["reason"]) == ("False", "Stalled")
    assert story.condition("Placed")["reason"] == "BackingOff"
    assert story.attempt["number"] == 3
    assert "Stalled" in story.events
    story.later(29).settle()
    assert story.attempt["number"] == 3
    story.later(2).settle()
    assert story.attempt["number"] == 4
    story.up("pool-b")
    fail(story)
    story.later(59).settle()
    assert story.attempt["number"] == 4, "the second wait is 60 s"
    story.later(2).settle()
    assert story.attempt["number"] == 5
    story.up("pool-b")
    story.report(step=1, checkpoint={"step": 1}).settle()
    assert story.condition("Progressing")["status"] == "True"


def test_the_back_off_never_exceeds_ten_minutes():
    story = Story(restart={"failureLimit": 1000}).begin()
    for _ in range(12):
        fail(story)
        story.later(601)
        again(story)
    assert story.attempt["number"] == 13


def test_storage_that_cannot_be_reached_is_tried_again_with_patience():
    story = Story().begin()
    fail(story, 74, message="bucket unreachable")
    assert story.record(1)["chargedTo"] == "nothing"
    assert story.attempt["number"] == 1
    assert story.condition("Placed")["reason"] == "BackingOff"
    story.later(31).settle()
    assert story.attempt["number"] == 2


def test_a_finished_job_stays_as_it_is():
    story = Story().begin()
    fail(story, 64)
    assert story.status["phase"] == "Failed"
    story.nodes["pool-a-0"] = None
    story.job["spec"]["suspend"] = True
    story.jobsets.clear()
    assert story.later(10_000).decide().empty
