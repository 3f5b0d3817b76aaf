"""Adapters: they begin as nothing, only they are trained and kept, and they can be written into the weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file

from ratchet_api.job import Lora, Model
from ratchet_api.stages import Optimizer
from ratchet_trainer.algorithm import keys
from ratchet_trainer.errors import ConfigurationInvalid, Drain
from ratchet_trainer.learning import optimizer
from ratchet_trainer.learning.learner import Layout, Row
from ratchet_trainer.model import lora
from ratchet_trainer.model.architecture import Adapters, Architecture, Layer
from ratchet_trainer.model.check import logits_of
from ratchet_trainer.model.export import export
from ratchet_trainer.model.huggingface import Folder, nested
from ratchet_trainer.model.policy import Policy, lay_out_prompts
from ratchet_trainer.run import run
from ratchet_trainer.step import sft
from ratchet_trainer.step.stage import Programs, adapters
from ratchet_trainer.step.state import flat_paths

GOLDEN = Path(__file__).parents[1] / "golden" / "qwen3"
ALL = Architecture(
    vocabulary=32, width=16, heads=4, kv_heads=2, head_width=6, hidden=24, layers=(Layer(),), tied=False,
    attention_bias=(True, True), mlp_bias=True, head_norms=True, post_norms=True,
)  # fmt: skip


def test_adapters_begin_as_nothing() -> None:
    base = Policy(ALL)
    plain = jax.jit(base.init)(keys.seed_words(1))
    responses = np.random.default_rng(0).integers(0, 32, (2, 3, 5)).astype(np.int32)
    laid_out = lay_out_prompts([(1, 2, 3), (4,)], 2, 8)
    said = jax.jit(base.judge)(plain, laid_out, responses, np.float32(1))
    for targets in (tuple(Lora().targets), ("up_proj", "v_proj")):
        policy = Policy(replace(ALL, adapters=Adapters(targets, 3, 2.0)))
        params = jax.jit(policy.init)(keys.seed_words(1))
        part, rest = lora.split(params)
        jax.tree.map(np.testing.assert_array_equal, rest, plain)
        assert {path.split("/")[-2] for path in flat_paths(part)} == {*targets}
        assert all((leaf == 0).all() == path.endswith("/b") for path, leaf in flat_paths(part).items())
        jax.tree.map(np.testing.assert_array_equal, lora.joined(part, rest), params)
        found = jax.jit(policy.judge)(params, laid_out, responses, np.float32(1))
        jax.tree.map(np.testing.assert_array_equal, found, said)


def test_without_adapters_everything_is_trained() -> None:
    params = jax.jit(Policy(ALL).init)(keys.seed_words(1))
    assert lora.split(params) == (params, {})


def job(folder: Path, data: Path, **changes: Any) -> dict[str, Any]:
    lengths = {"maxPromptTokens": 16, "maxResponseTokens": 5}
    rl = {"dataset": "sums", "promptsPerStep": 4, "groupSize": 3, "updatesPerStep": 2, **lengths}
    rl |= {"kl": {"estimator": "k3", "coefficient": "0.01"}, "optimizer": {"learningRate": "0.02"}}
    return {
        "model": {
            "path": str(folder),
            "chatTemplate": "{{ messages[-1]['content'] }}",
            "lora": {"rank": 2, "alpha": "4", "targets": ["q_proj", "v_proj", "down_proj"]},
        },
        "datasets": [{"name": "sums", "jsonl": {"path": str(data)}}],
        "stages": [
            {
                "name": "a",
                "sft": {"dataset": "sums", "batchSize": 8, **lengths, "optimizer": {"learningRate": "0.02"}},
                "advance": {"steps": 24},
            },
            {"name": "b", "rl": rl, "advance": {"steps": 2}},
        ],
        "checkpoint": {"directory": "/checkpoints/x", "everySteps": 8},
        "placements": [{"name": "cpu", "cpu": {"hosts": 1}}],
        **changes,
    }


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    place = tmp_path_factory.mktemp("lora")
    shutil.copytree(GOLDEN, place / "model")
    # Answers are two words of one letter: half right is soon learned, so that groups differ.
    rows = [{"question": f"{a}=", "answer": str(a % 2)} for a in range(8)]
    (place / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return job(place / "model", place / "data.jsonl")


@pytest.fixture(scope="module")
def straight(spec: dict[str, Any], memory_runtime: Any) -> Any:
    runtime = memory_runtime(spec)
    run(runtime)
    return runtime


def test_only_adapters_are_trained_and_kept(straight: Any) -> None:
    _, arrays, *_ = straight.commits[-1]
    assert {path.split("/")[0] for path in arrays} == {"params", "optimizer", "reference"}
    assert all("_adapter/" in path for path in arrays if path != "optimizer/count")
    moved = [path for path in arrays if path.startswith("params/") and path.endswith("/b") and arrays[path].any()]
    assert len(moved) == 3 * 3, "three targets in three layers"
    assert straight.steps[0][1]["train/loss"] > 2 * straight.steps[23][1]["train/loss"]
    records = [record for _, record, _ in straight.steps[24:]]
    assert any(record["train/kl"] > 0 for record in records), "drift from the stage's start is measured"
    assert sum(timing["skippedUpdates"] for *_, timing in straight.steps[24:]) < 4, "some group taught something"


def test_the_base_is_as_it_was(straight: Any, spec: dict[str, Any]) -> None:
    machine = Programs(Model.model_validate(spec["model"]), straight.mesh)
    params, state = machine.start(0)
    before = jax.device_get(lora.split(params)[1])
    rows = [Row((30, 31), (32, 2)), Row((33,), (34, 35, 2))]
    numbers = optimizer.numbers(Optimizer(learningRate="0.001"), 0)
    params, *_ = machine.learner.update(
        params, state, Layout(2, 1, 8, 4), rows, np.zeros((2, 4)), None, 1.0, sft.CrossEntropy(), numbers
    )
    jax.tree.map(np.testing.assert_array_equal, lora.split(params)[1], before)


def test_stopping_changes_no_bit(straight: Any, spec: dict[str, Any], memory_runtime: Any) -> None:
    step, arrays, control, *_ = straight.commits[-1]
    for point in (5, straight.safe_points - 4, straight.safe_points - 1):
        first = memory_runtime(spec, drain_at=point)
        with pytest.raises(Drain):
            run(first)
        second = memory_runtime(spec, commits=first.commits)
        run(second)
        assert second.commits[-1][0] == step
        assert second.commits[-1][2] == control
        for path, leaf in arrays.items():
            np.testing.assert_array_equal(second.commits[-1][1][path], leaf, err_msg=f"{path}, stopped at {point}")


def test_a_base_that_changed_is_refused_in_a_stage_and_between_stages(
    straight: Any, spec: dict[str, Any], memory_runtime: Any, tmp_path: Path
) -> None:
    shutil.copytree(spec["model"]["path"], tmp_path / "model")
    tensors = load_file(tmp_path / "model/model.safetensors")
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, tmp_path / "model/model.safetensors")
    changed = spec | {"model": spec["model"] | {"path": str(tmp_path / "model")}}
    for kept in (1, 3):  # in the middle of the first stage, and at its end
        assert straight.commits[kept - 1][0] == 8 * kept
        with pytest.raises(ConfigurationInvalid, match="the model's folder of stage a changed since step 0"):
            run(memory_runtime(changed, commits=straight.commits[:kept]))


@pytest.mark.parametrize("family", ["qwen3", "gemma2", "llama-biased"])
def test_adapters_written_into_the_weights_say_the_same(tmp_path: Path, family: str) -> None:
    folder = Folder(GOLDEN.parent / family)
    made = adapters(Lora(rank=3, alpha="5"))
    policy = Policy(replace(folder.architecture, adapters=made))
    draw = np.random.default_rng(0)
    part = {
        path: draw.normal(size=leaf.shape).astype(np.float32) * 0.1
        for path, leaf in flat_paths(lora.trained(policy.abstract)).items()
    }
    assert len(part) == 2 * 7 * len(folder.architecture.layers)
    base = folder.load(lambda *_: jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    ids = draw.integers(0, folder.architecture.vocabulary, (2, 9))
    said = logits_of(policy, lora.joined(nested(part), nested(base)), ids)
    assert np.abs(said - logits_of(Policy(folder.architecture), nested(base), ids)).max() > 0.1
    export(folder.path, tmp_path / "out", lora.Merged(folder, part, made.scale))
    merged = Folder(tmp_path / "out")
    params = nested(merged.load(lambda *_: jax.sharding.SingleDeviceSharding(jax.devices()[0])))
    np.testing.assert_allclose(logits_of(Policy(merged.architecture), params, ids), said, atol=5e-5)


def test_what_cannot_be_meant_is_refused() -> None:
    for said in ({"targets": []}, {"targets": ["lm_head"]}, {"targets": ["q_proj", "q_proj"]}, {"rank": 0}):
        with pytest.raises(ValidationError):
            Lora.model_validate(said)
