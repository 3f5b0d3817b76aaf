"""Canonical JSON: equal data has equal bytes, whatever wrote it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet_api.canonical import canonical, stage_hash

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def test_keys_are_sorted_by_utf16_units_as_rfc_8785_says():
    # The example of RFC 8785, section 3.2.3: the emoji sorts before the Hebrew letter's presentation form.
    data = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7}
    text = canonical(data).decode()
    assert [text.index(f":{n}") for n in (2, 4, 6, 7, 1, 5, 3)] == sorted(text.index(f":{n}") for n in range(1, 8))


def test_numbers_are_written_as_ecmascript_does():
    assert canonical([2.0, -0.0, 1e3, 0.5, 10**15]) == b"[2,0,1000,0.5,1000000000000000]"


def test_strings_are_utf8_with_minimal_escapes():
    assert canonical('é"\\\n\x01') == '"é\\"\\\\\\n\\u0001"'.encode()


def test_what_json_cannot_say_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical(float("nan"))


@given(st.dictionaries(st.text(max_size=6), plain, max_size=6))
def test_the_order_of_keys_does_not_matter(data):
    assert canonical(data) == canonical(dict(reversed(list(data.items()))))


def test_a_stage_hash_changes_with_its_content():
    assert stage_hash({"name": "a", "advance": {"steps": 1}}) != stage_hash({"name": "a", "advance": {"steps": 2}})
