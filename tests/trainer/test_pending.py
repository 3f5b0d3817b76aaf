"""A step that is left between two of its updates: it goes on from there, and no bit tells that it was left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sums import WARM

from ratchet_trainer.errors import Drain
from ratchet_trainer.rollout.sampler import Sampler
from ratchet_trainer.run import run
from ratchet_trainer.step.updates import Pace

UPDATES = 4
STAGES = {
    "grpo": {"method": "grpo", "kl": {"coefficient": "0.01"}},
    "ppo": {"method": "ppo", "kl": {"coefficient": "0.01", "in": "reward", "estimator": "k1"}},
}


@pytest.fixture(scope="module", params=STAGES)
def stage(request: Any) -> dict[str, Any]:
    return {"updatesPerStep": UPDATES, **STAGES[request.param]}


@pytest.fixture(scope="module")
def straight(after_warm_up: Any, stage: dict[str, Any]) -> Any:
    runtime = after_warm_up(stage)
    run(runtime)
    return runtime


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for every call of the sampler."""
    calls: list[int] = []
    start = Sampler.start

    def spied(self: Sampler, *arguments: Any) -> Any:
        calls.append(1)
        return start(self, *arguments)

    monkeypatch.setattr(Sampler, "start", spied)
    return calls


def judged(stage: dict[str, Any]) -> int:
    """Safe points of a step between its verification and its first update, the one before that included."""
    return UPDATES * (2 if stage["method"] == "ppo" else 1)


def left(runtime: Any) -> Any:
    """The runtime once it was told to go."""
    with pytest.raises(Drain):
        run(runtime)
    return runtime


def behind(runtime: Any) -> int | None:
    """How many mini-batches of the step after it the newest commit has; None for a complete step."""
    _, _, control, *_ = runtime.commits[-1]
    return control.get("pending", {}).get("miniBatch")


def as_if_nothing_had_been(runtime: Any, straight: Any) -> None:
    step, arrays, control, *_ = runtime.commits[-1]
    expected_step, expected, expected_control, *_ = straight.commits[-1]
    assert (step, control) == (expected_step, expected_control)
    assert arrays.keys() == expected.keys()
    for path, leaf in expected.items():
        np.testing.assert_array_equal(arrays[path], leaf, err_msg=path)
    assert runtime.stream == straight.stream


def test_left_after_any_update_of_any_step(after_warm_up, stage, straight, sampled) -> None:
    found = []
    for point in range(1, straight.safe_points + 1):
        first = left(after_warm_up(stage, drain_at=point, to_finish=0.0))
        phase, *_ = first.drained
        if phase != "update" or behind(first) is None:
            continue
        step, _, control, lines, _ = first.commits[-1]
        found.append((step, behind(first)))
        assert (step, len(first.steps)) == (control["step"], step - WARM), "only complete steps are reported"
        assert not lines, "they were committed with the step before"
        sampled.clear()
        second = after_warm_up(stage, commits=first.commits)
        run(second)
        assert len(sampled) == WARM + 2 - step - 1, "the step that was left is not sampled again"
        as_if_nothing_had_been(second, straight)
        _, record, timing = second.steps[0]
        assert record == straight.steps[step - WARM][1]
        assert timing["generatedTokens"] == 0
        assert timing["trainedTokens"] == straight.steps[step - WARM][2]["trainedTokens"]
    assert found == [(WARM + step, update) for step in range(2) for update in range(1, UPDATES)]


def test_one_update_an_attempt(tmp_path, after_warm_up, stage, straight, sampled) -> None:
    """Told to go after the first update of each attempt."""
    runtime, seen = after_warm_up(stage), []
    for _ in range(straight.safe_points):
        # Beginning, a chunk, the verification, what is judged, before and after an update; or the last two of these.
        point = 4 + judged(stage) if behind(runtime) is None else 2
        runtime = after_warm_up(stage, commits=runtime.commits, drain_at=point, rollouts=tmp_path, to_finish=0.0)
        try:
            run(runtime)
            break
        except Drain:
            seen.append((runtime.commits[-1][0], behind(runtime)))
    as_if_nothing_had_been(runtime, straight)
    assert len(sampled) == 2
    assert seen[: UPDATES - 1] == [(WARM, update) for update in range(1, UPDATES)]


def test_a_step_is_finished_where_there_is_time(after_warm_up, stage, straight) -> None:
    for point in range(1, straight.safe_points + 1):
        first = left(after_warm_up(stage, drain_at=point, to_finish=float("inf")))
        phase, points, before = first.drained
        assert behind(first) is None
        moved = phase == "update" and points > judged(stage)
        assert len(first.steps) == before + moved


def test_pace_leaves_out_the_first_where_there_are_others() -> None:
    pace, parts = Pace(), [None] * 3
    assert pace.of(parts) == float("inf")
    pace.took(5.0)
    assert pace.of(parts) == 15.0
    pace.took(1.0)
    pace.took(2.0)
    assert pace.of(parts) == 6.0
