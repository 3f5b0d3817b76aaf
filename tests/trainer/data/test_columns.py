"""What an object of a file means: questions, messages, answers, and what is refused with which way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ratchet_api.datasets import Dataset
from ratchet_trainer.data.edits import edited
from ratchet_trainer.data.item import Item
from ratchet_trainer.data.items import needs_answer, open_source, place_of
from ratchet_trainer.errors import ConfigurationInvalid

SYSTEM = {"role": "system", "content": "Add."}
USER = {"role": "user", "content": "1+1?"}
ASSISTANT = {"role": "assistant", "content": "2"}
AGAIN = {"role": "user", "content": "and 2+2?"}
FOUR = {"role": "assistant", "content": "4"}
CHAT = {"messages": "messages"}


def item(tmp_path: Path, row: dict[str, Any] | str, system: str | None = None, **columns: str) -> Item:
    path = tmp_path / "d.jsonl"
    path.write_text(row if isinstance(row, str) else json.dumps(row))
    more = {} if system is None else {"system": system}
    return open_source(Dataset.model_validate({"name": "d", "jsonl": {"path": str(path), **columns}, **more})).item(0)


@pytest.mark.parametrize(
    ("messages", "answer", "question", "expected", "prompt"),
    [
        ([USER, ASSISTANT], None, "1+1?", "2", None),
        ([USER], 2, "1+1?", "2", None),
        ([SYSTEM, USER, ASSISTANT], None, "1+1?", "2", (SYSTEM, USER)),
        ([SYSTEM, USER, ASSISTANT, AGAIN], "4", "and 2+2?", "4", (SYSTEM, USER, ASSISTANT, AGAIN)),
        (
            [USER, ASSISTANT, AGAIN, FOUR],
            None,
            "and 2+2?",
            "4",
            (USER, ASSISTANT, AGAIN),
        ),
        ([USER, {"role": "assistant", "content": "because: 2"}], "2", "1+1?", "2", None),
        ([{"role": "user", "content": [{"type": "text", "text": "1+1?"}]}], "2", "1+1?", "2", None),
    ],
)
def test_the_last_words_of_the_assistant_are_the_answer_unless_one_is_given(
    tmp_path: Path, messages: list, answer: Any, question: str, expected: str, prompt: Any
) -> None:
    row = {"messages": messages} | ({} if answer is None else {"answer": answer})
    found = item(tmp_path, row, messages="messages")
    assert (found.question, found.answer, found.messages) == (question, expected, prompt)
    if answer is not None:
        assert item(tmp_path, {"prompt": messages, "answer": answer}, question="prompt") == found, "a list is messages"


def test_a_system_prompt_of_the_data_set_stands_before_every_prompt_that_has_none(tmp_path: Path) -> None:
    assert item(tmp_path, {"question": "1+1?", "answer": "2"}, "Add.").messages == (SYSTEM, USER)
    assert (
        item(tmp_path, {"messages": [SYSTEM, USER], "answer": "2"}, "Other", messages="messages").messages[0] == SYSTEM
    )


@pytest.mark.parametrize(("written", "text"), [("9", "9"), ("9.50", "9.50"), ("-0.5", "-0.5"), ("1e3", "1e3")])
def test_a_number_is_an_answer_as_it_is_written(tmp_path: Path, written: str, text: str) -> None:
    assert item(tmp_path, f'{{"question": "a", "answer": {written}}}').answer == text


def test_all_other_columns_are_kept(tmp_path: Path) -> None:
    found = item(
        tmp_path,
        {"q": "a", "reward_model": {"ground_truth": 4}, "tests": ["x"]},
        question="q",
        answer="reward_model.ground_truth",
    )
    assert found.answer == "4"
    assert found.fields == {"reward_model": {"ground_truth": 4}, "tests": ["x"]}


def test_text_is_kept_as_it_is_written(tmp_path: Path) -> None:
    for text in ("e\N{COMBINING ACUTE ACCENT}", "é", " 2 ", "a\r\nb"):
        found = item(tmp_path, {"question": text, "answer": text})
        assert (found.question, found.answer) == (text, text)


@pytest.mark.parametrize(
    ("row", "columns", "words"),
    [
        ({"question": "a", "answer": None}, {}, "'answer' is null; fill it in or leave the item out"),
        ({"question": "a", "answer": ""}, {}, "'answer' is empty; fill it in"),
        ({"question": " \n", "answer": "b"}, {}, "'question' is blank; fill it in"),
        ({"question": "a", "answer": ["b", "c"]}, {}, "'answer' is a list of 2; an answer is one text"),
        ({"question": "a", "answer": {"value": 1}}, {}, r"'answer' is an object; name the key within it.*answer.value"),
        ({"question": 1, "answer": "b"}, {}, "'question' is a number, not a text; quote it"),
        ('{"question": "a", "answer": NaN}', {}, "'answer' is nan, which is no number"),
        ({"question": "a", "answer": "\ud800"}, {}, "half of a surrogate pair"),
        ({"messages": [USER], "answer": "2"}, {}, "no key 'question'.*set messages: messages"),
        ({"messages": "1+1?", "answer": "2"}, CHAT, "no list of messages.*set question instead"),
        ({"messages": [], "answer": "2"}, CHAT, "an empty list"),
        ({"messages": [USER]}, CHAT, "no key 'answer'"),
        ({"messages": [USER, SYSTEM], "answer": "2"}, CHAT, "last message .* is not a user's"),
        ({"messages": [ASSISTANT]}, CHAT, "last message .* is not a user's"),
        (
            {"messages": [{"from": "human", "value": "x"}]},
            CHAT,
            r"messages\[0\]' is no message .*rename",
        ),
        (
            {"messages": [USER, {"role": "tool", "content": "3"}]},
            CHAT,
            r"messages\[1\]' is of role 'tool'",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}], "answer": "2"},
            CHAT,
            "holds something other than text",
        ),
    ],
)
def test_what_is_no_item_is_refused_with_a_way_out_that_fits(
    tmp_path: Path, row: Any, columns: dict, words: str
) -> None:
    with pytest.raises(ConfigurationInvalid, match=rf"d\.jsonl:1: .*{words}"):
        item(tmp_path, row, **columns)


def test_an_edit_of_a_prompt_changes_the_last_message_of_a_conversation(tmp_path: Path) -> None:
    row = {"messages": [SYSTEM, USER, ASSISTANT, AGAIN], "answer": "4"}
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps(row))
    data = {"name": "d", "jsonl": {"path": str(path), **CHAT}}
    source = edited(open_source(Dataset.model_validate(data)), "template:Q: {question}")
    asked = "Q: and 2+2?"
    assert source.item(0).question == asked
    assert source.item(0).messages == (SYSTEM, USER, ASSISTANT, {"role": "user", "content": asked})
    assert place_of(source, 0).endswith("d.jsonl:1")


def test_verifiers_that_need_no_answer_may_do_without_its_key(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"question": "Write f.", "tests": ["assert f() == 1"]}))
    spec = Dataset.model_validate({"name": "d", "jsonl": {"path": str(path)}, "verifier": "code"})
    assert open_source(spec, answers=needs_answer(spec)).item(0) == Item(
        "Write f.", "", None, {"tests": ["assert f() == 1"]}
    )
    with pytest.raises(ConfigurationInvalid, match="no key 'answer'"):
        open_source(spec)  # for an sft stage
