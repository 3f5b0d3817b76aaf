"""What a spec names must exist: metrics that rules and guards watch, data sets of evaluations, stages to start from."""

from __future__ import annotations

from typing import Any

import pytest
from manifests_for_tests import full

from ratchet_api.metric_ranges import COUNTS_AND_SIZES, SHARES
from ratchet_api.stage_metrics import RL_METRICS, SFT_METRICS
from ratchet_api.validate import problems

EVALUATIONS = [{"name": "held", "dataset": "sums", "samples": 8, "passAt": [1, 8]}]
REWARDS = [{"name": "right"}, {"name": "brief", "length": {"kind": "cosine"}}]


def manifest(**changes: Any) -> dict[str, Any]:
    """Stages 0 (sft, on a file) and 1 (rl, on generated sums); changes of spec."""
    job = full()
    job["spec"]["evaluations"] = EVALUATIONS
    job["spec"]["stages"][1]["rl"]["rewards"] = REWARDS
    job["spec"] |= changes
    return job


def said(job: dict[str, Any]) -> list[str]:
    return [str(problem) for problem in problems(job)]


GOOD = ("evaluation/held/accuracy", "evaluation/held/pass_at_8", "reward/brief", "accuracy", "train/kl", "entropy")
BAD = [
    (1, "evaluation/hold/accuracy", "no evaluation hold in spec.evaluations; did you mean held?"),
    (1, "evaluation/held/pass_at_4", "pass_at_1, pass_at_8; add it to passAt"),
    (1, "evaluation/held", "evaluation held reports no such metric; it reports accuracy, score"),
    (1, "reward/accuracy", "no reward accuracy in rl.rewards of this stage; there are right, brief"),
    (1, "reward/brie", "did you mean brief?"),
    (1, "value_loss", "needs a critic"),
    (0, "evaluation/hold/accuracy", "did you mean held?"),
]


NEVER = [
    (1, {"metric": "accuracy", "atLeast": "1.1"}, "atLeast", "train/accuracy is never more than 1, so not 1.1"),
    (1, {"metric": "train/unsolved", "atMost": "-0.01"}, "atMost", "is never less than 0"),
    (1, {"metric": "evaluation/held/pass_at_8", "atLeast": "95"}, "atLeast", "never more than 1, so not 95"),
    (1, {"metric": "response_tokens", "atLeast": "33"}, "atLeast", "train/response_tokens is never more than 32"),
    (1, {"metric": "entropy", "atMost": "-1"}, "atMost", "take at least that"),
    (0, {"metric": "loss", "atMost": "-0.5"}, "atMost", "train/loss is never less than 0"),
]
MAY = [
    (1, {"metric": "accuracy", "atLeast": "1"}),
    (1, {"metric": "unsolved", "atMost": "0.0"}),
    (1, {"metric": "loss", "atMost": "-0.5"}),
    (1, {"metric": "reward", "atLeast": "7"}),
    (1, {"metric": "evaluation/held/score", "atLeast": "2"}),
    (1, {"metric": "response_tokens", "atLeast": "32"}),
    (0, {"metric": "loss", "atMost": "0"}),
]


@pytest.mark.parametrize(("stage", "bound", "field", "words"), NEVER)
def test_a_bound_that_a_metric_never_reaches_is_named(stage: int, bound: dict, field: str, words: str) -> None:
    for place in ("guards", "advance.when"):
        job = manifest()
        inside = job["spec"]["stages"][stage]
        (inside["advance"] if place == "advance.when" else inside)[place.rpartition(".")[2]] = [bound]
        (found,) = said(job)
        assert found.startswith(f"spec.stages[{stage}].{place}[0].{field}: ")
        assert words in found


@pytest.mark.parametrize(("stage", "bound"), MAY)
def test_a_bound_at_the_end_of_a_range_or_of_a_metric_without_one_is_taken(stage: int, bound: dict) -> None:
    job = manifest()
    job["spec"]["stages"][stage]["guards"] = [bound]
    assert said(job) == []


def test_a_stall_within_less_than_nothing_never_holds() -> None:
    job = manifest()
    stall = {"metric": "accuracy", "stall": {"patience": 2, "minDelta": "-0.1"}}
    job["spec"]["stages"][1]["advance"]["when"] = [stall]
    assert said(job) == [
        "spec.stages[1].advance.when[0].stall.minDelta: values are never less than 0 apart, -0.1 is; take 0 or more"
    ]


def test_every_metric_that_has_a_range_is_one_that_stages_report() -> None:
    known = {name.partition("/")[2] for name in (*RL_METRICS, *SFT_METRICS)}
    assert {*SHARES, *COUNTS_AND_SIZES} <= known


def test_budgets_name_stages_that_can_spend_them() -> None:
    job = manifest()
    first, second = (stage["name"] for stage in job["spec"]["stages"][:2])
    job["spec"]["budgets"] = [
        {"stage": first, "generatedTokens": 10},
        {"stage": second, "generatedTokens": 10, "chipHours": "1.5", "onExceeded": "Fail"},
        {"stage": f"{second}s", "chipHours": "1"},
    ]
    sft, unknown = said(job)
    assert sft.startswith("spec.budgets[0].generatedTokens: ")
    assert "give chipHours" in sft
    assert unknown == f"spec.budgets[2].stage: {second}s is no stage of spec.stages; did you mean {second}?"


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ({}, "a budget limits something"),
        ({"generatedTokens": 0}, "greater than or equal to 1"),
        ({"chipHours": "0"}, "must be greater than 0"),
        ({"chipHours": 2}, 'quote it: "2"'),
        ({"chipHours": "1", "onExceeded": "Advance"}, "'Suspend' or 'Fail'"),
    ],
)
def test_a_budget_that_limits_nothing_is_refused(budget: dict, words: str) -> None:
    job = manifest()
    job["spec"]["budgets"] = [{"stage": job["spec"]["stages"][1]["name"], **budget}]
    (found,) = said(job)
    assert found.startswith("spec.budgets[0]")
    assert words in found


@pytest.mark.parametrize("metric", GOOD)
def test_metrics_that_are_reported_may_be_watched(metric: str) -> None:
    job = manifest()
    job["spec"]["stages"][1]["advance"]["when"] = [{"metric": metric, "atLeast": "0.5"}]
    job["spec"]["stages"][1]["guards"] = [{"metric": metric, "atMost": "0.1"}]
    assert said(job) == []


@pytest.mark.parametrize(("stage", "metric", "words"), BAD)
def test_a_metric_that_never_comes_is_named(stage: int, metric: str, words: str) -> None:
    job = manifest()
    job["spec"]["stages"][stage]["guards"] = [{"metric": metric, "atMost": "0.1"}]
    (found,) = said(job)
    assert found.startswith(f"spec.stages[{stage}].guards[0].metric: ")
    assert words in found
    job = manifest()
    job["spec"]["stages"][stage]["advance"]["when"] = [{"metric": metric, "atLeast": "0.5"}]
    assert any(words in text for text in said(job))


def test_a_guard_of_an_sft_stage_watches_what_such_a_stage_reports() -> None:
    job = manifest()
    job["spec"]["stages"][0]["guards"] = [{"metric": "accuracy", "atMost": "0.1"}]
    assert said(job) == [
        "spec.stages[0].guards[0].metric: an sft stage reports no train/accuracy; it reports train/loss, train/tokens "
        "and those of evaluations"
    ]
    job["spec"]["stages"][0]["guards"] = [{"metric": "train/loss", "atMost": "0.1"}]
    assert said(job) == []


def test_without_rewards_there_is_the_accuracy() -> None:
    job = manifest()
    del job["spec"]["stages"][1]["rl"]["rewards"]
    job["spec"]["stages"][1]["guards"] = [{"metric": "reward/accuracy", "atMost": "0.1"}]
    assert said(job) == []


def test_an_evaluation_needs_items_that_nobody_trains_on() -> None:
    assert said(manifest(evaluations=[{"name": "e", "dataset": "summs"}])) == [
        "spec.evaluations[0].dataset: summs is not in spec.datasets; did you mean sums?"
    ]
    (found,) = said(manifest(evaluations=[{"name": "e", "dataset": "file"}]))
    assert "stage warm-up trains on every item of file, so none is held out" in found


@pytest.mark.parametrize(
    ("stage", "weights", "words"),
    [
        (0, "best", "the first stage has no weights to choose from"),
        (0, "stage/reason", "the first stage has no weights to choose from"),
        (1, "stage/reason", "reason is no stage before this one; there are warm-up"),
        (1, "stage/warmup", "did you mean warm-up?"),
        (1, "stage/warm-up", None),
        (1, "best", None),
        (1, "previous", None),
    ],
)
def test_a_stage_starts_from_weights_that_are_there(stage: int, weights: str, words: str | None) -> None:
    job = manifest()
    job["spec"]["stages"][stage]["start"] = {"weights": weights}
    found = said(job)
    assert bool(found) == (words is not None)
    assert all(words in text and f"spec.stages[{stage}].start.weights" in text for text in found)


def test_the_best_of_a_supervised_stage_needs_an_evaluation() -> None:
    job = manifest(evaluations=[])
    job["spec"]["stages"][1]["start"] = {"weights": "best"}
    (found,) = said(job)
    assert "an sft stage reports no accuracy; give the job an evaluation" in found
    job = manifest(evaluations=[])
    job["spec"]["stages"].append(job["spec"]["stages"][1] | {"name": "after", "start": {"weights": "best"}})
    (found,) = said(job)
    assert "stage choose moves no weight, so it has none to choose from" in found


def test_a_curate_stage_has_no_best_weights() -> None:
    """With an evaluation or without: none may be due in it, and then the trainer would find that out days later."""
    job = manifest()
    job["spec"]["stages"].insert(1, {"name": "look", "curate": {"dataset": "sums"}})
    job["spec"]["stages"][1]["start"] = {"weights": "best"}
    assert said(job) == []
    job["spec"]["stages"][2]["start"] = {"weights": "best"}
    (found,) = said(job)
    assert "spec.stages[2].start.weights" in found
    assert "stage look moves no weight" in found


@pytest.mark.parametrize(
    ("steps", "rule", "fits"),
    [
        (40, {"metric": "accuracy", "atLeast": "0.5", "window": 40}, True),
        (40, {"metric": "accuracy", "atLeast": "0.5", "window": 41}, False),
        (40, {"metric": "accuracy", "plateau": {"patience": 39}}, True),
        (40, {"metric": "accuracy", "plateau": {"patience": 40}}, False),
        (40, {"metric": "accuracy", "stall": {"patience": 40}}, True),
        # before the first step, after 25 steps, and at the limit
        (40, {"metric": "evaluation/held/accuracy", "atLeast": "0.5", "window": 3}, True),
        (40, {"metric": "evaluation/held/accuracy", "stall": {"patience": 4}}, False),
        (40, {"metric": "evaluation/held/accuracy", "stall": {"patience": 2}, "window": 2}, True),
        (50, {"metric": "evaluation/held/accuracy", "plateau": {"patience": 3}}, False),
    ],
)
def test_a_rule_that_can_never_hold_is_named(steps: int, rule: dict[str, Any], fits: bool) -> None:
    job = manifest(evaluations=[{**EVALUATIONS[0], "everySteps": 25}])
    job["spec"]["stages"][1]["advance"] = {"steps": steps, "when": [rule]}
    found = said(job)
    assert bool(found) != fits
    assert all(text.startswith("spec.stages[1].advance.when[0]: it looks at ") for text in found)


@pytest.mark.parametrize(
    ("field", "reference", "words"),
    [
        (
            "metric",
            {"metric": "evaluation/hold/accuracy"},
            "no evaluation hold in spec.evaluations; did you mean held?",
        ),
        ("metric", {"metric": "acuracy"}, "an rl stage reports no acuracy; did you mean accuracy?"),
        ("metric", {"metric": "value_loss"}, "train/value_loss needs a critic; take rl.method ppo"),
        ("metric", {"metric": "reward/brie"}, "did you mean brief?"),
        (
            "patience",
            {"patience": 40},
            "40 values of train/accuracy after a first one, and the stage's 40 steps have 40",
        ),
        ("patience", {"metric": "evaluation/held/accuracy", "patience": 2}, "have 2; make it smaller, or take kind fr"),
        ("", {"metric": "evaluation/held/accuracy", "patience": 1}, None),
        ("", {"metric": "reward/brief", "patience": 39}, None),
        ("", {"metric": "kl"}, None),
    ],
)
def test_a_plateau_of_what_never_comes_is_named(field: str, reference: dict[str, Any], words: str | None) -> None:
    job = manifest(evaluations=[{**EVALUATIONS[0], "everySteps": 25}])
    job["spec"]["stages"][1]["rl"]["reference"] = {"kind": "plateau", **reference}
    found = said(job)
    assert bool(found) == (words is not None)
    assert all(text.startswith(f"spec.stages[1].rl.reference.{field}: ") and words in text for text in found), found


@pytest.mark.parametrize(
    ("exempt", "fits"),
    [
        ({}, True),
        ({"exemptSteps": 39}, True),
        ({"exemptSteps": 40}, False),
        ({"exemptSteps": 40, "trueHard": {"patience": 39}}, True),
        ({"exemptSteps": 40, "trueHard": {"patience": 40}}, False),
    ],
)
def test_an_exemption_from_hints_that_lasts_as_long_as_the_stage_is_named(exempt: dict[str, Any], fits: bool) -> None:
    job = manifest()
    job["spec"]["datasets"].append({"name": "hinted", "jsonl": {"path": "/sums.jsonl", "hints": "hints"}})
    job["spec"]["stages"][1]["rl"] |= {"dataset": "hinted", "method": "scaf-grpo", "expansion": exempt}
    found = said(job)
    assert bool(found) != fits
    assert all(text.startswith("spec.stages[1].rl.expansion.exemptSteps: ") for text in found)
    assert all("the first 40 steps are without hints, and the stage has 40, so none would be given" in f for f in found)


@pytest.mark.parametrize(
    ("samples", "keep", "fits"),
    [
        (4, {}, True),
        (4, {"low": "0.3", "high": "0.4"}, False),
        (4, {"low": "0.25", "high": "0.25"}, True),
        (10, {"low": "0.3", "high": "0.3"}, True),
        (8, {"low": "1"}, False),
        (8, {"high": "0"}, False),
        (8, {"low": "0", "high": "0"}, True),
        (1, {"high": "0.9"}, False),
        (1, {"high": "1"}, True),
    ],
)
def test_bounds_between_which_no_share_lies_are_named(samples: int, keep: dict[str, str], fits: bool) -> None:
    job = manifest()
    job["spec"]["stages"][2]["curate"] |= {"samples": samples, "keep": keep}
    found = said(job)
    assert bool(found) != fits
    assert all(text.startswith(f"spec.stages[2].curate.keep: no share of {samples} responses lies") for text in found)


def test_a_buffer_as_long_as_the_limit_is_named() -> None:
    job = manifest()
    rewards = [{"name": "long", "length": {"kind": "overlong", "buffer": 32}}]
    job["spec"]["stages"][1]["rl"] |= {"maxResponseTokens": 32, "rewards": rewards}
    (found,) = said(job)
    assert found.startswith("spec.stages[1].rl.rewards[0].length.buffer: 32 is not below maxResponseTokens, 32")
    assert "for example 8" in found


@pytest.mark.parametrize("field", ["evaluations", "rewards"])
def test_two_of_one_name_are_refused(field: str) -> None:
    job = manifest()
    if field == "evaluations":
        job["spec"]["evaluations"] = [*EVALUATIONS, *EVALUATIONS]
    else:
        job["spec"]["stages"][1]["rl"]["rewards"] = [*REWARDS, REWARDS[0]]
    assert any("held" in text or "right" in text for text in said(job)), said(job)
