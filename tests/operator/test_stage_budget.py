"""What a stage may cost: tokens that the trainer counts, chip time that the operator does, and what then happens."""

from __future__ import annotations

import pytest
from plan_story import Story

WARM_UP = {"name": "warm-up", "index": 0, "startStep": 0}
REASON = {"name": "reason", "index": 1, "startStep": 10}
CHIPS = 8  # of the story's placement, 2 hosts with 4 each


def story(stage: str = "warm-up", **budget) -> Story:
    return Story(budgets=[{"stage": stage, **budget}]) if budget else Story()


def leave(it: Story, code: int = 75, **message) -> Story:
    it.leave(it.pod(0), code, **message).leave(it.pod(1), code, **message)
    it.settle()
    return it.gone()


def in_reason(it: Story) -> Story:
    """The warm-up has ended, the second stage trains."""
    it.report(step=10, phase="boundary", stage=WARM_UP, boundary={"stage": 0, "step": 10, "rule": "steps 10"})
    it.settle()
    return it


def spend(it: Story, tokens: int) -> Story:
    """The trainer leaves because its stage may sample no more."""
    stage = REASON | {"generatedTokens": tokens}
    return leave(it, reason="BudgetSpent", message="spent", step=14, stage=stage)


def chip_seconds(it: Story) -> list[int | None]:
    return [stage.get("chipSeconds") for stage in it.status["stages"]]


def test_chip_time_is_booked_where_an_attempt_or_a_stage_ends() -> None:
    it = Story().begin().later(100)
    it.settle()
    assert chip_seconds(it) == [None], "nothing is written while it runs"
    in_reason(it)
    assert chip_seconds(it) == [100 * CHIPS, None]
    it.later(50).shut_down("pool-a-0", "pool-a-1").settle()
    leave(it.later(7), 75)
    assert chip_seconds(it) == [100 * CHIPS, 57 * CHIPS], "until the last pod has ended"
    it.later(1000).settle()
    assert chip_seconds(it) == [100 * CHIPS, 57 * CHIPS], "chips that nobody has cost nothing"
    it.up("pool-b").later(10)
    leave(it, 75)
    assert chip_seconds(it) == [100 * CHIPS, 67 * CHIPS]


def test_an_attempt_without_room_takes_no_chips() -> None:
    it = Story()
    it.settle()
    it.make_pods()
    it.later(500).settle()
    assert chip_seconds(it) == [None]


def test_the_operator_wakes_when_chip_hours_are_spent_and_suspends_the_job() -> None:
    it = story(chipHours="0.1").begin()
    plan = it.later(10).decide()
    assert plan.requeue_after == pytest.approx(360 / CHIPS - 10, abs=0.1)
    it.later(plan.requeue_after + 0.1).settle()
    deleted = [p for p in it.pods if "deletionTimestamp" in p["metadata"]]
    assert len(deleted) == 2, "the gang is told to go, with its grace"
    assert "taken 0.10" in it.record(1)["evidence"]
    leave(it.later(3), 75, step=4)
    it.settle()
    suspended = it.condition("Suspended")
    assert (suspended["status"], suspended["reason"]) == ("True", "BudgetSpent")
    assert "chipHours 0.1: raise it" in suspended["message"]
    assert (it.status["phase"], it.condition("Placed")["reason"]) == ("Suspended", "BudgetSpent")
    assert it.record(1).get("recovery") is None, "nothing is being recovered"
    assert (it.counters["preemptions"], it.counters["failures"]) == (0, 0)
    assert it.events.count("BudgetSpent") == 1
    it.later(3600).settle()
    assert it.attempt["number"] == 1
    it.job["spec"]["budgets"][0]["chipHours"] = "0.2"
    it.settle()
    assert it.attempt["number"] == 2
    assert it.condition("Suspended")["status"] == "False"
    it.up("pool-b")
    assert it.decide().requeue_after == pytest.approx((720 - chip_seconds(it)[0]) / CHIPS, abs=0.1)


def test_spent_tokens_start_nothing_before_the_budget_is_raised() -> None:
    it = in_reason(story("reason", generatedTokens=5000).begin())
    it.report(step=14, stage=REASON | {"generatedTokens": 5100}).settle()
    assert it.status["progress"]["generatedTokens"] == 5100
    assert not it.status.get("attempts"), "the trainer leaves by itself, at the end of a step"
    spend(it, 5100)
    it.settle()
    assert it.condition("Suspended")["reason"] == "BudgetSpent"
    assert "generated 5100 tokens" in it.condition("Suspended")["message"]
    assert it.attempt["number"] == 1
    it.job["spec"]["budgets"][0]["generatedTokens"] = 5100
    it.settle()
    assert it.attempt["number"] == 1, "as much as was generated is too little"
    it.job["spec"]["budgets"] = []
    it.settle()
    assert it.attempt["number"] == 2


def test_the_count_in_the_termination_message_is_enough() -> None:
    """Where HTTP is blocked."""
    it = spend(in_reason(story("reason", generatedTokens=5000).begin()), 5000)
    it.settle()
    assert (it.condition("Suspended")["reason"], it.attempt["number"]) == ("BudgetSpent", 1)


def test_a_budget_is_of_its_stage_alone() -> None:
    rl = {"rl": {"dataset": "sums"}, "advance": {"steps": 10}}
    budget = {"stage": "warm-up", "generatedTokens": 50, "chipHours": "0.01"}
    it = Story(budgets=[budget], stages=[{"name": name, **rl} for name in ("warm-up", "reason")]).begin().later(3)
    it.report(step=9, stage=WARM_UP | {"generatedTokens": 40}).settle()
    in_reason(it)
    assert it.condition("Accepted")["status"] == "True"
    assert it.status["stages"][0]["generatedTokens"] == 40
    assert "generatedTokens" not in it.status["progress"]
    it.later(1000).report(step=14, stage=REASON | {"generatedTokens": 5100}).settle()
    it.report(step=14, stage=WARM_UP | {"generatedTokens": 9999}).settle()
    assert it.status["progress"]["generatedTokens"] == 5100, "what is said of an earlier stage is no news"
    assert not it.status.get("attempts")


@pytest.mark.parametrize("budget", [{"generatedTokens": 5000}, {"chipHours": "0.1"}])
def test_a_budget_may_fail_the_job(budget: dict) -> None:
    it = in_reason(story("reason", onExceeded="Fail", **budget).begin())
    if "chipHours" in budget:
        it.later(60).settle()
        leave(it, 75)
    else:
        message = {"reason": "BudgetExceeded", "message": "spent", "stage": REASON | {"generatedTokens": 5001}}
        leave(it, 65, **message)
    it.settle()
    failed = it.condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", "BudgetExceeded")
    assert "stage reason is not over" in failed["message"]
    assert it.attempt["number"] == 1


def test_a_stage_that_ends_as_its_chips_are_spent_is_over() -> None:
    """The drain came at the boundary: the next stage has a budget of its own, and goes on."""
    it = story("warm-up", chipHours="0.1").begin().later(60)
    it.settle()
    leave(it, 75, step=10, boundary={"stage": 0, "step": 10, "rule": "steps 10"})
    it.settle()
    assert it.status["stage"] == REASON
    assert it.attempt["number"] == 2


def test_a_suspended_job_whose_budget_is_spent_waits_for_both() -> None:
    it = story("reason", generatedTokens=10).begin()
    in_reason(it)
    it.job["spec"]["suspend"] = True
    spend(it, 11)
    it.settle()
    assert it.condition("Suspended")["reason"] == "Suspended"
    it.job["spec"]["suspend"] = False
    it.settle()
    assert (it.condition("Suspended")["reason"], it.attempt["number"]) == ("BudgetSpent", 1)
