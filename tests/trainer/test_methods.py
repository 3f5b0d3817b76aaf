"""Whole runs of each method, in one process: what a step says, what stands beside the policy, and exact resume."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from sums import WARM, job

from ratchet_api.drift import has_reference
from ratchet_api.method import MethodName
from ratchet_api.presets import PRESETS
from ratchet_api.stages import Rl
from ratchet_trainer.algorithm.reference.scheduled import Scheduled
from ratchet_trainer.algorithm.slots import Context
from ratchet_trainer.errors import CheckpointUnreadable, Drain, OldPolicyMismatch
from ratchet_trainer.learning.learner import Learner
from ratchet_trainer.run import run


def part(runtime: Any, prefix: str, commit: int = -1) -> dict[str, np.ndarray]:
    """The arrays of a commit whose paths begin so, without the beginning."""
    _, arrays, *_ = runtime.commits[commit]
    return {path.removeprefix(prefix): leaf for path, leaf in arrays.items() if path.startswith(prefix)}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[path], b[path]) for path in a)


def records(runtime: Any) -> list[tuple[dict[str, float], dict[str, float]]]:
    return [(record, timing) for _, record, timing in runtime.steps]


def test_the_table_has_what_a_manifest_may_name() -> None:
    assert set(PRESETS) == set(get_args(MethodName))


@pytest.mark.parametrize("method", PRESETS)
def test_the_guide_has_the_row_of_the_table(method: str) -> None:
    preset = PRESETS[method]
    rows = (Path(__file__).parents[2] / "docs/methods.md").read_text().splitlines()
    (row,) = (line for line in rows if line.startswith(f"| `{method}` "))
    low, high = (format(width, ".4f").rstrip("0") for width in preset.clip)
    shown = [f"`{preset.advantage}`", f"`{preset.surrogate}`", f"`{preset.aggregation}`", f"{low}, {high}"]
    assert [cell.strip() for cell in row.split("|")[2:6]] == shown


TEMPLATES = [{"name": "plain", "text": "{question}"}, {"name": "short", "text": "{question}="}]
NEEDED: dict[str, dict[str, Any]] = {
    # method -> what a stage must say beside its name
    "sgpo": {
        "rewards": [
            {"name": "accuracy"},
            {"name": "prefix", "correctPrefix": {"python": {"entrypoint": "digit_steps:check", "configMap": "steps"}}},
        ]
    },
    "scaf-grpo": {"expansion": {"kind": "none"}},  # hints need data that have some (test_hints)
    "template-rl": {"expansion": {"templates": TEMPLATES}},
}
CHECKER = Path(__file__).parents[1] / "manifests/digit-steps/digit_steps.py"


@pytest.mark.parametrize("method", PRESETS)
def test_a_method_moves_the_policy_and_says_what_it_did(
    method: str, after_warm_up: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "maps/steps").mkdir(parents=True)
    (tmp_path / "maps/steps/digit_steps.py").write_text(CHECKER.read_text())
    monkeypatch.setenv("RATCHET_VERIFIERS_FOLDER", str(tmp_path / "maps"))
    # What a selection draws may teach nothing in a step of few prompts.
    prompts = 4 if PRESETS[method].selection == "uniform" else 8
    how = {"updatesPerStep": 2, "promptsPerStep": prompts, "temperature": "1" if prompts == 4 else "1.5"}
    runtime = after_warm_up({"method": method, **how, **NEEDED.get(method, {})})
    before = part(runtime, "params/")
    run(runtime)
    assert [step for step, *_ in runtime.steps] == [WARM + 1, WARM + 2]
    assert not same(before, part(runtime, "params/"))
    assert (
        bool(part(runtime, "critic/"))
        == ("train/value_loss" in runtime.steps[0][1])
        == (PRESETS[method].advantage == "gae")
    )
    drifts = has_reference(Rl(dataset="sums", method=method, **NEEDED.get(method, {})))
    assert bool(part(runtime, "reference/")) == drifts
    for record, timing in records(runtime):
        assert all(math.isfinite(value) for value in record.values()), record
        low, high = record["train/clip_fraction_low"], record["train/clip_fraction_high"]
        assert 0 <= low + high == record["train/clip_fraction"] <= 1
        assert record["train/logprob_mismatch"] < 1e-5
        assert record["train/importance_ratio"] == pytest.approx(1, abs=1e-4)
        assert ("train/kl" in record) == drifts
        assert timing["oldGap"] <= 2e-6
        assert timing["samplerGap"] < 1e-4
        assert timing["ratio"] == pytest.approx(1, abs=0.3)
        assert (timing["ratio"] != 1) == (timing["skippedUpdates"] == 0), "only a second update is off-policy"


def test_a_step_that_teaches_nothing_measured_nothing(memory_runtime: Any) -> None:
    """Untrained weights get every sum wrong: no update, so no drift, which is not a drift of 0."""
    spec = job({"method": "grpo", "reference": {"kind": "frozen"}})
    spec["stages"] = spec["stages"][1:]
    runtime = memory_runtime(spec)
    run(runtime)
    for record, _ in records(runtime):
        assert math.isnan(record["train/kl"])
        assert math.isnan(record["train/logprob_mismatch"])
        assert record["train/clip_fraction"] == 0
    assert b'"train/kl":"nan"' in runtime.stream


def test_with_one_update_a_step_the_ratio_is_one(after_warm_up: Any) -> None:
    runtime = after_warm_up({"method": "grpo"})
    run(runtime)
    assert [(t["ratio"], r["train/clip_fraction"]) for r, t in records(runtime)] == [(1.0, 0.0)] * 2


def test_an_old_policy_that_is_not_the_new_one_stops_the_run(after_warm_up: Any, monkeypatch: Any) -> None:
    judge = Learner.log_probs
    monkeypatch.setattr(Learner, "log_probs", lambda *arguments: judge(*arguments) + 1e-4)
    with pytest.raises(OldPolicyMismatch, match=rf"step {WARM + 1}: old and new log-probabilities .* more than 2e-06"):
        run(after_warm_up({"method": "reinforce++-baseline", "updatesPerStep": 2}))


REFERENCE = {"method": "grpo", "updatesPerStep": 2, "kl": {"coefficient": "0.1"}}
CRITIC = {"method": "ppo", "updatesPerStep": 2, "advantage": {"lambda": "0.95"}, "rowsPerPass": 4}


@pytest.mark.parametrize("stage", [REFERENCE, CRITIC], ids=["grpo with drift", "ppo"])
def test_stopping_anywhere_changes_no_bit(stage: dict[str, Any], after_warm_up: Any) -> None:
    straight = after_warm_up(stage)
    run(straight)
    for point in range(1, straight.safe_points + 1):
        first = after_warm_up(stage, drain_at=point)
        with pytest.raises(Drain):
            run(first)
        second = after_warm_up(stage, commits=first.commits)
        run(second)
        assert [s for s, *_ in first.steps + second.steps] == [WARM + 1, WARM + 2], "no step is made twice"
        assert second.commits[-1][2] == straight.commits[-1][2]
        assert same(part(second, ""), part(straight, "")), f"stopped at {point}"
        assert second.stream == straight.stream


def test_losing_a_step_changes_no_bit(after_warm_up: Any) -> None:
    """As after SIGKILL: the last commit counts, the step after it is made again."""
    for stage in (REFERENCE, CRITIC):
        straight = after_warm_up(stage)
        run(straight)
        again = after_warm_up(stage, commits=straight.commits[:-1])
        run(again)
        assert same(part(again, ""), part(straight, ""))
        assert again.stream == straight.stream


def test_a_frozen_reference_is_what_the_stage_began_with(after_warm_up: Any) -> None:
    runtime = after_warm_up({"method": "rloo", "reference": {"kind": "frozen"}}, {"method": "rloo"})
    start = part(runtime, "params/")
    run(runtime)
    middle = next(i for i, commit in enumerate(runtime.commits) if commit[0] == WARM + 2)
    for commit in (middle - 1, middle):
        assert same(part(runtime, "reference/", commit), start)
        assert runtime.commits[commit][2]["referenceVersion"] == WARM
    assert not same(part(runtime, "params/", middle), start)
    drift = [record.get("train/kl") for record, _ in records(runtime)]
    assert drift[0] == pytest.approx(0, abs=2e-6)
    assert drift[1] > 1e-6
    assert drift[2:] == [None, None]
    assert not part(runtime, "reference/")
    assert runtime.commits[-1][2]["referenceVersion"] is None


@pytest.mark.parametrize("optimizer", ["keep", "reset"])
def test_a_scheduled_reference_follows(optimizer: str, after_warm_up: Any) -> None:
    reference = {"kind": "scheduled", "everySteps": 1, "optimizer": optimizer}
    straight = after_warm_up({"method": "rloo", "reference": reference})
    run(straight)
    assert same(part(straight, "reference/"), part(straight, "params/"))
    assert straight.commits[-1][2]["referenceVersion"] == WARM + 2
    assert [record["train/kl"] for record, _ in records(straight)] == pytest.approx([0, 0], abs=2e-6)
    assert int(part(straight, "optimizer/count")[""]) == (2 if optimizer == "keep" else 0)
    again = after_warm_up({"method": "rloo", "reference": reference}, commits=straight.commits[:-1])
    run(again)
    assert same(part(again, ""), part(straight, ""))
    assert again.stream == straight.stream


def test_resets_are_counted_from_the_start_of_the_stage() -> None:
    every = Scheduled(100)
    rl = Rl(dataset="d")
    assert [every.after({}, {}, Context(0, step, 0, rl, 30))[1] for step in (31, 100, 129, 130, 200, 230)] == [
        "keep", "keep", "keep", "reset", "keep", "reset"
    ]  # fmt: skip


def test_drift_measured_changes_nothing_and_a_penalty_does(after_warm_up: Any) -> None:
    ends = []
    for changes in (
        {},
        {"reference": {"kind": "frozen"}},
        {"kl": {"coefficient": "1"}},
        {"kl": {"coefficient": "1", "estimator": "k1", "in": "reward"}},
    ):
        runtime = after_warm_up({"method": "grpo", "updatesPerStep": 2, **changes})
        run(runtime)
        ends.append(part(runtime, "params/"))
    plain, measured, in_loss, in_reward = ends
    for path, leaf in plain.items():
        np.testing.assert_allclose(measured[path], leaf, atol=1e-5, err_msg=path)
    assert max(np.abs(in_loss[path] - leaf).max() for path, leaf in plain.items()) > 1e-4
    assert max(np.abs(in_reward[path] - leaf).max() for path, leaf in plain.items()) > 1e-4


def test_a_critic_starts_as_the_policy_and_learns(after_warm_up: Any) -> None:
    runtime = after_warm_up(CRITIC)
    start = part(runtime, "params/")
    run(runtime)
    trunk, head = part(runtime, "critic/params/trunk/"), part(runtime, "critic/params/head")[""]
    assert trunk.keys() == start.keys()
    assert np.abs(head).max() > 0
    assert int(part(runtime, "critic/optimizer/count")[""]) == 4, "one update of each mini-batch"
    assert max(np.abs(trunk[path] - start[path]).max() for path in start) < 0.05
    assert not same(trunk, start)
    assert all(record["train/value_loss"] > 0 for record, _ in records(runtime))


@pytest.mark.parametrize("critic", ["keep", "reset"])
def test_a_later_stage_keeps_its_critic_or_starts_one(critic: str, after_warm_up: Any) -> None:
    runtime = after_warm_up(CRITIC, {**CRITIC, "start": {"critic": critic}})
    run(runtime)
    assert int(part(runtime, "critic/optimizer/count")[""]) == (8 if critic == "keep" else 4)


def test_a_checkpoint_without_its_critic_is_refused(after_warm_up: Any) -> None:
    runtime = after_warm_up(CRITIC)
    run(runtime)
    step, arrays, *rest = runtime.commits[-2]
    less = {path: leaf for path, leaf in arrays.items() if path != "critic/params/head"}
    with pytest.raises(CheckpointUnreadable, match=r"array critic/params/head is absent in the checkpoint"):
        run(after_warm_up(CRITIC, commits=[(step, less, *rest)]))


def test_a_lone_rollout_of_each_prompt_is_enough_for_a_critic(after_warm_up: Any) -> None:
    runtime = after_warm_up({"method": "ppo", "promptsPerStep": 16, "groupSize": 1})
    run(runtime)
    assert [timing["skippedUpdates"] for _, timing in records(runtime)] == [0, 0]


def test_every_term_of_the_objective_at_once(after_warm_up: Any) -> None:
    terms = {"dualClip": "3", "importanceCap": "2", "entropy": "0.01", "aggregation": "seq-mean-token-sum-norm"}
    runtime = after_warm_up(
        {"method": "ppo", "updatesPerStep": 2, "objective": terms, "kl": {"coefficient": "0.1", "estimator": "k2"}},
        {"method": "ppo", "kl": {"coefficient": "0.1", "estimator": "k3", "in": "reward"}},
    )
    run(runtime)
    assert all(math.isfinite(v) for record, _ in records(runtime) for v in record.values())
    assert [record["train/kl"] > 0 for record, _ in records(runtime)][1] is True
