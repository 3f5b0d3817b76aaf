"""What a hostile trial found, as tables of the pure core: each fault stands for its kind. The cases that need an API
server are in `test_refusals.py` and `test_ways_out.py`."""

from __future__ import annotations

import pytest
from plan_story import Story, stamps
from test_budgets import fail

from ratchet_operator.directories import Directories


def quota(story: Story) -> None:
    story.settle()
    story.troubles = ('job-controller: Error creating: pods "sums-a1-s-0-0" is forbidden: exceeded quota: none',)
    story.later(5).settle()


# --- what refuses or delays ------------------------------------------------------------------------------------------


def test_who_refuses_to_make_pods_is_said_on_the_job():
    story = Story()
    story.settle()
    assert story.decide().requeue_after == pytest.approx(5, abs=1), "it asks when pods are late"
    quota(story)
    placed = story.condition("Placed")
    assert (placed["status"], placed["reason"]) == ("False", "PodsRefused")
    assert "0 of 2 pods of attempt 1" in placed["message"]
    assert "exceeded quota" in placed["message"]
    assert story.events.count("PodsRefused") == 1
    story.troubles = ()
    story.up()
    assert story.condition("Placed")["reason"] == "AllPodsScheduled"


def test_what_the_scheduler_says_is_said_on_the_job():
    story = Story()
    story.settle()
    story.make_pods()
    words = 'persistentvolumeclaim "checkpoints" not found'
    story.pod(0)["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "message": words}]
    story.settle()
    assert words in story.condition("Placed")["message"]


def test_words_of_the_scheduler_that_change_wait_for_the_next_flush():
    story = Story()
    story.settle()
    story.make_pods()
    waits = {"type": "PodScheduled", "status": "False", "message": "0/5 nodes are available"}
    story.pod(0)["status"]["conditions"] = [waits]
    story.settle()
    story.flush_due, waits["message"] = False, "0/6 nodes are available"
    plan = story.decide()
    assert plan.status is None
    assert plan.requeue_after is not None
    assert plan.requeue_after <= 10
    story.flush_due = True
    story.settle()
    assert "0/6" in story.condition("Placed")["message"]


def test_what_a_container_waits_for_is_said_on_the_job():
    story = Story()
    story.settle()
    story.make_pods()
    story.place()
    waiting = {"reason": "ImagePullBackOff", "message": "manifest unknown"}
    story.pod(1)["status"]["containerStatuses"] = [{"name": "trainer", "state": {"waiting": waiting}}]
    story.settle()
    assert "pod sums-a1-s-0-1 waits: ImagePullBackOff: manifest unknown" in story.condition("Running")["message"]
    story.pod(1)["status"]["containerStatuses"][0]["state"]["waiting"] = {"reason": "ContainerCreating"}
    story.troubles = ("kubelet: MountVolume.SetUp failed for volume data",)
    story.settle()
    assert "MountVolume.SetUp failed" in story.condition("Running")["message"]


def test_a_refused_creation_is_written_before_it_is_tried_again():
    story = Story()
    story.refused = "JobSet sums-a1 could not be created: failed calling webhook"
    plan = story.decide()
    assert plan.status_first
    assert plan.create
    assert story.condition("Placed")["reason"] == "CreateRefused"
    assert "failed calling webhook" in story.condition("Placed")["message"]
    story.refused = None
    story.settle()
    assert story.condition("Placed")["reason"] == "Creating"


def test_only_a_silent_node_is_a_reason_to_speak_of_machines_that_are_off():
    story = Story().begin()
    story.leave(story.pod(0), 70)
    story.settle()
    said = story.condition("Placed")
    assert said["reason"] in ("Ending", "WaitingForOldPods")
    assert "out-of-service" not in said["message"]


# --- one directory, one job -------------------------------------------------------------------------------------------


def test_a_job_on_the_directory_of_a_live_one_is_refused_while_that_is_there():
    story = Story(checkpoint={"directory": "/checkpoints/sums", "claimName": "checkpoints", "existing": "Resume"})
    story.directory_owner = "team/first"
    story.settle()
    assert story.jobsets == []
    said = story.condition("Accepted")
    assert (said["status"], said["reason"]) == ("False", "DirectoryInUse")
    assert "spec.checkpoint.directory: job team/first works in it" in said["message"]
    story.directory_owner = None
    story.settle()
    assert story.jobsets, "it begins once the other one is over"


def test_a_directory_is_that_of_the_job_that_was_first_and_is_not_over():
    woken = []
    known = Directories(woken.append)

    def job(name, age, namespace="team", directory="/checkpoints/sums", claim="checkpoints", over=False):
        meta = {"namespace": namespace, "name": name, "uid": f"uid-{name}", "creationTimestamp": age}
        spec = {"checkpoint": {"directory": directory} | ({"claimName": claim} if claim else {})}
        return {"metadata": meta, "spec": spec, "status": {"finishedTime": "2026-01-01T00:00:00Z"} if over else {}}

    def owner(*arguments, **more):
        return known.owner(job(*arguments, **more))

    first, second = ("first", "2026-01-01T00:00:00Z"), ("second", "2026-01-02T00:00:00Z")
    known.hear(job(*second))
    known.hear(job(*first))
    assert owner(*second) == "team/first"
    assert owner(*first) is None
    elsewhere = ("elsewhere", "2026-01-03T00:00:00Z", "other")
    known.hear(job(*elsewhere))
    assert owner(*elsewhere) is None, "a claim of another namespace is another volume"
    here = ("here", "2026-01-04T00:00:00Z", "team", "gs://bucket/sums/", "")
    there = ("there", "2026-01-05T00:00:00Z", "other", "gs://bucket/sums", "")
    known.hear(job(*here))
    known.hear(job(*there))
    assert owner(*there) == "team/here", "a bucket is the same everywhere"
    woken.clear()
    known.hear(job(*first, over=True))
    assert woken == [("team", "second")]
    assert owner(*second) is None
    assert owner(*first, over=True) == "team/second", "who is over cannot go on where another works"
    late = job("second", "2025-01-01T00:00:00Z")
    late["metadata"]["uid"] = "its predecessor"
    known.hear(late, gone=True)
    assert owner(*first, over=True) == "team/second"
    known.forget(("team", "here"))
    assert owner(*there) is None
    known.hear({"metadata": {"name": "odd"}, "spec": {"checkpoint": "no object"}})
    known.hear(job(*first))
    assert owner(*second) == "team/first"
    for reason, its in (("Invalid", None), ("DirectoryInUse", "team/first")):
        refused = job(*first)
        refused["status"] = {"conditions": [{"type": "Accepted", "status": "False", "reason": reason}]}
        known.hear(refused)
        assert owner(*second) == its, f"of {reason}, which has not begun"
    begun = job(*second)
    begun["status"] = {"attempt": {"number": 1}}
    known.hear(begun)
    assert owner(*first) == "team/second", "who has begun goes on"


def test_being_fenced_off_by_another_job_ends_the_job():
    story = Story().begin()
    owner = {"jobUID": "another", "attempt": 1}
    story.leave(story.pod(0), 73, message="taken over by team/second (uid another)", owner=owner)
    story.leave(story.pod(1), 69)
    story.settle()
    failed = story.condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", "TakenOver")
    assert "team/second" in failed["message"]
    assert "checkpoint.existing: Resume" in failed["message"]
    assert len(story.jobsets) == 1, "no second gang"
    assert story.counters.get("failures", 0) == 0


# --- what is refused is not entered -----------------------------------------------------------------------------------

BAD = {"name": "more", "sft": {"dataset": "sums", "batchSize": 3}, "advance": {"steps": 10}}


def at_the_last_boundary(story: Story) -> Story:
    story.begin()
    story.report(step=10, boundary={"stage": 0, "step": 10, "rule": "steps"}).settle()
    story.job["spec"]["stages"].append(BAD | {"sft": dict(BAD["sft"])})
    story.settle()
    assert story.condition("Accepted")["status"] == "False"
    story.report(step=40, boundary={"stage": 1, "step": 40, "rule": "steps"}).settle()
    return story


def test_a_stage_that_is_not_accepted_is_not_entered_and_the_job_does_not_end_without_it():
    story = at_the_last_boundary(Story())
    assert story.status["stages"][-1]["endStep"] == 40
    assert story.status["stage"]["name"] == "reason"
    assert (story.gate()["mayEnter"], story.gate()["finish"]) == (1, False)
    for index in (0, 1):
        story.leave(story.pod(index), 75, step=40)
    story.settle()
    assert story.status["phase"] != "Completed"
    assert story.condition("Placed")["reason"] == "NotAccepted"
    story.job["spec"]["stages"][-1]["sft"]["batchSize"] = 4
    story.settle()
    assert story.status["stage"] == {"name": "more", "index": 2, "startStep": 40}
    assert story.attempt["number"] == 2


def test_a_refused_stage_that_is_removed_lets_the_job_end():
    story = at_the_last_boundary(Story())
    story.job["spec"]["stages"].pop()
    story.settle()
    assert story.gate()["finish"] is True
    for index in (0, 1):
        story.leave(story.pod(index), 0)
    story.settle()
    assert story.status["phase"] == "Completed"


def test_an_edit_of_a_completed_job_is_answered_once():
    story = Story().begin()
    story.report(step=10, boundary={"stage": 0, "step": 10, "rule": "steps"}).settle()
    story.report(step=40, boundary={"stage": 1, "step": 40, "rule": "steps"}).settle()
    for index in (0, 1):
        story.leave(story.pod(index), 0)
    story.settle()
    assert story.status["phase"] == "Completed"
    story.job["spec"]["suspend"] = True
    story.job["metadata"]["generation"] = 2
    story.settle()
    assert story.status["observedGeneration"] == 2
    assert story.events.count("EditIgnored") == 1
    assert story.status["phase"] == "Completed"


# --- evidence ---------------------------------------------------------------------------------------------------------


def failed_and_up_again_on_the_same_nodes() -> Story:
    story = Story().begin()
    story.leave(story.pod(0), 137).leave(story.pod(1), 69)
    story.jobset_failed()
    story.settle()
    assert story.attempt["number"] == 2
    story.make_pods()
    for index in (0, 1):
        story.pod(index)["spec"]["nodeName"] = f"pool-a-{index}"
        bound = {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamps.whole(story.now)}
        story.pod(index)["status"]["conditions"] = [bound]
    story.run()
    story.settle()
    return story


@pytest.mark.parametrize("gone", [False, True])
def test_a_loss_is_evidence_for_the_attempt_that_ran_there_then(gone):
    story = failed_and_up_again_on_the_same_nodes()
    story.later(60)
    story.nodes["pool-a-0"] = None
    if gone:  # the garbage collector was quicker with the pods of the later attempt
        story.pods = [p for p in story.pods if p["metadata"]["labels"]["ratchet.dev/attempt"] == "1"]
    story.settle()
    assert story.record(1)["verdict"] == "ApplicationFailed"
    assert story.record(2)["verdict"] in ("NodeLost", "Deleted")
    assert story.counters["failures"] == 1, "and no refund"


def test_a_named_code_wins_over_its_echo_whoever_is_seen_first():
    """The peer that was only left behind is seen first; the one that knows why leaves while it is being deleted."""
    story = Story().begin()
    story.leave(story.pod(1), 69, message="peer 0 closed the connection")
    story.settle()
    assert story.record(1)["verdict"] == "PeerLost"
    story.leave(story.pod(0), 64, message="spec.stages[0]: no such data set")
    story.settle()
    assert story.condition("Failed")["reason"] == "ConfigurationInvalid"
    assert story.attempt["number"] == 1, "no second gang"


def test_the_end_of_the_log_is_the_evidence_of_a_process_that_could_not_say_why():
    story = Story().begin()
    story.leave(story.pod(1), 1)
    ended = story.pod(1)["status"]["containerStatuses"][0]["state"]["terminated"]
    ended["message"] = "I0000 a line before\nF0000 parse_flags: Unknown flags in XLA_FLAGS: --xla_nonsense\n\n"
    story.settle()
    assert story.record(1)["evidence"].endswith(
        "exit code 1: F0000 parse_flags: Unknown flags in XLA_FLAGS: --xla_nonsense"
    )


def test_two_nodes_that_are_lost_in_one_window_are_one_attempt_and_one_charge():
    story = Story().begin()
    story.nodes["pool-a-0"] = None
    story.settle()
    story.later(3)
    story.nodes["pool-a-1"] = None
    story.settle()
    assert story.counters["preemptions"] == 1
    assert (story.counters.get("failures", 0), story.attempt["number"]) == (0, 2)


# --- what is said -----------------------------------------------------------------------------------------------------


def test_a_job_that_goes_on_from_what_another_left_says_so():
    story = Story().begin()
    left = {"namespace": "team", "name": "sums", "jobUID": "the-one-before"}
    story.report(step=30, startStep=30, inherited=left).settle()
    told = [e.message for plan in story.plans for e in plan.events if e.reason == "GoesOn"]
    assert told == [
        "attempt 1 goes on at step 30, which job team/sums with uid the-one-before left in /checkpoints/sums; "
        "to start over, give the job a directory of its own"
    ]
    starts = [e.message for plan in story.plans for e in plan.events if e.reason == "AttemptStarts"]
    assert starts == ["attempt 1 starts on placement spot"], "nobody knows yet from where"


def test_a_step_that_was_edited_into_status_goes_with_the_next_flush():
    story = Story().begin()
    story.report(step=3, checkpoint={"step": 2}).settle()
    story.status["progress"] |= {"step": 99_999, "text": "99999/10"}
    story.report(step=4, checkpoint={"step": 3}).settle()
    assert story.status["progress"]["step"] == 4


def test_status_still_never_goes_back_after_a_loss():
    story = Story().begin()
    story.report(step=7, checkpoint={"step": 5}).settle()
    story.nodes["pool-a-0"] = story.nodes["pool-a-1"] = None
    story.settle()
    story.up("pool-b")
    story.report(step=5, startStep=5).settle()
    assert story.status["progress"]["step"] == 7


def test_a_failed_job_says_what_can_still_be_read():
    story = Story(restart={"failureLimit": 0}).begin()
    fail(story, message="ZeroDivisionError: division by zero")
    story.later(121).settle()
    said = story.condition("Failed")["message"]
    assert "division by zero" in said
    assert "read the log of the last attempt's pods" not in said, "they are gone"


# --- by what was admitted before --------------------------------------------------------------------------------------


def test_a_job_whose_spec_cannot_be_worked_with_recovers_by_the_one_before():
    story = Story().begin()
    story.instead = ("InternalError", "a pass over the job failed, which is a bug: RecursionError")
    story.settle()
    said = story.condition("Accepted")
    assert (said["status"], said["reason"]) == ("False", "InternalError")
    story.nodes["pool-a-0"] = story.nodes["pool-a-1"] = None
    story.settle()
    assert story.attempt["number"] == 2
    assert len(story.jobsets) == 1
    story.instead = None
    story.settle()
    assert story.condition("Accepted")["status"] == "True"


def test_settings_that_are_nested_too_deeply_are_refused_with_their_place():
    deep: dict = {}
    for _ in range(30):
        deep = {"a": [deep]}
    story = Story(datasets=[{"name": "sums", "reasoningGym": {"task": "chain_sum", "config": deep}}])
    story.settle()
    assert "spec.datasets[0].reasoningGym.config" in story.condition("Accepted")["message"]
    assert story.jobsets == []


# --- threads of other operators' users --------------------------------------------------------------------------------


@pytest.mark.parametrize("ready", ["False", "Unknown"])
def test_nodes_that_are_not_ready_for_minutes_while_their_pods_live_are_no_verdict(ready):
    story = Story().begin()
    for name in ("pool-a-0", "pool-a-1"):
        story.nodes[name]["status"]["conditions"][0] |= {"status": ready, "message": "Kubelet stopped posting."}
    for _ in range(6):
        story.later(30).settle()
    assert (story.attempt["number"], "endedTime" in story.attempt) == (1, False)
    for name in ("pool-a-0", "pool-a-1"):
        story.nodes[name]["status"]["conditions"][0]["status"] = "True"
    story.settle()
    assert story.counters.get("preemptions", 0) == 0


def test_the_leader_of_a_very_large_gang_is_replaced_with_all_its_pods_and_names():
    """Over 256 pods JobSet places slices by its webhook, which looks for the leader of the same name: every attempt has
    names of its own, and the old JobSet is gone before the new one is made."""
    large = {"name": "big", "accelerator": "tpu-v5p-slice", "topology": "8x16x16"}
    stages = [{"name": "only", "sft": {"dataset": "sums", "batchSize": 512}, "advance": {"steps": 5}}]
    story = Story(placements=[large], stages=stages).begin()
    first = story.jobsets[0]["metadata"]
    assert "alpha.jobset.sigs.k8s.io/exclusive-topology" in first["annotations"]
    assert len(story.pods) > 256
    story.leave(story.pod(0), 137)
    story.nodes[story.pod(0)["spec"]["nodeName"]] = None
    story.settle()
    for pod in story.pods:
        if pod["status"]["phase"] == "Running":
            story.leave(pod, 69)
    story.gone().settle()
    assert [jobset["metadata"]["name"] for jobset in story.jobsets] == ["sums-a2"]
    assert first["name"] == "sums-a1"
    story.up("pool-b")
    assert story.condition("Running")["status"] == "True"
    assert story.counters["preemptions"] == 1
