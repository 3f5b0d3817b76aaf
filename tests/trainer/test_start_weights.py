"""Which weights a stage starts from: those that stood last, the best of the stage before, those of a stage by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.trainer.sums import job as sums_job

from ratchet_trainer.errors import ConfigurationInvalid, Drain
from ratchet_trainer.run import run
from ratchet_trainer.step import best_weights
from ratchet_trainer.step.state import StageState


def job(*stages: dict[str, Any]) -> dict[str, Any]:
    return sums_job() | {"stages": list(stages)}


def sft(name: str, steps: int, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "sft": {"dataset": "sums", "batchSize": 16, "maxPromptTokens": 26, "maxResponseTokens": 4},
        "advance": {"steps": steps},
        **more,
    }


def weights_before(runtime: Any, step: int) -> dict[str, np.ndarray]:
    arrays = next(a for s, a, *_ in runtime.commits if s == step)
    return {k: v for k, v in arrays.items() if k.startswith("params/")}


@pytest.fixture(scope="module")
def evaluated() -> dict[str, Any]:
    """Two stages; the second starts from the best weights of the first, as an evaluation sees them."""
    spec = job(sft("a", 4), sft("b", 2, start={"weights": "best"}))
    spec["evaluations"] = [{"name": "held", "dataset": "sums", "everySteps": 1, "items": 8}]
    return spec


def test_the_best_weights_are_where_the_next_stage_starts(evaluated: dict, memory_runtime: Any) -> None:
    runtime = memory_runtime(evaluated)
    run(runtime)
    first = [c for c in runtime.commits if c[2]["stage"]["name"] == "a"]
    best = first[-1][2]["stage"]["best"][0]
    accuracy = {  # by step
        step: record["evaluation/held/accuracy"]
        for step, record, _ in runtime.steps
        if "evaluation/held/accuracy" in record
    }
    assert accuracy[best] == max(accuracy[step] for step in range(1, 5))
    # The same from a restart at the boundary, and after any safe point in the second stage.
    again = memory_runtime(evaluated, commits=list(first))
    run(again)
    assert again.commits[-1][2] == runtime.commits[-1][2]
    for path, leaf in weights_before(runtime, 6).items():
        np.testing.assert_array_equal(leaf, weights_before(again, 6)[path])


def test_a_stage_may_start_from_an_earlier_one(memory_runtime: Any) -> None:
    spec = job(sft("a", 1), sft("b", 1), sft("c", 1, start={"weights": "stage/a"}))
    one, other = memory_runtime(spec), memory_runtime(job(sft("a", 1), sft("c", 1)))
    run(one)
    run(other)
    same = [np.array_equal(leaf, weights_before(other, 2)[path]) for path, leaf in weights_before(one, 3).items()]
    assert all(same), "a stage begins its data anew, so the one between leaves no trace"
    step = best_weights.start_step(one.job.spec, 2, StageState(1, "b", "", 1, 1), one.ended_stages())
    assert step == 1


def test_weights_that_nobody_can_name_are_refused(memory_runtime: Any) -> None:
    runtime = memory_runtime(job(sft("a", 1), sft("b", 1, start={"weights": "best"})))
    with pytest.raises(ConfigurationInvalid, match="never reported train/accuracy"):
        run(runtime)
    with pytest.raises(ConfigurationInvalid, match="none of the stages before it"):
        run(memory_runtime(job(sft("a", 1), sft("b", 1, start={"weights": "stage/z"}))))


def test_a_drain_in_an_evaluation_changes_nothing(evaluated: dict, memory_runtime: Any) -> None:
    whole = memory_runtime(evaluated)
    run(whole)
    commits: list[Any] = []
    for _ in range(200):
        runtime = memory_runtime(evaluated, commits=commits, drain_at=7)
        try:
            run(runtime)
        except Drain:
            continue
        break
    else:
        pytest.fail("it never ended")
    assert commits[-1][2] == whole.commits[-1][2]
