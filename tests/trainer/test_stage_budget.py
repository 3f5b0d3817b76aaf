"""A stage's budget of generated tokens: what is counted, at which step it is spent, and that nothing counts twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sums import LENGTHS, SUMS

from ratchet_api.job import RLTrainingJob
from ratchet_api.protocol import BUDGET_SPENT, Exit
from ratchet_trainer.errors import BudgetExceeded, BudgetSpent, Drain
from ratchet_trainer.run import run
from ratchet_trainer.tools.local import Folder, train

PROMPTS, SAMPLES = 4, 4
METHODS: dict[str, dict[str, Any]] = {
    "grpo": {"updatesPerStep": 2},
    "dapo": {"method": "dapo"},
    "vineppo": {"method": "vineppo", "advantage": {"vine": {"steps": "tokens", "stepTokens": 2, "continuations": 2}}},
}


def job(method: str = "grpo", steps: int = 3, **budget: Any) -> dict[str, Any]:
    """A stage of `steps` steps, evaluated in each; with `budget`, one for it."""
    rl = {"dataset": "sums", "promptsPerStep": PROMPTS, "groupSize": SAMPLES, **LENGTHS, **METHODS[method]}
    return {
        "model": {"preset": "tiny"},
        "seed": 7,
        "datasets": [{"name": "sums", "reasoningGym": {"task": "basic_arithmetic", "size": 10, "config": SUMS}}],
        "evaluations": [{"name": "held", "dataset": "sums", "everySteps": 1, "items": 2}],
        "samples": {"count": 0},
        "stages": [{"name": "s", "rl": rl, "advance": {"steps": steps}}],
        "checkpoint": {"directory": "/checkpoints/x"},
        "placements": [{"name": "cpu", "cpu": {"hosts": 1}}],
        **({"budgets": [{"stage": "s", **budget}]} if budget else {}),
    }


def counts(runtime: Any) -> list[int]:
    """Tokens that the stage had generated at each commit of a whole step."""
    return [c["stage"]["generated_tokens"] for _, _, c, *_ in runtime.commits if "pending" not in c]


def outcome(runtime: Any) -> tuple[Any, Any, bytes]:
    _, arrays, control, *_ = runtime.commits[-1]
    return control, {path: leaf.tobytes() for path, leaf in arrays.items()}, runtime.stream


@pytest.fixture(scope="module")
def straight(memory_runtime: Any) -> Any:
    """Runs to the end, by method, made when first asked for."""
    made: dict[str, Any] = {}

    def of(method: str) -> Any:
        if method not in made:
            made[method] = memory_runtime(job(method))
            run(made[method])
        return made[method]

    return of


def test_every_token_of_every_response_is_counted_once(straight: Any) -> None:
    """The metric is the mean over a step's responses; evaluations are not counted."""
    lines = [json.loads(line)["metrics"] for line in straight("grpo").stream.splitlines()]
    of_steps = [float(m["train/response_tokens"]) * PROMPTS * SAMPLES for m in lines if "train/response_tokens" in m]
    added = [round(sum(of_steps[: n + 1])) for n in range(len(of_steps))]
    assert len(added) == 3
    assert counts(straight("grpo"))[-3:] == added


def test_what_else_is_sampled_for_a_step_is_counted_too(straight: Any) -> None:
    assert counts(straight("vineppo"))[-1] > 1.5 * counts(straight("grpo"))[-1]


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_is_killed_anywhere_counts_the_same(
    method: str, straight: Any, memory_runtime: Any, tmp_path: Path
) -> None:
    """With and without what was sampled kept. Other tests kill at every safe point and compare the whole state, of
    which the count is a part."""
    wanted, phases = outcome(straight(method)), set()
    for number, point in enumerate(range(1, straight(method).safe_points + 1, 1 if method == "grpo" else 2)):
        kept = tmp_path / str(point) if number % 2 else Path("/dev/null")
        first = memory_runtime(job(method), drain_at=point, rollouts=kept, to_finish=0.0)
        with pytest.raises(Drain):
            run(first)
        phases.add(first.drained[0])
        second = memory_runtime(job(method), commits=first.commits, rollouts=kept)
        run(second)
        assert outcome(second) == wanted, (point, kept)
    assert len(phases) > 1


def test_a_spent_budget_leaves_after_the_step_that_spent_it_and_goes_on_when_it_is_raised(
    straight: Any, memory_runtime: Any
) -> None:
    whole = counts(straight("grpo"))[-3:]
    for limit, step in ((1, 1), (whole[0], 1), (whole[0] + 1, 2), (whole[1], 2)):
        first = memory_runtime(job(generatedTokens=limit))
        words = f"stage s is not over and has generated {whole[step - 1]} tokens.* is {limit}: raise it"
        with pytest.raises(BudgetSpent, match=words):
            run(first)
        assert first.commits[-1][0] == step
        assert (first.last_stage["generatedTokens"], first.last_reason) == (whole[step - 1], BUDGET_SPENT)
        again = memory_runtime(job(generatedTokens=limit), commits=list(first.commits))
        with pytest.raises(BudgetSpent):
            run(again)
        assert again.steps == [], "as long as it is not raised, no attempt makes a step"
        raised = memory_runtime(job(generatedTokens=whole[2]), commits=first.commits)
        run(raised)
        assert outcome(raised) == outcome(straight("grpo")), "a stage that is over has spent enough"


def test_a_budget_that_fails_a_job_commits_what_was_made(straight: Any, memory_runtime: Any) -> None:
    spec = job(generatedTokens=1, onExceeded="Fail")
    spec["checkpoint"]["everySteps"] = 5
    runtime = memory_runtime(spec)
    with pytest.raises(BudgetExceeded, match="onExceeded: Fail"):
        run(runtime)
    assert (runtime.commits[-1][0], counts(runtime)[-1]) == (1, counts(straight("grpo"))[-3])


def test_processes_leave_together_and_are_not_started_again(tmp_path: Path) -> None:
    """`ratchet train` says what is spent, and goes on once it is raised."""
    spec = job(steps=2, generatedTokens=1) | {"evaluations": []}
    code, message = train(folder := Folder(tmp_path, "small", RLTrainingJob.model_validate({"spec": spec})), 2)
    assert (code, message["reason"], message["step"]) == (Exit.DRAINED, BUDGET_SPENT, 1)
    assert message["stage"]["generatedTokens"] > 0
    assert "raise it or remove it" in message["message"]
    assert len({c.attempt for c in folder.journal().claims}) == 1
    raised = spec | {"budgets": []}
    assert train(Folder(tmp_path, "small", RLTrainingJob.model_validate({"spec": raised})), 2)[0] == Exit.DONE
