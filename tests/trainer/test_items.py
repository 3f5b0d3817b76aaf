"""Data: who is asked what, in which order, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet_api.datasets import Dataset
from ratchet_trainer.data import tokenizer
from ratchet_trainer.data.epochs import epoch_order, visits
from ratchet_trainer.data.items import answer_tokens, open_source, prompt_of
from ratchet_trainer.data.reasoning_gym_items import HELD_OUT_BASE
from ratchet_trainer.data.tokenizer import BYTES
from ratchet_trainer.errors import ConfigurationInvalid


def gym(task: str = "chain_sum", size: int = 50, **config: Any) -> Any:
    return open_source(
        Dataset.model_validate({"name": "d", "reasoningGym": {"task": task, "size": size, "config": config}})
    )


def lines(tmp_path: Path, text: str | bytes, **keys: str) -> Any:
    path = tmp_path / "d.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_source(Dataset.model_validate({"name": "d", "jsonl": {"path": str(path), **keys}}))


@given(
    size=st.integers(1, 40), steps=st.lists(st.integers(1, 100), min_size=1, max_size=12), seed=st.integers(0, 2**53)
)
def test_each_item_is_visited_once_an_epoch_whatever_the_batches(size: int, steps: list[int], seed: int) -> None:
    seen: list[int] = []
    epoch = position = 0
    for count in steps:
        items, epoch, position = visits(seed, "digest", size, epoch, position, count)
        assert len(items) == count
        seen += items
    for start in range(0, len(seen) - size + 1, size):
        assert sorted(seen[start : start + size]) == list(range(size))
    assert epoch * size + position == len(seen)


def test_epochs_seeds_and_data_sets_have_orders_of_their_own() -> None:
    orders = {
        tuple(epoch_order(s, d, e, 30).tolist()) for s, d, e in ((0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1))
    }
    assert len(orders) == 4


def test_items_are_the_same_whoever_asks_and_in_whatever_order() -> None:
    one, other = gym(), gym()
    assert [one.item(i) for i in range(20)] == [other.item(i) for i in reversed(range(20))][::-1]
    assert one.digest == other.digest != gym(max_terms=3).digest


def test_held_out_items_occur_in_no_training_set() -> None:
    config = {"max_terms": 2, "min_terms": 2, "max_digits": 1}
    one, other = gym(size=60, **config), gym(size=40, **config)
    found, left_out = one.held_out(50, [one, other])
    trained = {s.item(i).question for s in (one, other) for i in range(s.size)}
    questions = [item.question for _, item in found]
    assert len(set(questions)) == 50
    assert not trained & set(questions)
    assert left_out > 0
    assert all(index >= HELD_OUT_BASE for index, _ in found)


def test_a_task_too_small_for_held_out_items_is_refused() -> None:
    source = gym(size=3000, max_terms=2, max_digits=1)
    with pytest.raises(ConfigurationInvalid, match=r"make reasoningGym.size smaller or the task's config wider"):
        source.held_out(256, [source])


@pytest.mark.parametrize(
    ("task", "config", "words"),
    [
        ("chain_sums", {}, "did you mean chain_sum"),
        ("chain_sum", {"max_term": 3}, "max_term"),
        ("chain_sum", {"max_terms": 1}, "max_terms must be >= min_terms"),
    ],
)
def test_unknown_tasks_and_settings_are_refused(task: str, config: dict, words: str) -> None:
    with pytest.raises(ConfigurationInvalid, match=words):
        gym(task, **config)


def test_lines_are_items_in_file_order(tmp_path: Path) -> None:
    source = lines(tmp_path, '{"q": "1+1?", "a": "2", "x": 0}\n\n{"q": "2+2?", "a": "4"}\n', question="q", answer="a")
    assert (source.size, source.item(1).question, source.item(1).answer) == (2, "2+2?", "4")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"question": "a", "answer": "b"}\n{"question": "a"', r"d.jsonl:2: not JSON"),
        ('{"question": "a", "answer": "b"}\n["a"]', r"d.jsonl:2: a JSON object is needed, this is list"),
        ('{"question": "a"}', r"d.jsonl:1: no key 'answer' \(there is 'question'\)"),
        ('{"question": "a", "answer": true}', r"d.jsonl:1: 'answer' is true; write the text that is expected"),
        (b'\n{"question": "\xff", "answer": "4"}', r"d.jsonl:2: not UTF-8"),
        ("\n \n", "has no items"),
        ("", "has no items"),
    ],
)
def test_a_malformed_file_is_refused_with_file_and_line(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(ConfigurationInvalid, match=words):
        lines(tmp_path, text)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationInvalid, match=r"absent.jsonl: No such file.*claimName"):
        open_source(Dataset.model_validate({"name": "d", "jsonl": {"path": str(tmp_path / "absent.jsonl")}}))


def test_texts_that_are_too_long_are_refused_with_the_item(tmp_path: Path) -> None:
    source = lines(tmp_path, '{"question": "123456789", "answer": "12345"}')
    assert len(prompt_of(source, BYTES, 0, 10).tokens) == 10
    assert len(answer_tokens(source, BYTES, 0, "12345", 6)) == 6
    with pytest.raises(
        ConfigurationInvalid, match=r"data set d, .*d.jsonl:1: the prompt has 10 tokens, maxPromptTokens is 9"
    ):
        prompt_of(source, BYTES, 0, 9)
    with pytest.raises(ConfigurationInvalid, match="the answer has 6 tokens with its end, maxResponseTokens is 5"):
        answer_tokens(source, BYTES, 0, "12345", 5)


@given(st.text())
def test_every_text_survives_the_tokenizer(text: str) -> None:
    assert BYTES.decode(BYTES.encode_answer(text)) == text
    assert BYTES.decode(BYTES.encode_prompt(text)[1:]) == text


def test_tokens_that_are_no_bytes_never_make_a_right_answer() -> None:
    assert BYTES.decode([tokenizer.VOCABULARY - 1, *b"12", tokenizer.END]) != "12"
    assert BYTES.decode([*b"12", tokenizer.END, *b"3"]) == "12"
