"""What the answer of a user's function or endpoint means as an outcome; what is no number is refused by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ratchet_trainer.algorithm.outcome import NoOutcome, Outcome

LARGEST = 1e15
"""Largest size of a number that is taken: the square of anything far beyond has no place in a float."""


class BadAnswer(NoOutcome):
    """A verifier said something that is no score; the message says what."""


def outcome_of(said: Any, extracted: str | None, pure: bool) -> Outcome:
    """The outcome that a number or a mapping {score, accuracy?, parts?, extracted?} means. Raises BadAnswer."""
    if isinstance(said, Outcome):
        said = {"score": said.score, "accuracy": said.accuracy, "parts": said.parts, "extracted": said.extracted}
    if not isinstance(said, Mapping):
        said = {"score": said}
    if unknown := said.keys() - {"score", "accuracy", "parts", "extracted"}:
        raise BadAnswer(f"it said {sorted(map(str, unknown))}; known are score, accuracy, parts and extracted")
    if "score" not in said:
        raise BadAnswer("it said no score")
    score = finite("score", said["score"])
    accuracy = finite("accuracy", said.get("accuracy", float(score >= 1.0)))
    if accuracy not in (0.0, 1.0):
        raise BadAnswer(f"accuracy is {accuracy}, which is neither 0 nor 1; say it as score")
    parts = said.get("parts", {})
    if not isinstance(parts, Mapping):
        raise BadAnswer("parts is no mapping from names to numbers")
    text = said.get("extracted", extracted)
    return Outcome(
        accuracy=accuracy,
        score=score,
        extracted=None if text is None else str(text),
        parts={str(name): finite(f"part {name}", value) for name, value in parts.items()},
        pure=pure,
    )


def finite(name: str, value: Any) -> float:
    """A number as a float. Raises BadAnswer for what is none, NaN, infinite or beyond LARGEST. Booleans are 0 and 1."""
    try:
        number = float(value) if not isinstance(value, str | bytes) else None
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None:
        raise BadAnswer(f"{name} is {value!r:.100}, which is no number")
    if not math.isfinite(number):
        raise BadAnswer(f"{name} is {number}; say 0 for an answer that is worth nothing")
    if abs(number) > LARGEST:
        raise BadAnswer(f"{name} is {number:g}; say a number between -{LARGEST:g} and {LARGEST:g}")
    return number
