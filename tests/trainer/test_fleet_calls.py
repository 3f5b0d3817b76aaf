"""Calls and results as bytes: whatever is not what was written, or not what was asked for, is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from fleet_calls import SHA, answer, call
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet_trainer.fleet import result as results
from ratchet_trainer.fleet.call import FOLDER, Call, Damaged
from ratchet_trainer.rollout.endings import Finish


def test_a_call_comes_back_as_it_was() -> None:
    one = call(3)
    again = Call.from_bytes(one.to_bytes(), one.folder)
    assert again == one
    assert again.digest == one.digest
    assert FOLDER.fullmatch(one.folder)


def test_every_field_is_part_of_the_name() -> None:
    other = {
        "stage": 1, "stage_hash": "x", "step": 2, "round": 1, "number": 1, "version": "a" * 64, "shape": "b" * 64,
        "prompts": ((1, 2, 3), (4, 6)), "purpose": 2, "samples": 2, "first": 3, "ordinals": (0, 2), "tags": (0, 1),
        "limits": (4, 3), "rows": 8, "prompt_slots": 16, "response_slots": 5, "refills": True,
    }  # fmt: skip
    assert other.keys() == vars(call()).keys()
    folders = {call(**{name: value}).folder for name, value in other.items()} | {call().folder}
    assert len(folders) == len(other) + 1


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_changed_byte_of_a_call_is_taken(data: st.DataObject) -> None:
    one = call()
    whole = bytearray(one.to_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Damaged):
        Call.from_bytes(bytes(whole), one.folder)
    with pytest.raises(Damaged):
        Call.from_bytes(bytes(whole[:at]), one.folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompts", []),
        ("prompts", [[1, 2], ["3"]]),
        ("prompts", [[1, 2], [-3]]),
        ("ordinals", [1]),
        ("limits", [4, True]),
        ("tags", None),
        ("rows", 1),
        ("samples", 0),
        ("step", -1),
        ("step", 1.0),
        ("step", True),
        ("refills", 1),
        ("version", "../../x"),
        ("shape", 7),
        ("v", 2),
        ("more", 1),
    ],
)
def test_a_call_with_values_that_cannot_be_is_refused(name: str, value: object) -> None:
    said = json.loads(call().to_bytes()) | {name: value}
    with pytest.raises(Damaged):
        Call.from_bytes(json.dumps(said, separators=(",", ":")).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{}", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_call_is_refused(data: bytes) -> None:
    with pytest.raises(Damaged):
        Call.from_bytes(data)


def test_a_result_comes_back_as_it_was() -> None:
    one = call()
    given = answer(one)
    found = results.decode(results.encode(given), call=one)
    assert (found.call, found.identity, found.worker) == (one.digest, SHA, "w0")
    assert found.digest == given.digest
    for name, array in given.arrays.items():
        assert found.arrays[name].dtype == array.dtype
        assert np.array_equal(found.arrays[name], array)
    assert found.arrays["tokens"].shape == (2, 3, 4), "no dummies"


def test_why_responses_ended_is_a_number() -> None:
    assert set(results.FINISHES) == set(get_args(Finish))
    names = np.array([["stop", "end"], ["length", "stop"]])
    numbers = np.array([[results.FINISHES.index(n) for n in row] for row in names], np.uint8)
    assert (results.finish_names(numbers) == names).all()


def test_a_digest_says_what_decides_bits_and_no_more() -> None:
    one = call()
    assert answer(one, "w1").digest == answer(one, "w2", "other").digest
    assert answer(one, change=1).digest != answer(one).digest


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_changed_byte_of_a_result_is_taken(data: st.DataObject) -> None:
    one = call()
    whole = bytearray(results.encode(answer(one)))
    at = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(Damaged):
        results.decode(bytes(whole[:at]), call=one)
    with pytest.raises(Damaged):
        results.decode(bytes(whole) + b"x", call=one)
    whole[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Damaged):
        results.decode(bytes(whole), call=one)


def test_a_result_of_another_call_is_refused() -> None:
    with pytest.raises(Damaged, match="another call"):
        results.decode(results.encode(answer(call(1))), call=call(0))


def test_a_result_longer_than_the_call_allows_is_refused_by_its_first_bytes() -> None:
    one = call()
    data = results.encode(answer(one))
    with pytest.raises(Damaged, match="are the most"):
        results.decode(data, call=one, most=len(data) - 1)
    huge = results.MAGIC + (16).to_bytes(8, "little") + (1 << 40).to_bytes(8, "little") + bytes(32)
    with pytest.raises(Damaged, match="are the most"):
        results.size_of(huge, results.most_bytes(one))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("tokens", np.zeros((2, 3, 4), np.int64)),
        ("tokens", np.zeros((2, 3, 5), np.int32)),
        ("log_probs", np.zeros((24,), np.float32)),
        ("lengths", np.full((2, 3), 5, np.int32)),
        ("lengths", np.full((2, 3), -1, np.int32)),
        ("finish", np.full((2, 3), 3, np.uint8)),
        ("more", np.zeros(1, np.float32)),
        ("tokens", None),
    ],
)
def test_arrays_other_than_the_calls_are_refused(name: str, array: np.ndarray | None) -> None:
    one = call()
    arrays = {**answer(one).arrays, name: array}
    bad = replace(answer(one), arrays={k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(Damaged):
        results.decode(results.encode(bad), call=one)
