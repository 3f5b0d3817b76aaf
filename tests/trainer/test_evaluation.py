"""What a checkpoint is worth: the same number whoever asks, on items that nobody trained on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ratchet_api.job import Model, parse_spec
from ratchet_trainer.algorithm import keys
from ratchet_trainer.data.items import open_source
from ratchet_trainer.errors import CheckpointUnreadable, ConfigurationInvalid
from ratchet_trainer.process import distributed
from ratchet_trainer.run import run
from ratchet_trainer.step.stage import programs_of
from ratchet_trainer.tools.evaluate import evaluate_checkpoint, held_out

CONFIG = {"min_terms": 2, "max_terms": 3, "max_digits": 1, "operators": ["+"], "allow_parentheses": False}
LENGTHS = {"maxPromptTokens": 26, "maxResponseTokens": 3}


def job(tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "f.jsonl"
    file.write_text('{"question": "1?", "answer": "1"}\n')
    gym = {"task": "basic_arithmetic", "size": 300, "config": CONFIG}
    return {
        "model": {"preset": "tiny"},
        "datasets": [
            {"name": "sums", "reasoningGym": gym},
            {"name": "more", "reasoningGym": gym | {"size": 500, "config": CONFIG | {"min_terms": 3}}},
            {"name": "file", "jsonl": {"path": str(file)}},
        ],
        "stages": [
            {"name": "a", "sft": {"dataset": "sums", "batchSize": 64, **LENGTHS}, "advance": {"steps": 40}},
        ],
        "checkpoint": {"directory": "/checkpoints/x", "everySteps": 40},
        "placements": [{"name": "cpu", "cpu": {"hosts": 1}}],
    }


@pytest.fixture(scope="module")
def trained(memory_runtime: Any, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    spec = job(tmp_path_factory.mktemp("job"))
    spec["stages"][0]["sft"]["optimizer"] = {"learningRate": "0.004"}
    runtime = memory_runtime(spec)
    run(runtime)
    step, arrays, *_ = runtime.commits[-1]
    return SimpleNamespace(spec=parse_spec(spec), step=step, arrays=arrays)


def test_training_shows_in_the_number_which_is_the_same_each_time(trained) -> None:
    params, _ = programs_of(Model(preset="tiny"), distributed.one_device()).learner.init(keys.seed_words(0))
    from ratchet_trainer.step.state import flat_paths

    untrained = SimpleNamespace(step=0, arrays={k: np.asarray(v) for k, v in flat_paths({"params": params}).items()})
    before = evaluate_checkpoint(trained.spec, untrained, "sums", 100)
    after = evaluate_checkpoint(trained.spec, trained, "sums", 100)
    assert before <= 0.01 < after
    assert evaluate_checkpoint(trained.spec, trained, "sums", 100) == after


def test_held_out_items_are_in_no_data_set_that_is_trained_on(trained) -> None:
    items = held_out(trained.spec, "sums", 120)
    sources = [open_source(d) for d in trained.spec.datasets if d.name == "sums"]
    trained_on = {source.item(i).question for source in sources for i in range(source.size)}
    assert not trained_on & {item.question for item in items.items.values()}
    assert items.size == 120


def test_what_cannot_be_evaluated_is_said(trained) -> None:
    with pytest.raises(ConfigurationInvalid, match="no stage uses data set file, so its lengths"):
        evaluate_checkpoint(trained.spec, trained, "file", 10)
    with pytest.raises(ConfigurationInvalid, match="no stage uses data set more"):
        evaluate_checkpoint(trained.spec, trained, "more", 10)
    broken = SimpleNamespace(step=1, arrays={**trained.arrays, "params/embedding": np.zeros((2, 2), np.float32)})
    with pytest.raises(CheckpointUnreadable, match="not those of model preset tiny"):
        evaluate_checkpoint(trained.spec, broken, "sums", 10)
