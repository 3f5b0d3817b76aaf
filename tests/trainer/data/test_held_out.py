"""Evaluation items: none that a model was trained on, none twice, and what is left out is counted."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from ratchet_api.datasets import Dataset
from ratchet_trainer.data.evaluation_items import HeldOut, that_fit
from ratchet_trainer.data.items import open_source
from ratchet_trainer.data.tokenizer import BYTES
from ratchet_trainer.errors import ConfigurationInvalid

GYM = {"reasoningGym": {"task": "chain_sum", "size": 20, "config": {"max_terms": 2, "max_digits": 1}}}


def lines(path: Path, *questions: Any, **columns: str) -> Any:
    rows = [q if isinstance(q, dict) else {"question": q, "answer": "1"} for q in questions]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_source(Dataset.model_validate({"name": path.stem, "jsonl": {"path": str(path), **columns}}))


def test_questions_of_training_files_and_repetitions_are_left_out(tmp_path: Path, caplog: Any) -> None:
    training = lines(tmp_path / "train.jsonl", "a", "b", "c")
    evaluation = lines(tmp_path / "test.jsonl", "d", "a", "d", "e", "c", "a")
    with caplog.at_level(logging.WARNING):
        found, left_out = evaluation.held_out(10, [training])
    assert [(index, item.question) for index, item in found] == [(0, "d"), (3, "e")]
    assert left_out == 4
    assert (
        "of 6 items, 3 are left out of the evaluation because a data set that is trained on asks the same"
        in caplog.text
    )
    assert len(evaluation.held_out(1, [training])[0]) == 1


def test_messages_and_questions_are_compared(tmp_path: Path) -> None:
    def asked(*turns: str) -> dict:
        roles = ("user", "assistant", "user")
        return {"messages": [{"role": r, "content": t} for r, t in zip(roles, turns, strict=False)], "answer": "1"}

    training = lines(tmp_path / "train.jsonl", "a", "c")
    with_system = asked("a")
    with_system["messages"].insert(0, {"role": "system", "content": "Think."})
    evaluation = lines(tmp_path / "test.jsonl", asked("a"), with_system, asked("b", "x", "c"), messages="messages")
    found, left_out = evaluation.held_out(10, [training])
    assert ([index for index, _ in found], left_out) == ([2], 2)


def test_a_set_with_nothing_new_is_refused(tmp_path: Path) -> None:
    training = lines(tmp_path / "train.jsonl", "a", "b")
    with pytest.raises(ConfigurationInvalid, match=r"data set test: none of its 2 items is held out.*other questions"):
        lines(tmp_path / "test.jsonl", "a", "b").held_out(5, [training])


def test_generated_training_items_are_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gym = open_source(Dataset.model_validate({"name": "gym", **GYM}), tmp_path / "cache")
    new = [gym.item(i).question for i in range(20)]
    evaluation = lines(tmp_path / "test.jsonl", "2 + 2 = how much?", *new)
    assert [item.question for _, item in evaluation.held_out(9, [gym])[0]] == ["2 + 2 = how much?"]
    again = open_source(Dataset.model_validate({"name": "gym", **GYM}), tmp_path / "cache")
    monkeypatch.setattr(again, "item", lambda index: pytest.fail("an item is made again"))
    assert len(evaluation.held_out(9, [again])[0]) == 1


def test_evaluation_items_that_are_too_long_are_known_before_the_first_evaluation(tmp_path: Path, caplog: Any) -> None:
    source = lines(tmp_path / "test.jsonl", "a", "bbb", "cc", "dddd")
    items = HeldOut("test", source.digest, {i: source.item(i) for i in (1, 2, 3)}, source)
    with pytest.raises(
        ConfigurationInvalid, match=r"2 of 3 items are too long: .*:4: the prompt has 5 .*:2: .* to 5, or"
    ):
        that_fit(items, BYTES, 3, leave_out=False)
    with caplog.at_level(logging.WARNING):
        assert list(that_fit(items, BYTES, 3, leave_out=True).items) == [2]
    assert "they are left out" in caplog.text
    with pytest.raises(ConfigurationInvalid, match="3 of 3 items are too long"):
        that_fit(items, BYTES, 1, leave_out=True)
    assert that_fit(items, BYTES, 5, leave_out=False) is items
