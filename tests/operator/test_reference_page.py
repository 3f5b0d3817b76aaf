"""The page of conditions and verdicts is the one that the tables give."""

from __future__ import annotations

from pathlib import Path

from ratchet_operator.decide.reference_page import reference_page

PAGE = Path(__file__).parents[2] / "docs" / "conditions.md"


def test_the_page_is_renewed():
    assert PAGE.read_text(encoding="utf-8") == reference_page(), "run make generate"
