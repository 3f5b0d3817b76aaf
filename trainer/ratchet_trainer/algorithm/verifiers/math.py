r"""The verifier `math`: the answer is right if it is mathematically the expected one. Pure; runs in a worker.

Decides what the math-verify library is asked, and what is never given to it. Without `answer` in the manifest the
answer is what the last \boxed{} holds, else the last formula ($...$, \(...\), \[...\]), else the last number. Instead
of a clock there are bounds on the text: length, length of numbers, exponents, factorials, nesting. What breaks them, or
cannot be read, is `unparsable`. The worker's deadline stands behind them for what they overlook.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

from ratchet_trainer.algorithm.outcome import Case, Outcome, graded, unparsable
from ratchet_trainer.algorithm.verifiers.extract import boxed, extract, last_number
from ratchet_trainer.algorithm.verifiers.spec import VerifierSpec

VERSION = "1 math-verify 0.9"
ANSWER_MAX = 500
"""Longest answer that is read, in characters."""
DIGITS_MAX = 60
EXPONENT_DIGITS_MAX = 3
FACTORIAL_MAX = 100
NESTING_MAX = 20

_TOO_MUCH = re.compile(
    rf"[0-9]{{{DIGITS_MAX + 1},}}"
    rf"|(?:\^|\*\*)\s*[{{(]*\s*[-+]?[0-9]{{{EXPONENT_DIGITS_MAX + 1},}}"
    r"|(?:\^|\*\*)\s*(?:[{(][^{}()]*|[0-9A-Za-z]+\s*)(?:\^|\*\*)"  # towers of exponents
    r"|![!\s)}]*!"  # factorials of factorials
    r"|\\(?:sum|prod|int|lim)(?![A-Za-z])"
)
_FORMULA = re.compile(r"\$\$([^$]{1,500})\$\$|\$([^$\n]{1,500})\$|\\\(([^$\n]{1,500}?)\\\)|\\\[([^$]{1,500}?)\\\]")
_FACTORIAL = re.compile(r"([0-9]+)\s*!|\)\s*!|\}\s*!")


def build(spec: VerifierSpec) -> Callable[[Case], Outcome]:
    """The verifier. Imports the library, which takes a second. Raises ImportError without it."""
    import math_verify

    for name in ("math_verify.parser", "math_verify.grader", "latex2sympy2_extended"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # it warns of having no clock: the worker has one
    configs = (math_verify.LatexExtractionConfig(), math_verify.ExprExtractionConfig())

    def read(text: str) -> list[Any]:
        return list(math_verify.parse(text, extraction_config=configs, parsing_timeout=None, raise_on_error=True))

    def verify(case: Case) -> Outcome:
        expected = str(case.item["answer"])
        found = answer_of(spec, case.response)
        if found is None or not bounded(expected) or not bounded(found):
            return unparsable(None if found is None else found[:ANSWER_MAX])
        try:
            gold, given = read(as_math(boxed(expected) or expected)), read(as_math(found))
            if not gold or not given:
                return unparsable(found)
            right = math_verify.verify(gold, given, float_rounding=6, strict=True, timeout_seconds=None)
        except (MemoryError, KeyboardInterrupt):
            raise
        except Exception:  # the library raises whatever its parser and sympy do
            return unparsable(found)
        return graded(float(bool(right)), found)

    return verify


def answer_of(spec: VerifierSpec, response: str) -> str | None:
    """The text that is the answer, or None."""
    if spec.extraction.kind != "auto":
        return extract(spec.extraction, response)
    formulas = [next(filter(None, groups), "").strip() for groups in _FORMULA.findall(response)]
    return boxed(response) or next((text for text in reversed(formulas) if text), None) or last_number(response)


def bounded(text: str) -> bool:
    """Whether reading a text costs a bounded amount of work."""
    if len(text) > ANSWER_MAX or _TOO_MUCH.search(text):
        return False
    if any(match[1] is None or int(match[1]) > FACTORIAL_MAX for match in _FACTORIAL.finditer(text)):
        return False
    depth = deepest = 0
    for character in text:
        depth += (character in "({[") - (character in ")}]")
        deepest = max(deepest, depth)
    return deepest <= NESTING_MAX


def as_math(text: str) -> str:
    """A bare expression as the library wants it: between dollars."""
    return text if "$" in text or "\\(" in text or "\\[" in text else f"${text}$"
