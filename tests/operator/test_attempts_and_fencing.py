"""One attempt at a time: how the next one starts, what it waits for, and what a crash in between leaves behind."""

from __future__ import annotations

import json

import pytest
from plan_story import Story, job

from ratchet_api.protocol import ANNOTATION_STAGE_GATE, LABEL_ATTEMPT, LABEL_JOBSET_UID
from ratchet_operator.decide import stamps
from ratchet_operator.decide.lifecycle import decide
from ratchet_operator.decide.observed_pod import Pod
from ratchet_operator.reconcile import leader


def names(objects) -> list[str]:
    return [f"{it['kind']}/{it['metadata']['name']}" for it in objects]


def test_the_first_pass_authorises_and_creates():
    story = Story()
    plan = story.decide()
    assert plan.status_first
    assert names(plan.create) == ["ConfigMap/sums-a1-job", "JobSet/sums-a1"]
    assert plan.status["attempt"]["number"] == 1
    assert "jobSetUID" not in plan.status["attempt"]
    story.settle()
    assert story.attempt["jobSetUID"] == story.jobsets[0]["metadata"]["uid"]


def test_an_idle_pass_wants_nothing():
    story = Story().begin()
    for _ in range(3):
        assert story.later(60).decide().empty


def test_the_next_attempt_waits_for_every_old_pod():
    story = Story().begin()
    story.leave(story.pod(0), 69)
    story.settle()
    assert story.attempt["number"] == 1, "pod 1 has not ended yet"
    story.leave(story.pod(1), 137)
    plan = story.decide()
    assert plan.status_first
    assert names(plan.create) == ["ConfigMap/sums-a2-job", "JobSet/sums-a2"]


def test_a_pod_on_a_node_that_does_not_answer_holds_the_next_attempt():
    """Until the Node is gone or tainted out-of-service nobody knows whether the pod still writes."""
    story = Story().begin()
    story.leave(story.pod(0), 69)
    story.decide()
    story.nodes["pool-a-1"]["status"]["conditions"][0] |= {"status": "Unknown"}
    story.settle()
    assert story.attempt["number"] == 2
    placed = story.condition("Placed")
    assert placed["reason"] == "WaitingForOldPods"
    assert "sums-a1-s-0-1" in placed["message"]
    assert "out-of-service" in placed["message"]
    assert len(story.jobsets) == 0
    story.nodes["pool-a-1"]["spec"]["taints"] = [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]
    assert names(story.decide().create) == ["ConfigMap/sums-a2-job", "JobSet/sums-a2"]


def test_an_absent_node_is_a_fence():
    story = Story().begin()
    story.nodes["pool-a-0"] = story.nodes["pool-a-1"] = None
    first = story.decide()
    assert first.status["attempts"][0]["verdict"] == "NodeLost"
    assert names(story.decide().create) == ["ConfigMap/sums-a2-job", "JobSet/sums-a2"]


@pytest.mark.parametrize("acts", range(6))
def test_a_crash_between_any_two_writes_converges(acts):
    """Whatever the first pass managed to write, the passes after it end in the same place."""
    story = Story()
    story.apply(decide(story.snapshot()), acts=acts)
    story.begin()
    assert (story.attempt["number"], story.status["phase"]) == (1, "Running")
    story.shut_down("pool-a-0", "pool-a-1")
    story.apply(decide(story.snapshot()), acts=acts)
    story.settle()
    for index in (0, 1):
        story.leave(story.pod(index, attempt=1), 75, step=0)
    story.apply(decide(story.snapshot()), acts=acts)
    story.settle()
    story.up("pool-b")
    assert (story.attempt["number"], story.status["phase"]) == (2, "Running")
    assert [j["metadata"]["name"] for j in story.jobsets] == ["sums-a2"]
    assert story.counters["preemptions"] == 1
    assert story.configmaps == {"sums-a2-job"}


def test_an_authorised_attempt_of_which_only_pods_are_left_has_ended():
    story = Story()
    story.decide()
    story.make_pods()
    story.jobsets.clear()
    story.settle()
    assert story.record(1)["verdict"] == "Deleted"


def test_a_job_that_was_applied_again_waits_for_the_pods_of_its_predecessor():
    old = Story().begin()
    new = Story()
    new.pods, new.nodes = old.pods, old.nodes
    for pod in new.pods:
        pod["metadata"]["labels"]["ratchet.dev/job-uid"] = "former-uid"
    new.settle()
    assert new.attempt["number"] == 2, "a number is never used twice"
    assert new.jobsets == []
    assert all("deletionTimestamp" in pod["metadata"] for pod in new.pods)
    assert new.pods[0]["metadata"]["deletionGracePeriodSeconds"] == 30, "they may commit their last step"
    new.pods.clear()
    assert names(new.decide().create) == ["ConfigMap/sums-a2-job", "JobSet/sums-a2"]
    assert "StatusReset" not in new.events


REASON = {"name": "reason", "index": 1, "startStep": 10}


@pytest.mark.parametrize(
    ("restored", "may_enter", "believed"),
    [(0, 1, True), (11, 0, True), (0, 0, False)],
    ids=["the stage gate had let it enter", "it began there", "it was never let in"],
)
def test_lost_status_takes_up_the_running_attempt(restored, may_enter, believed):
    story = Story().begin()
    first = next(pod for pod in story.pods if Pod(pod).is_leader)
    first["metadata"]["annotations"] = {ANNOTATION_STAGE_GATE: json.dumps(story.gate() | {"mayEnter": may_enter})}
    story.report(startStep=restored, step=12, stage=REASON, checkpoint={"step": 12})
    uid = story.attempt["jobSetUID"]
    del story.job["status"]
    story.settle()
    assert (story.attempt["number"], story.attempt["jobSetUID"]) == (1, uid)
    assert story.events[-3:].count("StatusReset") == 1
    assert (story.status["stage"] == REASON) == believed, "the checkpoint knows best"
    assert story.status["phase"] == "Running"
    assert len(story.jobsets) == 1


def test_an_older_status_does_not_bring_back_an_older_attempt():
    story = Story().begin()
    before = story.status
    story.leave(story.pod(0), 69).leave(story.pod(1), 69)
    story.settle()
    story.up("pool-b")
    story.job["status"] = before
    story.settle()
    assert story.attempt["number"] == 2
    assert story.status["phase"] == "Running"


def test_a_trainer_that_was_fenced_off_tells_the_newer_number():
    story = Story().begin()
    story.leave(story.pod(0), 73, owner={"jobUID": "job-uid", "attempt": 6}).leave(story.pod(1), 69)
    story.settle()
    assert story.attempt["number"] == 7


def test_an_unfinished_jobset_of_an_older_attempt_is_deleted_on_sight():
    story = Story().begin()
    story.leave(story.pod(0), 69).leave(story.pod(1), 69)
    stale = story.jobsets[0]
    story.settle()
    story.up("pool-b")
    story.jobsets.insert(0, stale)
    plan = story.decide()
    assert [(d.kind, d.name, d.propagation) for d in plan.delete] == [("JobSet", "sums-a1", "Background")]


def test_the_jobset_of_a_failure_stays_for_its_log_until_the_next_attempt_ends():
    story = Story().begin()
    story.leave(story.pod(0), 70).leave(story.pod(1), 69)
    story.settle()
    assert story.attempt["number"] == 2
    assert story.jobsets == [story.jobsets[0]], "the next one waits until the first is finished"
    story.jobset_failed()
    story.settle()
    story.up("pool-b")
    assert [j["metadata"]["name"] for j in story.jobsets] == ["sums-a1", "sums-a2"]
    story.leave(story.pod(0), 69).leave(story.pod(1), 69)
    story.settle()
    assert "sums-a1" not in [j["metadata"]["name"] for j in story.jobsets]


def test_a_foreign_object_of_the_same_name_is_left_alone():
    story = Story()
    story.conflicts = ["JobSet/sums-a1"]
    plan = decide(story.snapshot())
    placed = next(c for c in plan.status["conditions"] if c["type"] == "Placed")
    assert placed["reason"] == "NameConflict"
    assert "JobSet/sums-a1" in placed["message"]


def test_with_notice_the_others_get_what_is_left_of_the_window():
    story = Story().begin()
    story.shut_down("pool-a-0")
    plan = story.decide()
    graces = {d.name: d.grace_seconds for d in plan.delete if d.kind == "Pod"}
    assert graces == {"sums-a1-s-0-1": 15}, "the kubelet of the dying node ends its own pod"
    assert [d.propagation for d in plan.delete if d.kind == "JobSet"] == ["Background"]
    assert plan.status_first, "evidence first"


def test_after_a_loss_two_seconds_are_enough():
    story = Story().begin()
    story.leave(story.pod(0), 70)
    plan = story.decide()
    assert [(d.kind, d.name, d.grace_seconds) for d in plan.delete] == [("Pod", "sums-a1-s-0-1", 2)]


def test_a_loss_during_a_notice_shortens_the_window():
    story = Story().begin()
    story.shut_down("pool-a-0")
    story.settle()
    story.later(1)
    story.leave(story.pod(0), 1)
    plan = story.decide()
    assert [(d.name, d.grace_seconds) for d in plan.delete] == [("sums-a1-s-0-1", 2)]


def test_deleting_one_pod_gives_the_others_its_grace():
    story = Story().begin()
    story.pod(0)["metadata"] |= {
        "deletionTimestamp": stamps.whole(stamps.after(story.now, 20)),
        "deletionGracePeriodSeconds": 20,
    }
    plan = story.decide()
    assert {d.name: d.grace_seconds for d in plan.delete if d.kind == "Pod"} == {"sums-a1-s-0-1": 20}


def test_a_large_model_gets_the_grace_that_its_manifest_gives():
    story = Story(podTemplate={"terminationGracePeriodSeconds": 600}).begin()
    story.job["spec"]["suspend"] = True
    plan = story.decide()
    assert {d.grace_seconds for d in plan.delete if d.kind == "Pod"} == {600}
    story = Story(podTemplate={"terminationGracePeriodSeconds": 600}).begin()
    story.shut_down("pool-a-0")
    plan = story.decide()
    assert {d.grace_seconds for d in plan.delete if d.kind == "Pod"} == {15}, "a notice is as short as it is"


def test_suspension_lets_the_gang_commit_and_holds_the_next_attempt():
    story = Story().begin()
    story.job["spec"]["suspend"] = True
    plan = story.decide()
    assert {d.name: d.grace_seconds for d in plan.delete if d.kind == "Pod"} == {
        "sums-a1-s-0-0": 30,
        "sums-a1-s-0-1": 30,
    }
    assert story.condition("Suspended")["reason"] == "Suspending"
    for index in (0, 1):
        story.leave(story.pod(index), 75, step=7)
    story.settle()
    assert story.condition("Suspended")["status"] == "True"
    assert story.status["phase"] == "Suspended"
    assert story.status["checkpoint"]["step"] == 7, "their last words say what is safe"
    assert story.record(1)["chargedTo"] == "nothing"
    story.job["spec"]["suspend"] = False
    story.later(3600).settle()
    assert story.attempt["number"] == 2
    assert story.attempt["startStep"] == 7
    assert "recovery" not in story.record(1), "a rest is nothing to recover from"


def test_a_suspended_job_starts_nothing():
    story = Story(suspend=True)
    story.settle()
    assert story.jobsets == []
    assert story.status["phase"] == "Suspended"


def test_a_job_that_is_being_deleted_is_left_alone():
    story = Story().begin()
    story.job["metadata"]["deletionTimestamp"] = story.now
    story.leave(story.pod(0), 1)
    assert story.decide().empty


def test_the_image_is_resolved_once():
    story = Story().begin()
    pinned = "trainer:1@sha256:" + "a" * 64
    assert story.status["resolved"] == {"image": pinned}
    story.values = type(story.values)(image="trainer:2")  # the operator is upgraded
    story.leave(story.pod(0), 69).leave(story.pod(1), 69)
    story.settle()
    container = story.jobsets[-1]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == pinned


def test_another_image_counts_from_the_attempt_after_a_suspension():
    story = Story(image="mine:1").begin()
    story.job["spec"] |= {"suspend": True}
    story.settle()
    for index in (0, 1):
        story.leave(story.pod(index), 75)
    story.settle()
    story.job["spec"] |= {"suspend": False, "image": "mine:2"}
    story.settle()
    assert story.status["resolved"]["image"] == "mine:2"
    assert "ImageChanged" in story.events


def test_a_spec_that_cannot_be_read_leaves_the_running_attempt_alone():
    story = Story().begin()
    manifest = job()
    manifest["spec"]["placements"] = [{"name": "x"}]
    story.job["spec"] = manifest["spec"]
    story.settle()
    accepted = story.condition("Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "Invalid")
    assert "spec.placements[0]" in accepted["message"]
    assert story.condition("Running")["status"] == "True"
    assert len(story.jobsets) == 1


def forged(story, attempt: str) -> dict:
    """A pod that somebody who may create pods has given a job's labels."""
    labels = {**story.pods[0]["metadata"]["labels"], LABEL_ATTEMPT: attempt}
    meta = {"name": "forged", "namespace": "team", "uid": "forged", "resourceVersion": "1", "labels": labels}
    return {"metadata": meta, "spec": {}, "status": {"phase": "Running"}}


@pytest.mark.parametrize("attempt", ["1", "2", "9007199254740991", "9" * 19, "\N{SUPERSCRIPT TWO}"])
def test_a_pod_with_labels_alone_neither_ends_an_attempt_nor_is_deleted(attempt):
    story = Story().begin()
    story.pods.append(forged(story, attempt))
    story.leave(story.pods[-1], 64)
    story.settle()
    assert story.attempt["number"] == 1
    assert story.status["phase"] == "Running"
    assert [pod["metadata"]["name"] for pod in story.pods].count("forged") == 1
    assert len(story.jobsets) == 1


def test_last_words_of_a_pod_that_no_job_made_skip_no_number():
    story = Story().begin()
    story.pods.append(forged(story, "1"))
    story.leave(story.pods[-1], 73, owner={"jobUID": "job-uid", "attempt": 900})
    story.leave(story.pod(0), 69).leave(story.pod(1), 69)
    story.pods[-1]["metadata"]["labels"][LABEL_ATTEMPT] = "2"  # of no earlier attempt: it is not waited for
    story.settle()
    assert story.attempt["number"] == 2


def test_each_foreign_object_with_a_jobs_labels_is_told_of_once():
    story = Story().begin()
    story.pods.append(forged(story, "1"))
    story.jobsets.append({"metadata": {**story.pods[-1]["metadata"], "uid": "forged-set"}, "spec": {}, "status": {}})
    for _ in range(3):
        story.later(60).settle()
    assert story.events.count("ForeignObject") == 2
    told = [event.message for plan in story.plans for event in plan.events if event.reason == "ForeignObject"]
    assert "pod forged" in told[0]
    assert "JobSet forged" in told[1]
    assert len(story.jobsets) == 2, "left alone"


def test_nobody_is_asked_for_progress_before_an_attempt_has_its_jobset():
    job, pod = {"metadata": {"uid": "job-uid"}}, forged(Story().begin(), "1")
    del pod["metadata"]["labels"][LABEL_ATTEMPT], pod["metadata"]["labels"][LABEL_JOBSET_UID]
    pod["status"]["podIP"] = "127.0.0.1"
    assert leader(job, [pod]) is None


def test_an_adopted_attempt_that_has_lost_its_jobset_is_ended_in_the_same_pass():
    story = Story()
    story.decide()
    story.settle()
    story.make_pods()
    story.place()
    story.run()
    del story.job["status"]["attempt"]["jobSetUID"]
    story.jobsets.clear()
    plan = story.decide()
    assert {it.name for it in plan.delete if it.kind == "Pod"} == {"sums-a1-s-0-0", "sums-a1-s-0-1"}


def test_what_a_member_had_committed_counts_whatever_it_left_with():
    """The Kubernetes API alone suffices: the next attempt must know that step 0 would be wrong."""
    story = Story().begin()
    story.leave(story.pod(0), 70, step=200).leave(story.pod(1), 69, step=200)
    story.settle()
    assert story.status["checkpoint"]["step"] == 200
    assert (story.attempt["number"], story.attempt["startStep"]) == (2, 200)
