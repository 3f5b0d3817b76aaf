"""Items that are too long: all of them known before the first step, with a way out, and measured once."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from ratchet_api.datasets import Dataset
from ratchet_trainer.data import lengths
from ratchet_trainer.data.items import open_source, prompt_of
from ratchet_trainer.data.lengths import Limits, check_lengths
from ratchet_trainer.data.tokenizer import BYTES, Bytes
from ratchet_trainer.errors import ConfigurationInvalid

CASES = Path(__file__).parents[1] / "cases"
LONG = {"reasoningGym": {"task": "knights_knaves", "size": 300}}
"""Of its items some have more than 463 bytes, none of the first hundred."""


def dataset(**source: Any) -> Any:
    return open_source(Dataset.model_validate({"name": "d", **source}))


def lines(tmp_path: Path, *texts: str) -> Any:
    (tmp_path / "d.jsonl").write_text("".join(json.dumps({"question": t, "answer": t}) + "\n" for t in texts))
    return dataset(jsonl={"path": str(tmp_path / "d.jsonl")})


class Counting(Bytes):
    """Counts what it encodes."""

    def __init__(self) -> None:
        self.encoded = 0

    def encode_prompt(self, text: str) -> list[int]:
        self.encoded += 1
        return super().encode_prompt(text)


def test_all_lines_that_are_too_long_are_named_the_longest_first() -> None:
    source = dataset(jsonl={"path": str(CASES / "one-long-line-at-a-time" / "data.jsonl")})
    with pytest.raises(ConfigurationInvalid, match="data set d: 3 of 19 items are too long") as error:
        check_lengths(source, BYTES, Limits(64, None))
    said = str(error.value)
    sizes = {i + 1: len(source.item(i).question) + 1 for i in range(19)}
    worst = sorted((line for line in sizes if sizes[line] > 64), key=lambda line: -sizes[line])
    places = [said.index(f"data.jsonl:{line}: the prompt has {sizes[line]} tokens") for line in worst]
    assert places == sorted(places)
    longest = max(sizes.values())
    assert f"maxPromptTokens is 64, raise it to {longest}" in said
    assert "overlong: LeaveOut" in said
    assert check_lengths(source, BYTES, Limits(longest, None)).size == 19, "the way out that is named works"


def test_prompts_and_answers_are_looked_at_together(tmp_path: Path) -> None:
    source = lines(tmp_path, "12345", "1", "12345")
    with pytest.raises(ConfigurationInvalid, match="2 of 3 items") as error:
        check_lengths(source, BYTES, Limits(5, 5))
    for words in ("maxPromptTokens is 5, raise it to 6", "maxResponseTokens is 5, raise it to 6"):
        assert words in str(error.value)
    assert check_lengths(source, BYTES, Limits(6, 6)) is source
    with pytest.raises(ConfigurationInvalid, match=r":1: the answer has 6 tokens with its end"):
        check_lengths(source, BYTES, Limits(6, 5))


def test_lines_that_are_too_long_are_left_out_where_the_manifest_says_so(tmp_path: Path, caplog: Any) -> None:
    source = lines(tmp_path, "1", "12345", "2", "123456")
    with caplog.at_level(logging.WARNING):
        kept = check_lengths(source, BYTES, Limits(3, None), overlong="LeaveOut")
    assert [kept.item(i).question for i in range(kept.size)] == ["1", "2"]
    assert "2 of 4 items are too long" in caplog.text
    assert kept.digest != source.digest
    assert kept.digest == check_lengths(source, BYTES, Limits(4, None), overlong="LeaveOut").digest, (
        "what is kept counts"
    )
    with pytest.raises(ConfigurationInvalid, match=r"d.jsonl:3: the prompt has 2 tokens, maxPromptTokens is 1"):
        prompt_of(kept, BYTES, 1, 1)
    with pytest.raises(ConfigurationInvalid, match="4 of 4 items are too long"):
        check_lengths(source, BYTES, Limits(1, None), overlong="LeaveOut")


def test_generated_items_that_are_too_long_never_end_a_run(caplog: Any) -> None:
    source = dataset(**LONG)
    too_long = [i for i in range(300) if len(source.item(i).question) + 1 > 463]
    assert too_long
    assert too_long[0] >= 100
    with caplog.at_level(logging.WARNING):
        fitting = check_lengths(source, BYTES, Limits(463, None))
        for i in range(300):
            prompt_of(fitting, BYTES, i, 463)
    assert (fitting.digest, fitting.size, fitting.left_out) == (source.digest, 300, len(too_long))
    assert f"item {too_long[0]} is longer than the stage allows" in caplog.text
    assert all(fitting.item(i) == source.item(i) for i in range(300) if i not in too_long)
    assert fitting.item(too_long[0]) in [source.item(i) for i in range(300)], "nothing is asked that could be held out"


def test_a_limit_that_most_generated_items_exceed_is_refused() -> None:
    with pytest.raises(ConfigurationInvalid, match=r"items, the first ones, are too long.* raise it to \d+$"):
        check_lengths(dataset(**LONG), BYTES, Limits(200, None))
    with pytest.raises(ConfigurationInvalid, match=r"of 300 items are too long"):
        check_lengths(dataset(**LONG), BYTES, Limits(463, None), overlong="Refuse")


def test_a_file_is_measured_once_and_any_limit_checked_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lengths, "AT_ONCE", 2)
    source, tokenizer = lines(tmp_path, "1", "12", "123", "1234", "12345"), Counting()
    tokenizer.digest = "x"
    signs: list[int] = []
    check_lengths(source, tokenizer, Limits(10, None), tmp_path / "cache", alive=lambda: signs.append(1))
    assert (tokenizer.encoded, len(signs)) == (5, 2)
    with pytest.raises(ConfigurationInvalid, match="2 of 5 items"):
        check_lengths(source, tokenizer, Limits(4, None), tmp_path / "cache")
    assert tokenizer.encoded == 5
    tokenizer.digest = "another"
    check_lengths(source, tokenizer, Limits(10, None), tmp_path / "cache")
    assert tokenizer.encoded == 10


def test_an_attempt_that_ends_while_it_measures_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lengths, "AT_ONCE", 2)
    source, tokenizer = lines(tmp_path, *"abcdefg"), Counting()

    def killed() -> None:
        if tokenizer.encoded >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_lengths(source, tokenizer, Limits(10, None), tmp_path / "cache", alive=killed)
    check_lengths(source, tokenizer, Limits(10, None), tmp_path / "cache")
    assert tokenizer.encoded == 6 + 3


def test_items_that_no_prompt_can_be_made_of_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(2 * '{"question": "1", "answer": "1"}\n')
    source = dataset(jsonl={"path": str(tmp_path / "d.jsonl")}, system="Add.")
    with pytest.raises(
        ConfigurationInvalid, match=r"2 of 2 items make no prompt: .*:1: messages of several roles need a"
    ):
        check_lengths(source, BYTES, Limits(100, None))
