"""Exact resume, in one process: wherever a run is told to go, going on ends in the same bits as never stopping."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from ratchet_trainer.errors import ConfigurationInvalid, Drain, NonFinite, StageFailed
from ratchet_trainer.run import run

SUMS = {"task": "basic_arithmetic", "config": {"max_terms": 2, "max_digits": 1, "operators": ["+"]}}
LENGTHS = {"maxPromptTokens": 26, "maxResponseTokens": 4}


def job(**changes: Any) -> dict[str, Any]:
    """Three stages of 3 steps: sft, rl with two updates a step, rl that keeps the optimizer."""
    config = SUMS["config"] | {"allow_parentheses": False}
    rl = {"dataset": "sums", "promptsPerStep": 4, "groupSize": 4, **LENGTHS, "optimizer": {"learningRate": "0.002"}}
    return {
        "model": {"preset": "tiny"},
        "seed": 7,
        "datasets": [{"name": "sums", "reasoningGym": {**SUMS, "size": 10, "config": config}}],
        "stages": [
            {"name": "a", "sft": {"dataset": "sums", "batchSize": 16, **LENGTHS}, "advance": {"steps": 30}},
            {"name": "b", "rl": {**rl, "updatesPerStep": 2}, "advance": {"steps": 3}},
            {"name": "c", "rl": rl, "advance": {"steps": 3}, "start": {"optimizer": "keep"}},
        ],
        "checkpoint": {"directory": "/checkpoints/x", "everySteps": 2},
        "placements": [{"name": "cpu", "cpu": {"hosts": 1}}],
        **changes,
    }


def last(runtime: Any) -> tuple[int, dict[str, np.ndarray], dict[str, Any]]:
    step, arrays, control, _, _ = runtime.commits[-1]
    return step, arrays, control


@pytest.fixture(scope="module")
def straight(memory_runtime: Any) -> Any:
    runtime = memory_runtime(job())
    run(runtime)
    return runtime


def test_a_straight_run_makes_every_step_and_every_boundary_once(straight) -> None:
    assert [step for step, _, _ in straight.steps] == list(range(1, 37))
    assert straight.boundaries == [(0, 30, "steps 30"), (1, 33, "steps 3"), (2, 36, "steps 3")]
    assert [b for *_, b in straight.commits if b] == [
        {"stage": i, "step": step, "rule": rule} for i, step, rule in straight.boundaries
    ]
    assert straight.stream.count(b"\n") == 36
    _, _, control = last(straight)
    assert (control["updates"], control["nextOrdinal"]) == (30 + 2 * 3 + 3 - skipped(straight), 6 * 4)


def skipped(runtime: Any) -> int:
    return sum(timing.get("skippedUpdates", 0) for _, _, timing in runtime.steps)


def test_where_an_update_may_outlast_the_notice_every_step_is_committed(straight, memory_runtime) -> None:
    slow = memory_runtime(job(checkpoint={"directory": "/checkpoints/x", "everySteps": 20}), grace=0.0)
    run(slow)
    of_stage_c = [step for step, *_ in slow.commits if step > 33]
    assert of_stage_c == [34, 35, 36]
    quick = memory_runtime(job(checkpoint={"directory": "/checkpoints/x", "everySteps": 20}))
    run(quick)
    assert [step for step, *_ in quick.commits] == [20, 30, 33, 36]
    assert last(slow)[2] == last(quick)[2] == last(straight)[2]


def test_stopping_at_any_safe_point_changes_no_bit(straight, memory_runtime) -> None:
    step, arrays, control = last(straight)
    phases = set()
    # Every safe point of the rl stages (they come after the 30 of sft), and a few of the first.
    for point in [1, 2, 30, *range(31, straight.safe_points + 1)]:
        first = memory_runtime(job(), drain_at=point)
        with pytest.raises(Drain):
            run(first)
        made = first.steps[-1][0] if first.steps else 0
        assert made == (first.commits[-1][0] if first.commits else 0), "every step made is committed before leaving"
        phase, points, before = first.drained
        phases.add(phase)
        moved = phase == "update" and points > 2  # one between what is judged, one before the first update
        assert made == before + moved, "a step whose weights have moved is finished, any other is left"
        second = memory_runtime(job(), commits=first.commits)
        run(second)
        assert [s for s, _, _ in first.steps + second.steps] == list(range(1, 37)), "no step is made twice"
        assert last(second)[0] == step
        assert last(second)[2] == control
        for path, leaf in arrays.items():
            np.testing.assert_array_equal(last(second)[1][path], leaf, err_msg=f"{path}, stopped at {point}")
        assert second.stream == straight.stream
    assert phases == {"compile", "generate", "verify", "update"}, "each kind of safe point was tried"


def test_losing_the_steps_since_a_commit_changes_no_bit(straight, memory_runtime) -> None:
    for kept in range(1, len(straight.commits)):
        again = memory_runtime(job(), commits=straight.commits[:kept])
        run(again)
        assert last(again)[2] == last(straight)[2]
        assert again.stream == straight.stream


def test_another_seed_is_another_run(straight, memory_runtime) -> None:
    other = memory_runtime(job(seed=8))
    run(other)
    assert last(other)[2]["metricsDigest"] != last(straight)[2]["metricsDigest"]


def test_a_begun_stage_that_changed_is_refused(straight, memory_runtime) -> None:
    changed = job()
    changed["stages"][0]["sft"]["batchSize"] = 8
    middle = [c for c in straight.commits if c[0] < 30]
    with pytest.raises(ConfigurationInvalid, match="stage a is not the one"):
        run(memory_runtime(changed, commits=middle))


def test_a_group_that_teaches_nothing_moves_no_weight(memory_runtime) -> None:
    """Untrained weights answer nothing right: no optimizer call, yet the steps count."""
    spec = job()
    spec["stages"] = [spec["stages"][1] | {"advance": {"steps": 2}}]
    runtime = memory_runtime(spec)
    run(runtime)
    assert [record["train/unsolved"] for _, record, _ in runtime.steps] == [1.0, 1.0]
    assert skipped(runtime) == 4
    _, arrays, control = last(runtime)
    assert (control["step"], control["updates"]) == (2, 0)
    assert all((arrays[path] == 0).all() for path in arrays if path.startswith("optimizer/"))


def test_a_limit_that_must_not_be_reached_fails_the_stage(memory_runtime) -> None:
    spec = job()
    rule = {"metric": "loss", "atMost": "0.0001", "window": 2}
    spec["stages"][0]["advance"] = {"steps": 3, "when": [rule], "atLimit": "Fail"}
    with pytest.raises(StageFailed, match=r"train/loss <= 0.0001 over 2"):
        run(memory_runtime(spec))


def test_a_loss_that_explodes_is_named(tmp_path, memory_runtime) -> None:
    spec = job()
    spec["stages"][0]["sft"]["optimizer"] = {"learningRate": "1e30", "clipNorm": "1e30"}
    spec["checkpoint"]["directory"] = str(tmp_path)
    runtime = memory_runtime(spec)
    with pytest.raises(NonFinite, match="Lower the learning rate") as caught:
        run(runtime)
    assert all(np.isfinite(leaf).all() for _, arrays, *_ in runtime.commits for leaf in arrays.values())
    (written,) = (tmp_path / "inspect").iterdir()
    assert str(written) in str(caught.value)
    batch = json.loads(written.read_text())
    assert batch["stage"] == "a"
    assert {batch["found"][name] for name in ("loss", "gradient_norm")} & {"nan", "inf", "-inf"}
    assert [row["response"] for row in batch["rows"]]
    assert f"step-{batch['step']:08d}-policy.json" == written.name


@pytest.mark.parametrize("kind", ["sft", "rl"])
def test_an_update_that_is_no_number_is_left_out_where_the_stage_says_so(memory_runtime, kind: str) -> None:
    """The rate is such that the first update spoils the weights for good: from then on all are left out."""
    spec = job()
    stage = next(stage for stage in spec["stages"] if kind in stage)
    stage[kind] |= {"optimizer": {"learningRate": "1e30", "clipNorm": "1e30"}, "onNonFinite": "SkipUpdate"}
    spec["stages"] = [stage]
    runtime = memory_runtime(spec)
    run(runtime)
    assert len(runtime.steps) == stage["advance"]["steps"]
    skipped = [timing["skippedUpdates"] for _, _, timing in runtime.steps]
    assert skipped[-1] == (1 if kind == "sft" else stage["rl"].get("updatesPerStep", 1))
    step, arrays, control = last(runtime)
    assert all(np.isfinite(leaf).all() for leaf in arrays.values()), "what stands is sound"
    assert control["updates"] < step
    again = memory_runtime(spec, drain_at=4)
    with pytest.raises(Drain):
        run(again)
    rest = memory_runtime(spec, commits=again.commits)
    run(rest)
    found = last(rest)
    assert found[0] == step
    assert found[2] == control
    assert all((found[1][path] == leaf).all() for path, leaf in arrays.items())


def test_data_that_changed_under_a_stage_is_noticed(tmp_path, memory_runtime) -> None:
    file = tmp_path / "sums.jsonl"
    lines = [f'{{"question": "{a}+{b}=", "answer": "{a + b}"}}' for a in range(5) for b in range(5)]
    file.write_text("\n".join(lines))
    data = [{"name": "sums", "jsonl": {"path": str(file)}}]
    first = memory_runtime(job(datasets=data), drain_at=5)
    with pytest.raises(Drain):
        run(first)
    file.write_text("\n".join(reversed(lines)))
    with pytest.raises(ConfigurationInvalid, match="data set sums of stage a changed since step 0"):
        run(memory_runtime(job(datasets=data), commits=first.commits))


def test_a_reward_whose_source_changed_under_a_stage_is_noticed(tmp_path, monkeypatch, memory_runtime) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    source = tmp_path / "polite_words.py"
    source.write_text("def polite(case):\n    return float('please' in case.response)\n")
    spec = job()
    spec["stages"] = [spec["stages"][1]]
    spec["stages"][0]["rl"]["rewards"] = [{"name": "polite", "python": {"entrypoint": "polite_words:polite"}}]
    first = memory_runtime(spec)
    first.drain_at = 8
    with pytest.raises(Drain):
        run(first)
    assert first.commits, "a step was committed before the end"
    source.write_text("def polite(case):\n    return float('thanks' in case.response)\n")
    with pytest.raises(ConfigurationInvalid, match="the source of polite_words:polite of stage b changed since step 0"):
        run(memory_runtime(spec, commits=first.commits))


def test_an_item_that_is_too_long_is_found_before_the_first_step(tmp_path, memory_runtime) -> None:
    file = tmp_path / "sums.jsonl"
    file.write_text('{"question": "1+1=", "answer": "2"}\n' * 20 + '{"question": "9+9=", "answer": "eighteen"}\n')
    runtime = memory_runtime(job(datasets=[{"name": "sums", "jsonl": {"path": str(file)}}]))
    with pytest.raises(ConfigurationInvalid, match=r"sums.jsonl:21: the answer has 9 tokens"):
        run(runtime)
    assert runtime.steps == []
