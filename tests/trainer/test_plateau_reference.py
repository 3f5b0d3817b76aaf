"""A reference that is renewed on a plateau: when, with which optimizer, and over restarts; ProRL's numbers."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from same_end import same
from sums import WARM, job

from ratchet_api.stages import Rl
from ratchet_trainer.algorithm.methods import resolve
from ratchet_trainer.algorithm.objective.drift import estimate
from ratchet_trainer.algorithm.reference.plateau import Plateau
from ratchet_trainer.algorithm.slots import Context, Micro
from ratchet_trainer.checkpoints.digests import state_sha256
from ratchet_trainer.errors import Drain
from ratchet_trainer.run import run

METRIC = "train/accuracy"
CTX = Context(0, 1, 0, Rl(dataset="d"))


def judged(reference: Plateau, values: list[float | None]) -> list[str]:
    """What is said after each of the values; None: the step had none."""
    window, found = {}, []
    for value in values:
        window, judgement = reference.after(window, {} if value is None else {METRIC: value}, CTX)
        found.append(judgement)
    return found


@pytest.mark.parametrize(
    ("values", "resets"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5], []),
        ([0.5, 0.4, 0.3], [2]),
        ([0.5, 0.5, 0.5], [2]),
        ([0.5, 0.4, 0.6, 0.5, 0.6], [4]),
        # After a reset the next value is the one to beat, however low.
        ([0.9, 0.1, 0.1, 0.2, 0.3, 0.3, 0.3], [2, 6]),
        ([0.5, None, 0.4, None, None, 0.3], [5]),
        ([math.nan, 0.5, math.nan, 0.4, math.nan, 0.3], [5]),
    ],
)
def test_it_is_renewed_once_so_many_values_were_no_better(values: list[float | None], resets: list[int]) -> None:
    expected = ["reset" if i in resets else "keep" for i in range(len(values))]
    assert judged(Plateau(METRIC, 2), values) == expected
    assert judged(Plateau(METRIC, 2, optimizer=True), values) == [
        "reset+optimizer" if word == "reset" else word for word in expected
    ]


def test_better_means_better_by_more_than_min_delta() -> None:
    assert judged(Plateau(METRIC, 2, 0.25), [0.5, 0.75, 0.7]) == ["keep", "keep", "reset"]
    assert judged(Plateau(METRIC, 2, 0.25), [0.5, 0.8, 0.7]) == ["keep"] * 3


def test_a_stage_says_which_metric_how_long_and_with_which_optimizer() -> None:
    of = lambda **rl: resolve(Rl.model_validate({"dataset": "d", **rl})).reference  # noqa: E731
    assert of(method="prorl") == Plateau(METRIC, 100, 0.0, True)
    assert of(method="prorl-v2") == Plateau(METRIC, 100, 0.0, False)
    own = {"kind": "plateau", "metric": "reward", "patience": 3, "minDelta": "0.01"}
    assert of(method="grpo", reference=own) == Plateau("train/reward", 3, 0.01, False)


# Numbers


@pytest.mark.parametrize(("ratio", "expected", "moves"), [(1.35, 1.35, True), (1.5, 1.4, False)])
def test_the_wide_clip_of_prorl(ratio: float, expected: float, moves: bool) -> None:
    """PRORL-1: one token with advantage 1."""
    one = jnp.ones((1, 1, 1))
    objective = resolve(Rl(dataset="d", method="prorl")).objective
    settings = {k: jnp.float32(v) for k, v in objective.settings().items()} | {"kl_coefficient": jnp.float32(0)}
    micro = Micro(one, one, one.astype(bool), -one, -one, None)
    loss = lambda x: objective.loss(x, 0 * one, micro, settings)[0]  # noqa: E731
    value, gradient = jax.value_and_grad(loss)(-one + np.log(ratio))
    assert float(-value) == pytest.approx(expected)
    assert bool(gradient.any()) == moves


def test_drift_is_nothing_after_a_reset() -> None:
    """PRORL-2: k3 of log-probabilities -1.0 and -1.5, then of -1.0 and themselves, which also moves nothing."""
    k3 = lambda x, reference: estimate("k3", x, reference, 10.0)  # noqa: E731
    assert float(k3(jnp.float32(-1.0), jnp.float32(-1.5))) == pytest.approx(0.106531, abs=5e-7)
    value, gradient = jax.value_and_grad(k3)(jnp.float32(-1.0), jnp.float32(-1.0))
    assert (float(value), float(gradient)) == (0.0, 0.0)


@pytest.mark.parametrize(("log_ratio", "value"), [(0.5, 0.125), (30.0, 200.0)])
def test_k2_as_prorl_v2_has_it(log_ratio: float, value: float) -> None:
    """PRORL-6; log-ratios beyond 20 count as 20."""
    kl = resolve(Rl(dataset="d", method="prorl-v2")).objective.kl
    assert kl.estimator == "k2"
    assert estimate("k2", np.float64(log_ratio), 0.0, kl.limit, np) == value


# Runs: an accuracy never rises by more than 1, so the reference is renewed after the second step.


def stage(optimizer: str, method: str = "prorl") -> dict[str, Any]:
    reference = {"kind": "plateau", "patience": 1, "minDelta": "1", "optimizer": optimizer}
    return {"method": method, "updatesPerStep": 2, "reference": reference}


def part(runtime: Any, prefix: str, commit: int = -1) -> dict[str, np.ndarray]:
    _, arrays, *_ = runtime.commits[commit]
    return {path.removeprefix(prefix): leaf for path, leaf in arrays.items() if path.startswith(prefix)}


def equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[path], b[path]) for path in a)


@pytest.mark.parametrize(("optimizer", "method"), [("reset", "prorl"), ("keep", "prorl-v2")])
def test_a_reset_takes_the_present_weights_and_the_optimizer_as_it_is_told(
    optimizer: str, method: str, after_warm_up: Any
) -> None:
    runtime = after_warm_up(stage(optimizer, method))
    start = part(runtime, "params/")
    run(runtime)
    first, second = (commit[2] for commit in runtime.commits[-2:])
    assert equal(part(runtime, "reference/", -2), start)
    assert first["referenceVersion"] == WARM
    accuracy = runtime.steps[0][1]["train/accuracy"]
    assert first["referenceWindow"] == {"best": accuracy.hex(), "since": 0}
    assert equal(part(runtime, "reference/"), part(runtime, "params/"))
    assert not equal(part(runtime, "reference/"), start)
    assert second["referenceVersion"] == WARM + 2
    assert "referenceWindow" not in second, "the next value is the one to beat"
    count = int(part(runtime, "optimizer/count")[""])
    moments = any(leaf.any() for leaf in part(runtime, "optimizer/mu").values())
    assert (count > 0, moments) == ((False, False) if optimizer == "reset" else (True, True))


def test_the_window_is_part_of_the_states_digest(after_warm_up: Any) -> None:
    runtime = after_warm_up(stage("reset"))
    run(runtime)
    control = runtime.commits[-2][2]
    other = {**control, "referenceWindow": {**control["referenceWindow"], "since": 1}}
    assert state_sha256({}, control) != state_sha256({}, other)


@pytest.mark.parametrize("to_finish", [0.0, math.inf], ids=["leaves in the middle", "finishes the step"])
@pytest.mark.parametrize("optimizer", ["keep", "reset"])
def test_a_drain_at_any_point_of_a_step_that_resets_changes_no_bit(
    optimizer: str, to_finish: float, after_warm_up: Any
) -> None:
    straight = after_warm_up(stage(optimizer))
    run(straight)
    middle = 0
    for point in range(1, straight.safe_points + 1):
        first = after_warm_up(stage(optimizer), drain_at=point, to_finish=to_finish)
        with pytest.raises(Drain):
            run(first)
        middle += "pending" in first.commits[-1][2]
        second = after_warm_up(stage(optimizer), commits=first.commits)
        run(second)
        same(second, straight, point)
    assert (middle > 0) == (to_finish == 0.0)


def test_a_drain_in_the_evaluation_that_a_reset_follows_from_changes_no_bit(after_warm_up: Any) -> None:
    warm = after_warm_up()
    reference = {**stage("reset")["reference"], "metric": "evaluation/held-out/accuracy"}
    spec = job(stage("reset") | {"reference": reference})
    spec["evaluations"] = [{"name": "held-out", "dataset": "sums", "items": 4, "everySteps": 1}]

    def begun(commits: list[Any], **more: Any) -> Any:
        return type(warm)(spec, commits=list(commits), **more)

    straight = begun(warm.commits)
    run(straight)
    assert straight.commits[-1][2]["referenceVersion"] == WARM + 2
    left = 0
    for point in range(1, straight.safe_points + 1):
        first = begun(warm.commits, drain_at=point, to_finish=0.0)
        with pytest.raises(Drain):
            run(first)
        if first.drained[0] != "evaluate":
            continue
        left += "pending" in first.commits[-1][2]
        second = begun(first.commits)
        run(second)
        same(second, straight, point)
    assert left > 1, "left in the evaluations of both steps"


def test_a_lost_step_that_resets_is_made_again(after_warm_up: Any) -> None:
    straight = after_warm_up(stage("reset"))
    run(straight)
    again = after_warm_up(stage("reset"), commits=straight.commits[:-1])
    run(again)
    same(again, straight)


def test_a_later_stage_begins_with_an_empty_window_and_its_own_reference(after_warm_up: Any) -> None:
    slow = {**stage("keep"), "reference": {"kind": "plateau", "patience": 2, "minDelta": "1"}}
    runtime = after_warm_up(slow, slow)
    run(runtime)
    windows = [commit[2].get("referenceWindow") for commit in runtime.commits[-4:]]
    assert [window["since"] for window in windows] == [0, 1, 0, 1]
    assert [commit[2]["referenceVersion"] for commit in runtime.commits[-4:]] == [WARM, WARM, WARM + 2, WARM + 2]
