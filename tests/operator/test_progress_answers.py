"""What of a trainer's answer is believed: small, well formed, of this very attempt."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet_operator.progress import Invalid, Leader, Mismatch, parse

LEADER = Leader("127.0.0.1", "job-uid", 3, "set-uid")
GOOD = {
    "v": 1, "jobUID": "job-uid", "attempt": 3, "jobSetUID": "set-uid", "revision": "7", "phase": "generate",
    "stage": {"name": "warm-up", "index": 0, "startStep": 0, "generatedTokens": 512}, "startStep": 9, "step": 12,
    "inherited": {"namespace": "team", "name": "old", "jobUID": "old-uid"},
    "targetStep": 50, "reward": 0.25, "accuracy": 0.5, "tokensPerSecond": 1200.5,
    "checkpoint": {"step": 12, "path": "steps/12", "time": None},
    "boundary": None, "exactSince": None, "draining": False,
    "artifacts": [{"stage": "warm-up", "step": 10, "path": "/exports/warm-up"}],
    "trackers": [{"name": "tensorBoard", "state": "Following", "step": 11, "message": ""}],
    "parts": {"start": 1.2, "compile": None}, "lastSafePointAgeSeconds": 0.1,
    "learning": {"status": "True", "reason": "Learning", "message": ""},
    "rollouts": {"version": "ab12", "waitingCalls": 2, "resultsPerSecond": 0.5, "workers": 3},
}  # fmt: skip


def of(**changes) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def test_a_good_answer_is_kept_whole_without_unknown_keys():
    assert parse(of(extra="ignored"), LEADER).plain() == GOOD


def test_a_field_that_the_answer_lacks_is_none():
    said = {name: value for name, value in GOOD.items() if name not in ("step", "boundary")}
    assert parse(json.dumps(said).encode(), LEADER).plain() == {**GOOD, "step": None, "boundary": None}


@pytest.mark.parametrize("changes", [{"jobUID": "other"}, {"attempt": 2}, {"jobSetUID": "old"}, {"attempt": "3"}])
def test_another_identity_is_a_mismatch(changes):
    with pytest.raises(Mismatch):
        parse(of(**changes), LEADER)


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2}, {"v": None}, {"phase": "dance"}, {"step": -1}, {"step": 1.5}, {"step": True}, {"step": 2**60},
        {"reward": "high"}, {"reward": 1e301}, {"stage": {"name": "x"}}, {"stage": []}, {"checkpoint": {"step": 1}},
        {"artifacts": [{"stage": "x"}]},
        {"boundary": {"stage": 0}}, {"draining": "no"}, {"parts": {"start": "long"}}, {"revision": None},
        {"stage": {"name": "x" * 2000, "index": 0, "startStep": 0}},
        {"stage": {"name": "a\nb", "index": 0, "startStep": 0}},
    ],
)  # fmt: skip
def test_a_malformed_field_drops_the_answer(changes):
    with pytest.raises(Invalid):
        parse(of(**changes), LEADER)


@pytest.mark.parametrize("body", [b"", b"[]", b"nul", b"\xff\xfe", b'{"v": NaN}', b"[" * 30000])
def test_what_is_no_object_is_dropped(body):
    with pytest.raises(Invalid):
        parse(body, LEADER)


@pytest.mark.parametrize(
    "learning", [{}, 5, {"status": "Maybe", "reason": "Learning"}, {"status": "True", "reason": "x y"}]
)
def test_malformed_advice_on_learning_costs_only_the_advice(learning):
    assert parse(of(learning=learning), LEADER).plain() == {**GOOD, "learning": None}


def test_the_words_on_learning_are_one_line_of_at_most_a_thousand_characters():
    answer = parse(of(learning={"status": "False", "reason": "AllSolved", "message": "a\n\x1b[31mb " * 1000}), LEADER)
    assert answer.learning is not None
    assert answer.learning.message.startswith("a [31mb a [31mb")
    assert len(answer.learning.message) == 1000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(GOOD)), json_values, max_size=4))
def test_no_answer_whatever_makes_it_fail_otherwise(changes):
    try:
        answer = parse(of(**changes), LEADER)
    except Invalid:
        return
    assert set(answer.plain()) == set(GOOD)
    json.dumps(answer.plain(), allow_nan=False)
