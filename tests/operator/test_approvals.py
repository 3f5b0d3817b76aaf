"""Approvals: what comes after a stage waits for an entry in spec.approvals where the stage's end asks for one."""

from __future__ import annotations

import json

import pytest
from plan_story import Story

WARM_UP = {"name": "warm-up", "index": 0, "startStep": 0}
REASON = {"name": "reason", "index": 1, "startStep": 10}
ENDED = {"stage": 0, "step": 10, "rule": "guard train/entropy <= 0.05 over 20", "needsApproval": True}


def waiting(boundary=ENDED, stage=WARM_UP, **spec) -> Story:
    """A job whose attempt waits at a boundary that needs an approval."""
    story = Story(**spec).begin()
    told(story, boundary, stage)
    return story


def told(story: Story, boundary=ENDED, stage=WARM_UP) -> None:
    step = boundary["step"]
    story.report(step=step, phase="boundary", stage=stage, boundary=boundary, checkpoint={"step": step})
    story.settle()


def approve(story: Story, stage: str = "warm-up") -> Story:
    story.job["spec"].setdefault("approvals", []).append({"stage": stage})
    story.settle()
    return story


def left(story: Story, boundary=ENDED) -> Story:
    """The attempt left after a minute at the shut gate."""
    story.later(60)
    for index in (0, 1):
        story.leave(story.pod(index), 75, step=boundary["step"], boundary=boundary)
    story.settle()
    return story


def test_the_gate_stays_shut_until_the_approval_is_there():
    story = waiting()
    assert (story.status["phase"], story.gate()["mayEnter"]) == ("AwaitingApproval", 0)
    assert [s["name"] for s in story.status["stages"]] == ["warm-up"]
    approve(story.later(9))
    assert (story.status["phase"], story.gate()["mayEnter"]) == ("Running", 1)
    first, second = story.status["stages"]
    assert (first["endStep"], first["rule"], second["startStep"]) == (10, ENDED["rule"], 10)
    assert first["endTime"] < first["approvedTime"] == second["startTime"]


def test_the_message_has_a_command_that_approves():
    """Applied as it stands, also where other stages are approved already."""
    for before in ([], [{"stage": "reason"}]):
        story = waiting(approvals=before)
        words = story.condition("AwaitingApproval")["message"]
        assert "stage warm-up ended at step 10 (guard train/entropy <= 0.05 over 20)" in words
        assert "ratchet approve sums warm-up -n team" in words
        (patch,) = json.loads(words.split("-p '")[1].rstrip("'"))
        assert (patch["op"], patch["path"].startswith("/spec/approvals")) == ("add", True)
        value = patch["value"]
        approvals = [*before, value] if patch["path"].endswith("/-") else value
        assert approvals == [*before, {"stage": "warm-up"}]


def test_an_approval_given_beforehand_lets_the_stage_pass():
    story = waiting(approvals=[{"stage": "warm-up"}])
    assert (story.status["phase"], story.gate()["mayEnter"]) == ("Running", 1)
    assert "ApprovalNeeded" not in story.events


def test_a_trainer_that_claims_the_next_stage_does_not_pass_by_the_approval():
    story = waiting()
    story.report(step=12, phase="update", stage=REASON, startStep=12, checkpoint={"step": 12})
    story.settle()
    assert (story.status["phase"], story.status["stage"]) == ("AwaitingApproval", WARM_UP)


def test_an_approval_of_another_stage_changes_nothing():
    story = approve(waiting(), "reason")
    assert (story.status["phase"], story.gate()["mayEnter"]) == ("AwaitingApproval", 0)


def test_without_approval_nothing_is_held_and_nothing_is_charged():
    story = left(waiting())
    assert story.status["phase"] == "AwaitingApproval"
    assert (story.jobsets, story.record(1)["chargedTo"], story.attempt["number"]) == ([], "nothing", 1)
    assert (story.counters.get("failures", 0), story.counters.get("disturbancesWithoutProgress", 0)) == (0, 0)
    story.later(30 * 86_400).settle()
    assert story.jobsets == []


def test_a_boundary_in_the_termination_message_is_enough_to_wait():
    story = left(Story().begin())
    assert (story.status["phase"], story.jobsets) == ("AwaitingApproval", [])


def test_once_approved_the_next_attempt_goes_on_at_the_boundary():
    story = approve(left(waiting()).later(7200))
    assert (story.attempt["number"], story.attempt["startStep"]) == (2, 10)
    assert story.status["stage"] == REASON
    story.up("pool-b")
    assert story.gate()["mayEnter"] == 1
    assert "recovery" not in story.record(1), "the hours until the approval are no recovery"


def test_a_node_lost_at_the_gate_starts_nothing_before_the_approval():
    story = waiting()
    story.nodes["pool-a-0"] = story.nodes["pool-a-1"] = None
    story.settle()
    assert (story.status["phase"], story.record(1)["verdict"]) == ("AwaitingApproval", "NodeLost")
    assert approve(story).attempt["number"] == 2


@pytest.mark.parametrize("gone", [False, True])
def test_the_job_is_completed_only_once_its_last_stage_is_approved(gone):
    story = Story().begin()
    told(story, {**ENDED, "needsApproval": False})
    last = {"stage": 1, "step": 40, "rule": "steps 30", "needsApproval": True}
    told(story, last, REASON)
    assert story.gate()["finish"] is False
    assert "the job is completed once that is approved" in story.condition("AwaitingApproval")["message"]
    if gone:
        approve(left(story, last), "reason")
        assert (story.attempt["number"], story.jobsets) == (1, []), "nothing is left to be done by an attempt"
    else:
        approve(story, "reason")
        assert story.gate()["finish"] is True
        story.leave(story.pod(0), 0).leave(story.pod(1), 0)
        story.settle()
    assert story.status["phase"] == "Completed"
    assert story.condition("AwaitingApproval")["status"] == "False"


def test_a_stage_appended_while_the_last_one_waits_is_entered_once_approved():
    story = Story().begin()
    told(story, {**ENDED, "needsApproval": False})
    told(story, {"stage": 1, "step": 40, "rule": "steps 30", "needsApproval": True}, REASON)
    story.job["spec"]["stages"].append({**story.job["spec"]["stages"][1], "name": "more"})
    assert approve(story, "reason").status["stage"] == {"name": "more", "index": 2, "startStep": 40}


def test_a_suspended_job_says_both():
    story = waiting()
    story.job["spec"]["suspend"] = True
    story.settle()
    left(story)
    assert story.status["phase"] == "Suspended"
    assert story.condition("AwaitingApproval")["status"] == "True"
    approve(story)
    assert (story.status["phase"], story.jobsets) == ("Suspended", [])
    story.job["spec"]["suspend"] = False
    story.settle()
    assert story.attempt["number"] == 2


def test_a_job_without_status_waits_again_once_its_trainer_has_said_so():
    story = waiting()
    del story.job["status"]
    story.settle()
    assert (story.status["phase"], story.gate()["mayEnter"]) == ("AwaitingApproval", 0)


def test_what_was_exported_is_remembered_and_told_once():
    story = Story().begin()
    artifact = {"stage": "warm-up", "step": 10, "path": "/checkpoints/exports/warm-up"}
    story.flush_due = False
    story.report(step=10, phase="save", stage=WARM_UP, artifacts=[artifact, {**artifact, "stage": "unknown"}])
    story.settle()
    assert story.status["artifacts"] == [artifact], "at once, and only of stages that there are"
    told(story)
    left(story)
    assert story.status["artifacts"] == [artifact]
    assert story.events.count("ArtifactWritten") == 1
