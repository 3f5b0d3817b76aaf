"""Evaluations during a run: when they are due, what they say, and that no preemption changes a bit of it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sums import LENGTHS, SUMS

from ratchet_api.evaluations import Evaluation
from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.outcome import Outcome
from ratchet_trainer.algorithm.types import Draw, Prompt, Request, Rollout
from ratchet_trainer.errors import ConfigurationInvalid, Drain, GuardTripped
from ratchet_trainer.run import run
from ratchet_trainer.step.evaluations import due, metrics_of, pass_at
from ratchet_trainer.step.state import StageState

HELD = {"name": "held", "dataset": "sums", "everySteps": 2, "items": 3, "samples": 4, "passAt": [1, 4]}
GREEDY = {"name": "greedy", "dataset": "sums", "everySteps": 3, "items": 5}


@pytest.mark.parametrize("samples", [1, 2, 5, 8])
def test_pass_at_k_is_the_share_of_draws_with_a_right_answer(samples: int) -> None:
    for right, k in itertools.product(range(samples + 1), range(1, samples + 1)):
        answers = [True] * right + [False] * (samples - right)
        draws = [any(draw) for draw in itertools.combinations(answers, k)]
        assert pass_at(k, samples, right) == pytest.approx(sum(draws) / len(draws))


def rollout(accuracy: float, score: float, finish: str, tokens: int) -> Rollout:
    prompt, nothing = Prompt((1,), "5"), np.zeros(tokens, np.float32)
    request = Request(Draw(0, 0), Purpose.EVAL, 1)
    return Rollout(request, prompt, prompt, 0, (1,) * tokens, nothing, nothing, 0, finish, Outcome(accuracy, score))  # type: ignore[arg-type]


def test_what_an_evaluation_reports() -> None:
    told = Evaluation.model_validate({"name": "e", "dataset": "d", "samples": 2, "passAt": [1, 2]})
    first = [rollout(1.0, 1.0, "end", 2), rollout(0.0, 0.5, "length", 4)]
    second = [rollout(0.0, 0.0, "end", 1), rollout(0.0, 0.0, "stop", 1)]
    assert metrics_of(told, [*first, *second]) == {
        "evaluation/e/accuracy": 0.25,
        "evaluation/e/score": 0.375,
        "evaluation/e/truncated": 0.25,
        "evaluation/e/response_tokens": 2.0,
        "evaluation/e/pass_at_1": 0.25,
        "evaluation/e/pass_at_2": 0.5,
    }


def test_evaluations_are_due_every_so_many_steps_of_a_stage_and_at_its_limit() -> None:
    told = [Evaluation.model_validate(e) for e in (HELD, GREEDY)]
    stage = StageState(1, "s", "", 10, 0)
    found = {step: [e.name for e in due(told, step, stage, 7)] for step in range(11, 18)}
    assert {step: names for step, names in found.items() if names} == {
        12: ["held"],
        13: ["greedy"],
        14: ["held"],
        16: ["held", "greedy"],
        17: ["held", "greedy"],
    }


def job(*kinds: str, **changes: Any) -> dict[str, Any]:
    """Stages of 3 steps, each `sft` or `rl`; the first is preceded by nothing."""
    rl = {"dataset": "sums", "promptsPerStep": 4, "groupSize": 4, "updatesPerStep": 2, **LENGTHS}
    stages = {"sft": {"dataset": "sums", "batchSize": 16, **LENGTHS}, "rl": rl}
    return {
        "model": {"preset": "tiny"},
        "seed": 7,
        "datasets": [{"name": "sums", "reasoningGym": {"task": "basic_arithmetic", "size": 10, "config": SUMS}}],
        "evaluations": [HELD, GREEDY],
        "samples": {"count": 0},
        "stages": [{"name": f"s{i}", kind: stages[kind], "advance": {"steps": 3}} for i, kind in enumerate(kinds)],
        "checkpoint": {"directory": "/checkpoints/x"},
        "placements": [{"name": "cpu", "cpu": {"hosts": 1}}],
        **changes,
    }


def said(runtime: Any) -> list[tuple[int, str, list[str]]]:
    """Step, stage and evaluations of every line that has some."""
    lines = [json.loads(line) for line in runtime.stream.splitlines()]
    names = [sorted({n.split("/")[1] for n in line["metrics"] if n.startswith("evaluation/")}) for line in lines]
    return [(line["step"], line["stage"], found) for line, found in zip(lines, names, strict=True) if found]


def outcome(runtime: Any) -> tuple[Any, Any, bytes]:
    _, arrays, control, *_ = runtime.commits[-1]
    return control, {path: leaf.tobytes() for path, leaf in arrays.items()}, runtime.stream


@pytest.fixture(scope="module")
def straight(memory_runtime: Any) -> Any:
    runtime = memory_runtime(job("sft", "rl"))
    run(runtime)
    return runtime


def test_each_stage_is_evaluated_before_within_and_after_it(straight) -> None:
    assert said(straight) == [
        (0, "s0", ["greedy", "held"]),
        (2, "s0", ["held"]),
        (3, "s0", ["greedy", "held"]),  # the weights that the next stage starts from, too
        (5, "s1", ["held"]),
        (6, "s1", ["greedy", "held"]),
    ]


def test_a_run_that_is_told_to_go_anywhere_says_the_same(straight, memory_runtime, tmp_path) -> None:
    """In the middle of an evaluation, too: of the first stage's start, of an sft step, of an rl step."""
    wanted, within = outcome(straight), set()
    for point in range(1, straight.safe_points + 1):
        for to_finish in (0.0, float("inf")):
            first = memory_runtime(job("sft", "rl"), drain_at=point, to_finish=to_finish)
            with pytest.raises(Drain):
                run(first)
            phase, _, steps = first.drained
            if phase == "evaluate":
                within.add(steps)
            elif phase != "update" and to_finish:
                continue
            second = memory_runtime(job("sft", "rl"), commits=first.commits)
            run(second)
            assert outcome(second) == wanted, (point, to_finish)
    assert within == {0, 1, 2, 4, 5}, "at the start, and in the steps that evaluate"


def test_what_was_sampled_of_an_evaluation_is_kept(straight, memory_runtime, tmp_path) -> None:
    """Told to go after the first call of the sampler: the next attempt has its answers."""
    first = memory_runtime(job("sft", "rl"), drain_at=1, rollouts=tmp_path)
    with pytest.raises(Drain):
        run(first)
    assert first.drained[0] == "evaluate"
    assert first.commits == [], "nothing had been made"
    second = memory_runtime(job("sft", "rl"), rollouts=tmp_path)
    run(second)
    assert outcome(second) == outcome(straight)


def test_evaluations_that_ask_alike_are_told_apart(memory_runtime, tmp_path) -> None:
    """The same number of items and samples, items with the same numbers: each gets its own answers."""
    other = HELD | {"name": "other", "maxResponseTokens": 2}
    both, alone = (
        memory_runtime(job("sft", evaluations=told), rollouts=tmp_path / str(len(told)))
        for told in ([HELD, other], [other])
    )
    for runtime in (both, alone):
        run(runtime)
    of = [json.loads(runtime.stream.splitlines()[-1])["metrics"] for runtime in (both, alone)]
    name = "evaluation/other/response_tokens"
    assert of[0][name] == of[1][name] != of[0]["evaluation/held/response_tokens"]


def test_a_supervised_step_left_in_its_evaluations_loses_no_step_before_it(memory_runtime) -> None:
    spec = job("sft", checkpoint={"directory": "/checkpoints/x", "everySteps": 3})
    straight = memory_runtime(spec)
    run(straight)
    for point in range(1, straight.safe_points + 1):
        first = memory_runtime(spec, drain_at=point)
        with pytest.raises(Drain):
            run(first)
        second = memory_runtime(spec, commits=first.commits)
        run(second)
        assert outcome(second) == outcome(straight), point


def test_other_evaluations_change_no_step(straight, memory_runtime) -> None:
    without = memory_runtime(job("sft", "rl", evaluations=[]))
    run(without)
    _, arrays, *_ = without.commits[-1]
    _, expected, *_ = straight.commits[-1]
    for path, leaf in expected.items():
        np.testing.assert_array_equal(arrays[path], leaf, err_msg=path)


def test_rules_and_guards_watch_evaluations(memory_runtime) -> None:
    spec = job("sft", "sft")
    metric = {"metric": "evaluation/held/truncated", "atLeast": "0"}
    spec["stages"][0]["advance"]["when"] = [metric]
    spec["stages"][1]["guards"] = [metric]
    runtime = memory_runtime(spec)
    with pytest.raises(GuardTripped, match=r"step 2: guard evaluation/held/truncated >= 0 over 1 tripped"):
        run(runtime)
    assert runtime.boundaries == [(0, 1, "evaluation/held/truncated >= 0 over 1")], "by what was said at the start"


def test_what_a_run_ends_with_is_evaluated_where_a_rule_ends_it(memory_runtime) -> None:
    spec = job("sft")
    spec["stages"][0]["advance"] = {"steps": 9, "minSteps": 5, "when": [{"metric": "loss", "atLeast": "0"}]}
    runtime = memory_runtime(spec)
    run(runtime)
    assert runtime.boundaries == [(0, 5, "train/loss >= 0 over 1")]
    assert said(runtime)[-1] == (5, "s0", ["greedy", "held"])
    first = memory_runtime(spec, drain_at=runtime.safe_points)
    with pytest.raises(Drain):
        run(first)
    assert first.drained[0] == "evaluate"
    second = memory_runtime(spec, commits=first.commits)
    run(second)
    assert outcome(second) == outcome(runtime)


def test_a_stage_that_starts_from_other_weights_is_evaluated_with_them(memory_runtime) -> None:
    spec = job("sft", "sft", "sft")
    spec["stages"][2]["start"] = {"weights": "stage/s0"}
    runtime = memory_runtime(spec)
    run(runtime)
    lines = {(step, stage): names for step, stage, names in said(runtime)}
    assert lines[6, "s2"] == ["greedy", "held"]
    values = [json.loads(line) for line in runtime.stream.splitlines()]
    of = {(v["step"], v["stage"]): v["metrics"] for v in values}
    greedy = {k: v for k, v in of[3, "s0"].items() if "greedy" in k}
    assert {k: v for k, v in of[6, "s2"].items() if "greedy" in k} == greedy, "the same weights, the likeliest tokens"


def files(folder: Path, training: list[str], held: list[str]) -> list[dict[str, Any]]:
    for name, questions in {"train": training, "held": held}.items():
        lines = [json.dumps({"question": q, "answer": "1"}) + "\n" for q in questions]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    return [{"name": name, "jsonl": {"path": str(folder / f"{name}.jsonl")}} for name in ("train", "held")]


def with_files(folder: Path, training: list[str], held: list[str]) -> dict[str, Any]:
    spec = job("sft", datasets=files(folder, training, held), evaluations=[{**GREEDY, "dataset": "held"}])
    spec["stages"][0]["sft"]["dataset"] = "train"
    return spec


def test_items_that_are_trained_on_are_left_out_and_counted(tmp_path, memory_runtime, caplog) -> None:
    questions = [f"{i}?" for i in range(20)]
    runtime = memory_runtime(with_files(tmp_path, questions, ["0?", "a?", "1?", "b?", "a?"]))
    run(runtime)
    assert "of 5 items, 2 are left out of the evaluation because a data set that is trained on asks" in caplog.text
    assert "2 items are held out, 5 were asked for" in caplog.text


@pytest.mark.parametrize("held", [["0?", "1?"], []])
def test_an_evaluation_of_nothing_is_refused_before_the_first_step(tmp_path, memory_runtime, held) -> None:
    runtime = memory_runtime(with_files(tmp_path, [f"{i}?" for i in range(20)], held))
    with pytest.raises(ConfigurationInvalid) as caught:
        run(runtime)
    assert "held" in str(caught.value)
    assert runtime.steps == []
