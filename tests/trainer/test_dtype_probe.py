"""`model.dtype: auto`: which small models stand for the whole one, and how often."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ratchet_api.stages import Stage
from ratchet_trainer.model.architecture import Architecture, Layer
from ratchet_trainer.model.presets import PRESETS
from ratchet_trainer.step.dtype_probe import DTYPES, VOCABULARY, faster, parts


@pytest.mark.parametrize("layers", [1, 2, 3, 30])
def test_the_parts_have_all_blocks_and_the_vocabulary_once(layers: int) -> None:
    whole = Architecture(vocabulary=50_000, width=64, heads=4, hidden=128, layers=(Layer(),) * layers)
    found = parts(whole)
    assert sum(len(part.layers) * times for part, times in found) == layers
    assert sum(times for part, times in found if part.vocabulary == 50_000) == 1
    assert all(part.vocabulary <= VOCABULARY for part, _ in found[1:])


def test_supervised_stages_are_measured_without_sampling() -> None:
    small = replace(PRESETS["tiny"], width=16, hidden=16, heads=2, head_width=8, kv_heads=2, layers=(Layer(),))
    stage = {"name": "s", "sft": {"dataset": "d", "batchSize": 2}, "advance": {"steps": 1}}
    assert faster(small, Stage.model_validate(stage)) in DTYPES


def test_stages_that_sample_are_measured_with_their_sampling() -> None:
    small = replace(PRESETS["tiny"], width=16, hidden=16, heads=2, head_width=8, kv_heads=2, layers=(Layer(),))
    rl = {"method": "grpo", "dataset": "d", "promptsPerStep": 1, "groupSize": 2, "maxResponseTokens": 4}
    stage = {"name": "s", "rl": rl, "advance": {"steps": 1}}
    assert faster(small, Stage.model_validate(stage)) in DTYPES
