"""Inputs of public bug reports, each with what is right: of data and of models' folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ratchet_api.datasets import Dataset
from ratchet_trainer.data.huggingface_tokenizer import HuggingFaceTokenizer
from ratchet_trainer.data.items import open_source
from ratchet_trainer.errors import ConfigurationInvalid, NonFinite
from ratchet_trainer.model import check
from ratchet_trainer.model.huggingface import Folder
from ratchet_trainer.run import run

CASES = Path(__file__).parents[1] / "cases"
GOLDEN = Path(__file__).parents[2] / "golden"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 269060552\n"


def job(jsonl: dict[str, Any], model: dict[str, Any] | None = None, steps: int = 1, **rl: Any) -> dict[str, Any]:
    lengths = {"maxPromptTokens": 64, "maxResponseTokens": 4}
    return {
        "model": model or {"preset": "tiny"},
        "datasets": [{"name": "d", "jsonl": jsonl}],
        "stages": [
            {
                "name": "r",
                "rl": {"dataset": "d", "promptsPerStep": 4, "groupSize": 4, **lengths, **rl},
                "advance": {"steps": steps},
            }
        ],
        "checkpoint": {"directory": "/checkpoints/t"},
        "placements": [{"name": "cpu", "cpu": {"hosts": 1}}],
    }


def model(tmp_path: Path, **config: Any) -> Path:
    copy = tmp_path / "model"
    shutil.copytree(CASES / "model", copy)
    path = copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | config))
    return copy


def opened(case: str, **columns: str) -> Any:
    jsonl = {"path": str(CASES / case), **columns}
    return open_source(Dataset.model_validate({"name": "d", "jsonl": jsonl}))


def test_a_byte_order_mark_is_skipped() -> None:
    source = opened("bom/data.jsonl")
    assert (source.size, source.item(0).question, source.item(15).answer) == (16, "0+0=", "6")


def test_messages_and_numbers_are_trained_on(memory_runtime: Any) -> None:
    """Columns as TRL and verl have them."""
    assert opened("quote-it/number.jsonl").item(0).answer == "2"
    columns = {"path": str(CASES / "quote-it" / "data.jsonl"), "question": "prompt"}
    runtime = memory_runtime(job(columns, maxPromptTokens=128))
    run(runtime)
    assert len(runtime.steps) == 1


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("quote-it/null.jsonl", "1 of 1 items cannot be used: .*null.jsonl:1: 'answer' is null; fill it in or leave"),
        ("unlabelled-answers/data.jsonl", "8 of 8 items cannot be used: .*data.jsonl:1: 'answer' is empty; fill it in"),
        ("one-long-line-at-a-time/data.jsonl", "3 of 19 items are too long: .* raise it to .* overlong: LeaveOut"),
    ],
)
def test_what_cannot_be_trained_on_is_said_before_the_first_step(memory_runtime: Any, case: str, words: str) -> None:
    runtime = memory_runtime(job({"path": str(CASES / case)}))
    with pytest.raises(ConfigurationInvalid, match=words):
        run(runtime)
    assert not runtime.steps


def test_the_data_of_later_stages_are_looked_at_before_the_first_step(memory_runtime: Any) -> None:
    spec = job({"path": str(CASES / "bom" / "data.jsonl")})
    spec["datasets"].append({"name": "e", "jsonl": {"path": str(CASES / "one-long-line-at-a-time" / "data.jsonl")}})
    later = json.loads(json.dumps(spec["stages"][0])) | {"name": "later"}
    later["rl"]["dataset"] = "e"
    spec["stages"].append(later)
    runtime = memory_runtime(spec)
    with pytest.raises(ConfigurationInvalid, match="stage later: data set e: 3 of 19 items are too long"):
        run(runtime)
    assert not runtime.steps


def test_a_response_ends_where_the_template_ends_it(memory_runtime: Any) -> None:
    """The model answers rightly and ends its turn as its template does; generation_config names another end."""
    data = {"path": str(CASES / "qwen-base-eos" / "data.jsonl")}
    for sampling in ({}, {"stop": ["<|im_end|>"]}):
        runtime = memory_runtime(job(data, {"path": str(CASES / "model")}, maxResponseTokens=8, sampling=sampling))
        run(runtime)
        _, record, _ = runtime.steps[0]
        assert record["train/accuracy"] == 1.0


def test_weights_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    folder = model(tmp_path)
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name] = weights[name].copy()
    weights[name].flat[7] = np.nan
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(NonFinite, match=rf"model.safetensors: 1 of the \d+ values of {name} .* NaN or infinite"):
        check.check(folder)


def test_pointers_in_the_place_of_files_are_all_named(tmp_path: Path) -> None:
    folder = model(tmp_path)
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).write_text(POINTER)
    words = "model.safetensors, tokenizer.json are Git LFS pointers, not the content; fetch it with `git lfs pull`"
    for read in (check.look, Folder, lambda path: HuggingFaceTokenizer(path, 320)):
        with pytest.raises(ConfigurationInvalid, match=words):
            read(folder)


def test_what_the_tokenizer_cannot_write_and_what_ends_a_response_is_told_of_a_folder() -> None:
    said = check.look(CASES / "model")["tokenizer"]
    assert (
        said
        == "298 tokens; 22 of the model's tokens are none of them; responses end with 0 '<|endoftext|>', 2 '<|im_end|>'"
    )


def test_prompts_that_leave_no_positions_for_a_response_are_too_long(tmp_path: Path, memory_runtime: Any) -> None:
    data = {"path": str(CASES / "qwen-base-eos" / "data.jsonl")}
    runtime = memory_runtime(job(data, {"path": str(CASES / "model")}, maxPromptTokens=64, maxResponseTokens=250))
    with pytest.raises(ConfigurationInvalid, match=r"16 of 16 items .*The model's positions .* leave 6 tokens.* lower"):
        run(runtime)
    folder = Folder(CASES / "model")
    assert [folder.room_for_prompts(n, 56) for n in (100, 200, 201)] == [100, 200, 200]
    with pytest.raises(ConfigurationInvalid, match=r"has 256 positions .* which responses of 256 tokens fill alone"):
        folder.room_for_prompts(1, 256)
    assert Folder(model(tmp_path, max_position_embeddings=None)).positions is None
    assert [Folder(GOLDEN / n).positions for n in ("qwen2-window-yarn", "llama3-rope-scaled")] == [128, 512]
