"""Mixtures: whose turn it is, which item comes, and that no restart loses or doubles a draw."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet_api.datasets import Dataset
from ratchet_trainer.data.epochs import epoch_order
from ratchet_trainer.data.items import open_source, place_of
from ratchet_trainer.data.mixture import (
    Mixture,
    Part,
    drawn_after,
    mixed_visits,
    packed,
    schedule,
    unpacked,
    whole_weights,
)

PARTS = (Part("a", 7, 3), Part("b", 100, 2), Part("c", 1, 1))


@given(weights=st.lists(st.integers(1, 50), min_size=1, max_size=10))
def test_every_data_set_is_within_one_draw_of_its_share_at_every_point(weights: list[int]) -> None:
    total, drawn = sum(weights), [0] * len(weights)
    for n, dataset in enumerate(schedule(weights, drawn, 2 * total), 1):
        drawn[dataset] += 1
        assert all(abs(done * total - n * weight) < total for done, weight in zip(drawn, weights, strict=True))
    assert drawn == [2 * weight for weight in weights]


@given(weights=st.lists(st.integers(1, 50), min_size=1, max_size=6), position=st.integers(0, 500))
def test_what_was_drawn_follows_from_the_position(weights: list[int], position: int) -> None:
    made = schedule(weights, [0] * len(weights), position)
    assert drawn_after(weights, position) == [made.count(dataset) for dataset in range(len(weights))]


def test_weights_are_taken_exactly() -> None:
    assert whole_weights(["0.7", "0.2", "1e-1"]) == [7, 2, 1]
    assert whole_weights(["1", "1.0", "3"]) == [1, 1, 3]
    assert whole_weights(["0.333333333333"]) == [1]


def test_each_data_set_goes_through_its_own_epochs_as_if_alone() -> None:
    ids, drawn = mixed_visits(5, PARTS, [0, 0, 0], 600)
    assert drawn == [300, 200, 100]
    for dataset, part in enumerate(PARTS):
        mine = [item for found, item in map(unpacked, ids) if found == dataset]
        for epoch, start in enumerate(range(0, len(mine), part.size)):
            order = epoch_order(5, part.digest, epoch, part.size).tolist()
            assert mine[start : start + part.size] == order[: len(mine) - start]


def test_a_thousand_restarts_lose_and_double_no_draw() -> None:
    straight, _ = mixed_visits(5, PARTS, [0, 0, 0], 20_000)
    chance = random.Random(1)
    seen: list[int] = []
    kept = json.dumps([0, 0, 0])  # what a checkpoint holds
    for _ in range(1000):
        drawn, since = json.loads(kept), []
        for _ in range(chance.randint(0, 4)):  # steps until the attempt ends, each committed or not
            ids, drawn = mixed_visits(5, PARTS, drawn, chance.randint(1, 20))
            since += ids
            if chance.random() < 0.5:
                kept, seen, since = json.dumps(drawn), seen + since, []
    assert len(seen) > 5000
    assert seen == straight[: len(seen)]
    assert drawn_after([part.weight for part in PARTS], len(seen)) == json.loads(kept)


@given(dataset=st.integers(0, 31), item=st.integers(0, 2**48 - 1))
def test_ids_are_numbers_that_json_holds_and_can_be_taken_apart(dataset: int, item: int) -> None:
    assert unpacked(packed(dataset, item)) == (dataset, item)
    assert packed(dataset, item) < 2**53
    assert packed(0, item) == item


@pytest.fixture
def mixture(tmp_path: Path) -> Any:
    (tmp_path / "d.jsonl").write_text('{"question": "1+1=", "answer": "2"}\n{"question": "1+2=", "answer": "3"}\n')
    gym = {"task": "chain_sum", "size": 5}
    sets = [{"name": "gym", "reasoningGym": gym}, {"name": "file", "jsonl": {"path": str(tmp_path / "d.jsonl")}}]
    return Mixture([open_source(Dataset.model_validate(one)) for one in sets], ["0.5", "1.5"])


def test_items_of_a_mixture_are_those_of_its_data_sets(mixture: Any) -> None:
    ids, _ = mixed_visits(0, mixture.parts, [0, 0], 8)
    assert sorted(mixture.item(id).question for id in ids if unpacked(id)[0] == 1) == 3 * ["1+1="] + 3 * ["1+2="]
    assert place_of(mixture, packed(1, 1)).endswith("d.jsonl:2")
    assert mixture.counted([4, 12]) == {"gym": {"visits": 4, "epochs": 0}, "file": {"visits": 12, "epochs": 6}}


def test_another_weight_is_another_mixture(mixture: Any) -> None:
    assert Mixture(mixture.sources, ["1", "3"]).digest == mixture.digest, "only proportions count"
    assert Mixture(mixture.sources, ["1", "2"]).digest != mixture.digest
    assert Mixture(mixture.sources[::-1], ["3", "1"]).digest != mixture.digest
