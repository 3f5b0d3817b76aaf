"""The verifier `exact`: the answer is right if it equals the expected one as text. Pure, inline.

Decides what equal text is: after trimming white space and in Unicode's composed form (NFC), nothing else. An expected
answer that is empty is never met: saying nothing earns nothing.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from ratchet_trainer.algorithm.outcome import Case, Outcome, graded
from ratchet_trainer.algorithm.verifiers.extract import extract
from ratchet_trainer.algorithm.verifiers.spec import VerifierSpec

if TYPE_CHECKING:
    from ratchet_trainer.algorithm import types

VERSION = "2"


def verify_case(spec: VerifierSpec, case: Case) -> Outcome:
    found = extract(spec.extraction, case.response)
    return graded(float(same_text(found, str(case.item["answer"]))), found)


def same_text(found: str | None, expected: str) -> bool:
    """Whether two texts are the same, white space around them and composition of letters aside."""
    if found is None or not expected.strip():
        return False
    return unicodedata.normalize("NFC", found).strip() == unicodedata.normalize("NFC", expected).strip()


def verify(response: str, answer: str) -> types.Outcome:
    """For callers that have texts, not cases."""
    from ratchet_trainer.algorithm import types  # not above: workers must not import JAX

    score = float(same_text(response, answer))
    return types.Outcome(accuracy=score, score=score)
