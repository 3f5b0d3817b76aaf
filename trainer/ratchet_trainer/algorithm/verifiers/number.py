"""The verifier `number`: the answer is right if it is the same number as the expected one. Pure, inline.

Decides what is read as a number, and reads it exactly, as a fraction of whole numbers: `5`, `5.0`, `05`, `+5`,
`1,000`, `$5`, `1/2`, `50%` (which is 1/2, not 50), `1e3`, a typographic minus, `\\frac{1}{2}`, and one trailing dot.
What costs more than a fixed amount of work (more than 400 digits, an exponent beyond 400) is no number; there is no
clock in it.
"""

from __future__ import annotations

import re
from fractions import Fraction

from ratchet_trainer.algorithm.outcome import Case, Outcome, graded, unparsable
from ratchet_trainer.algorithm.verifiers.extract import MINUS, extract, last_number
from ratchet_trainer.algorithm.verifiers.spec import VerifierSpec

VERSION = "1"
DIGITS_MAX = 400
EXPONENT_MAX = 400

_DECIMAL = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)[$\u20ac\u00a3]?(?P<sign2>[-+]?)(?P<whole>{_DECIMAL})(?:[eE](?P<exponent>[-+]?[0-9]{{1,4}}))?"
    r"(?:/(?P<below>[0-9]+))?(?P<percent>%?)"
)
_FRACTION = re.compile(r"([-+]?)\\[dt]?frac\{([-+]?[0-9]+)\}\{([0-9]+)\}")


def verify(spec: VerifierSpec, case: Case) -> Outcome:
    found = extract(spec.extraction, case.response)
    if found is None:
        return unparsable(None)
    given, expected = number(found), number(str(case.item["answer"]))
    if given is None or expected is None:
        return unparsable(found)
    return graded(float(given == expected), found)


def number(text: str) -> Fraction | None:
    """The number that a text is, exactly, or None for a text that is not one number."""
    text = text.strip().strip("$").strip() if text.strip().startswith("$") else text.strip()
    text = re.sub(rf"[{MINUS}]", "-", text).replace("\\%", "%").replace("\\$", "$")
    text = text.removesuffix(".").replace(" /", "/").replace("/ ", "/").replace("- ", "-", 1)
    if len(text) > 2 * DIGITS_MAX or sum(c.isdigit() for c in text) > DIGITS_MAX:
        return None
    if match := _FRACTION.fullmatch(text):
        below = int(match[3])
        return Fraction(int(match[2]) * (-1 if match[1] == "-" else 1), below) if below else None
    match = _NUMBER.fullmatch(text)
    if not match or (match["sign"] and match["sign2"]):
        return None
    exponent = int(match["exponent"] or 0)
    if abs(exponent) > EXPONENT_MAX:
        return None
    value = Fraction(match["whole"].replace(",", "").removesuffix(".")) * Fraction(10) ** exponent
    if match["below"] is not None:
        below = int(match["below"])
        if not below:
            return None
        value /= below
    if match["percent"]:
        value /= 100
    return -value if "-" in (match["sign"], match["sign2"]) else value


def number_in(text: str) -> Fraction | None:
    """The last number in a text, or None."""
    found = last_number(text)
    return None if found is None else number(found)
