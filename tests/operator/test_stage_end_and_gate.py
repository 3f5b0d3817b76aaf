"""Stages: the end of one is recorded before the gate to the next is opened."""

from __future__ import annotations

import json

from plan_story import Story, job

WARM_UP = {"name": "warm-up", "index": 0, "startStep": 0}
REASON = {"name": "reason", "index": 1, "startStep": 10}


def at_boundary(story: Story, stage=WARM_UP, step=10, index=0) -> Story:
    boundary = {"stage": index, "step": step, "rule": "steps"}
    return story.report(step=step, phase="boundary", stage=stage, boundary=boundary, checkpoint={"step": step})


def test_a_boundary_is_recorded_first_and_then_the_gate_is_opened():
    story = Story().begin()
    plan = at_boundary(story).decide()
    assert plan.status_first
    assert plan.status["stage"] == REASON
    first, second = plan.status["stages"]
    assert (first["endStep"], first["rule"], second["startStep"]) == (10, "steps", 10)
    (patch,) = plan.patch
    gate = json.loads(patch.body["metadata"]["annotations"]["ratchet.dev/word"])
    assert (gate["mayEnter"], gate["finish"]) == (1, False)
    (stage,) = gate["stages"]
    assert (stage["index"], stage["spec"]["name"], stage["specHash"]) == (1, "reason", gate["specHash"])
    assert story.decide().empty


def test_the_gate_of_a_fresh_attempt_carries_no_stages():
    """They are in its ConfigMap."""
    story = Story().begin()
    assert story.gate() == {**story.gate(), "mayEnter": 0, "finish": False, "stages": [], "attempt": 1}
    at_boundary(story).settle()
    story.later(1).leave(story.pod(0), 69).leave(story.pod(1), 69)
    story.settle()
    story.up("pool-b")
    assert story.gate() == {**story.gate(), "mayEnter": 1, "stages": [], "attempt": 2}
    container = json.loads(story.plans[0].create[0]["data"]["job.json"])
    assert (container["mayEnter"], container["spec"]["stages"][1]["name"]) == (0, "reason")


def test_a_boundary_in_the_termination_message_is_enough():
    """Where HTTP is blocked the trainer leaves with 75 after a minute at the shut gate."""
    story = Story().begin()
    told = {"step": 10, "boundary": {"stage": 0, "step": 10, "rule": "steps"}}
    story.leave(story.pod(0), 75, **told).leave(story.pod(1), 75, **told)
    story.settle()
    assert story.status["stage"] == REASON
    assert story.record(1)["verdict"] == "Drained"
    story.up("pool-b")
    assert story.gate()["mayEnter"] == 1
    assert story.attempt["startStep"] == 10


def test_a_replayed_boundary_is_no_news():
    story = Story().begin()
    at_boundary(story).settle()
    before = story.status["stages"]
    at_boundary(story).settle()
    assert story.status["stages"] == before


def test_finish_is_said_once_status_records_the_last_stage_as_done():
    story = Story().begin()
    at_boundary(story).settle()
    plan = at_boundary(story, REASON, 40, 1).decide()
    assert plan.status_first
    assert plan.status["stages"][-1]["endStep"] == 40
    assert story.gate()["finish"] is True
    story.leave(story.pod(0), 0).leave(story.pod(1), 0)
    story.settle()
    assert story.status["phase"] == "Completed"
    assert story.condition("Completed")["reason"] == "AllStagesDone"
    assert [j["metadata"]["name"] for j in story.jobsets] == ["sums-a1"], "kept for reading"


def test_a_preemption_while_finishing_only_repeats_the_end():
    story = Story().begin()
    at_boundary(story).settle()
    at_boundary(story, REASON, 40, 1).settle()
    story.nodes["pool-a-0"] = story.nodes["pool-a-1"] = None
    story.settle()
    story.up("pool-b")
    assert story.gate()["finish"] is True
    story.leave(story.pod(0), 0).leave(story.pod(1), 0)
    story.settle()
    assert story.status["phase"] == "Completed"


def test_a_leader_that_had_finished_when_its_node_went_has_finished():
    story = Story().begin()
    at_boundary(story).settle()
    at_boundary(story, REASON, 40, 1).settle()
    story.shut_down("pool-a-0", "pool-a-1")
    story.settle()
    assert story.record(1)["verdict"] == "Preempted"
    story.leave(story.pod(0), 0).leave(story.pod(1), 0)
    story.settle()
    assert story.status["phase"] == "Completed"
    assert story.counters["preemptions"] == 0


def test_pods_that_linger_after_the_leader_finished_are_ended():
    story = Story().begin()
    at_boundary(story).settle()
    at_boundary(story, REASON, 40, 1).settle()
    story.leave(story.pod(0), 0)
    story.settle()
    assert story.status["phase"] == "Running"
    assert "deletionTimestamp" not in story.pod(1)["metadata"], "it is leaving by itself"
    story.later(31).settle()
    assert story.pod(1)["metadata"]["deletionGracePeriodSeconds"] == 2
    story.leave(story.pod(1), 137)
    story.settle()
    assert story.status["phase"] == "Completed"


def test_a_stage_appended_in_time_is_entered():
    story = Story().begin()
    at_boundary(story).settle()
    extra = {**story.job["spec"]["stages"][1], "name": "more"}
    story.job["spec"]["stages"].append(extra)
    at_boundary(story, REASON, 40, 1).settle()
    assert story.status["stage"] == {"name": "more", "index": 2, "startStep": 40}
    assert story.gate()["mayEnter"] == 2
    assert [s["index"] for s in story.gate()["stages"]] == [1, 2], "all that this attempt's ConfigMap did not know"


def test_a_stage_appended_after_the_end_is_left_out_and_said_so():
    story = Story().begin()
    at_boundary(story).settle()
    at_boundary(story, REASON, 40, 1).settle()
    story.job["spec"]["stages"].append({**story.job["spec"]["stages"][1], "name": "more"})
    story.settle()
    assert story.gate()["finish"] is True
    assert "more" in story.condition("Accepted")["message"]


def test_an_edited_later_stage_reaches_the_trainer_as_it_is_when_it_begins():
    story = Story().begin()
    story.job["spec"]["stages"][1]["advance"] = {"steps": 99}
    at_boundary(story).settle()
    assert story.gate()["stages"][0]["spec"]["advance"]["steps"] == 99


def test_a_gate_that_is_too_long_is_not_written():
    """The trainer leaves after a minute, and the next attempt's ConfigMap holds everything."""
    long = {"dataset": "sums", "promptsPerStep": 16}
    stages = [{"name": "warm-up", "sft": {"dataset": "sums"}, "advance": {"steps": 10}}]
    when = [{"metric": f"train/{'accuracy'}", "atLeast": "0.9", "window": 10} for _ in range(16)]
    stages += [{"name": f"s{i}", "rl": long, "advance": {"steps": 10, "when": when}} for i in range(60)]
    story = Story(stages=stages).begin()
    for _ in range(60):
        stage = story.status["stage"]
        at_boundary(story, stage, stage["startStep"] + 10, stage["index"]).later(1).settle()
    assert "StageGateTooLong" in story.events
    assert len(story.pod(0)["metadata"]["annotations"]["ratchet.dev/word"].encode()) <= 48 * 1024


def test_exit_zero_before_the_end_is_a_failure():
    story = Story().begin()
    story.leave(story.pod(0), 0).leave(story.pod(1), 0)
    story.settle()
    assert story.record(1)["verdict"] == "ApplicationFailed"


def test_a_job_applied_again_says_nothing_of_stages_that_ended_before_it_knew_them():
    """Its checkpoint is two stages on; where the first one ended is known to nobody."""
    manifest = job()
    manifest["spec"]["stages"].append({**manifest["spec"]["stages"][1], "name": "more"})
    story = Story(manifest).begin()
    story.report(stage={"name": "more", "index": 2, "startStep": 40}, startStep=55, step=55).settle()
    assert [(s["name"], s["startStep"], s.get("endStep")) for s in story.status["stages"]] == [("more", 40, None)]
    assert story.status["stage"]["index"] == 2
