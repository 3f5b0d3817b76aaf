"""Beginning a stage again, and what brings a Failed job back: an edit while it runs or has Failed, or a new job."""

from __future__ import annotations

from plan_story import Story
from test_budgets import fail

AGAIN = {"id": 1, "stage": "reason"}


def edit(story: Story, **spec) -> None:
    story.job["spec"] |= spec
    story.job["metadata"]["generation"] += 1


def in_the_second_stage() -> Story:
    story = Story().begin()
    story.report(step=10, boundary={"stage": 0, "step": 10, "rule": "steps"}).settle()
    story.report(step=14, checkpoint={"step": 14}, stage={"name": "reason", "index": 1, "startStep": 10}).settle()
    return story


def failed_in_the_second_stage() -> Story:
    story = in_the_second_stage()
    story.leave(story.pod(0), 65, message="the loss is no number at step 15", step=14).leave(story.pod(1), 69)
    story.jobset_failed()
    story.settle()
    assert story.status["phase"] == "Failed"
    return story


def test_a_failed_job_goes_on_from_the_end_of_the_stage_before():
    story = failed_in_the_second_stage()
    said = story.condition("Failed")["message"]
    assert "spec.rewind: {id: 1, stage: reason}" in said
    assert "begins again from step 10" in said
    stages = [dict(stage) for stage in story.job["spec"]["stages"]]
    stages[1]["rl"] = stages[1]["rl"] | {"optimizer": {"learningRate": "1e-6"}}
    edit(story, stages=stages, rewind=AGAIN)
    story.settle()
    assert "finishedTime" not in story.status
    assert story.status["rewind"] == {"id": 1, "lineage": 2, "attempt": 1}
    assert story.status["stage"] == {"name": "reason", "index": 1, "startStep": 10}
    assert [r["name"] for r in story.status["stages"]] == ["warm-up", "reason"]
    assert (story.attempt["number"], story.attempt["startStep"]) == (2, 10)
    assert {"TakenUpAgain", "Rewound"} <= set(story.events)
    story.up("pool-b")
    story.report(step=11, startStep=10, stage={"name": "reason", "index": 1, "startStep": 10}).settle()
    assert story.status["progress"]["step"] == 11, "what was made before counts no more"
    assert story.counters.get("stepsLost", 0) == 0
    assert story.condition("Failed")["status"] == "False"


def test_the_same_end_after_a_rewind_names_the_next_order():
    story = failed_in_the_second_stage()
    edit(story, rewind=AGAIN)
    story.settle()
    story.up("pool-b")
    story.leave(story.pod(0), 65, message="the loss is no number at step 15").leave(story.pod(1), 69)
    story.settle()
    assert story.status["phase"] == "Failed"
    assert "spec.rewind: {id: 2, stage: reason}" in story.condition("Failed")["message"]


def test_a_running_job_commits_before_its_stage_begins_again():
    story = in_the_second_stage()
    edit(story, rewind={"id": 5, "stage": "warm-up"})
    story.settle()
    assert story.attempt["number"] == 1, "the old attempt may still write"
    for index in (0, 1):
        story.leave(story.pod(index), 75, step=14)
    story.settle()
    assert story.record(1)["verdict"] == "Drained"
    assert story.status["rewind"]["id"] == 5
    assert story.status["stage"]["name"] == "warm-up"
    assert "checkpoint" not in story.status
    assert (story.attempt["number"], story.attempt["startStep"]) == (2, 0)
    story.later(3600).settle()
    assert story.status["rewind"]["lineage"] == 2, "an order is carried out once"


def test_a_stage_that_has_not_begun_cannot_begin_again():
    story = Story().begin()
    edit(story, rewind=AGAIN)
    story.settle()
    assert "rewind" not in story.status
    assert "endedTime" not in story.attempt


def test_an_order_that_a_job_is_created_with_is_the_trainers_alone():
    story = Story(rewind=AGAIN).begin()
    assert story.status["rewind"] == {"id": 1, "lineage": 1, "attempt": 0}
    stage = {"name": "reason", "index": 1, "startStep": 10}
    story.report(step=11, startStep=10, stage=stage, inherited={"namespace": "team", "name": "old", "jobUID": "old"})
    story.settle()
    assert story.status["stage"] == stage, "the checkpoint knows"
    assert "endedTime" not in story.attempt


def test_a_limit_that_is_raised_brings_a_failed_job_back():
    story = Story(restart={"failureLimit": 0}).begin()
    fail(story)
    story.later(121).settle()
    assert story.status["phase"] == "Failed"
    edit(story, restart={"failureLimit": 0, "healthySteps": 10})
    story.settle()
    assert (story.status["phase"], story.events[-1]) == ("Failed", "EditIgnored")
    edit(story, restart={"failureLimit": 3})
    story.settle()
    assert story.attempt["number"] == 2
    assert "finishedTime" not in story.status


def test_an_edit_that_cannot_be_read_leaves_a_failed_job_as_it_is_and_says_so():
    story = failed_in_the_second_stage()
    edit(story, rewind={"id": 0, "stage": "reason"})
    story.settle()
    assert story.status["phase"] == "Failed"
    told = [e.message for plan in story.plans for e in plan.events if e.reason == "EditIgnored"]
    assert "spec.rewind.id" in told[0]


def test_a_failed_job_whose_directory_another_works_in_stays_failed():
    story = failed_in_the_second_stage()
    story.directory_owner = "team/heir"
    edit(story, rewind=AGAIN)
    story.settle()
    assert story.status["phase"] == "Failed"
    told = [e.message for plan in story.plans for e in plan.events if e.reason == "EditIgnored"]
    assert "job team/heir works in its directory" in told[0]
