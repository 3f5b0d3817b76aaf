"""The verifier `exact`: a response is right if it equals the expected answer after trimming white space. Pure."""

from __future__ import annotations

from ratchet_trainer.algorithm.types import Outcome


def verify(response: str, answer: str) -> Outcome:
    score = float(response.strip() == answer.strip())
    return Outcome(accuracy=score, score=score)
