"""Ways in which an answer can equal the expected one, for tasks of reasoning-gym: text in, yes or no out.

Decides nothing about tasks (`reasoning_gym_tasks` does). Each takes the whole answer and is strict about what stands
around it: a right answer in a heap of others is a wrong one. All are pure, linear and read nothing but the texts.
"""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections.abc import Callable
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any

from ratchet_trainer.algorithm.verifiers.number import number

TEXT_MAX = 20_000
"""Longest answer that is read at all."""
SHORT = 1000
"""Longest answer that is a fraction or a product: their patterns look at white space more than once."""


def text(found: str, expected: str) -> bool:
    """The same characters, in composed form and trimmed."""
    return unicodedata.normalize("NFC", found).strip() == unicodedata.normalize("NFC", expected).strip()


def fold(found: str, expected: str) -> bool:
    """The same words, whatever their case, white space and one dot at the end."""
    return _folded(found) == _folded(expected)


def grid(found: str, expected: str) -> bool:
    """The same words in the same lines, whatever the white space."""
    return _rows(found) == _rows(expected)


def commas(found: str, expected: str) -> bool:
    """The same words between commas, in the same order and case."""
    return [word.strip() for word in found.split(",")] == [word.strip() for word in expected.split(",")]


def numbers(found: str, expected: str) -> bool:
    """The same numbers between commas, in any order."""
    return _numbers(found) is not None and _numbers(found) == _numbers(expected)


def number_grid(found: str, expected: str) -> bool:
    """Equal numbers in the same lines."""
    given, wanted = _rows(found), _rows(expected)
    if [len(row) for row in given] != [len(row) for row in wanted]:
        return False
    pairs = [(number(a), number(b)) for x, y in zip(given, wanted, strict=True) for a, b in zip(x, y, strict=True)]
    return all(a is not None and a == b for a, b in pairs)


def near(found: str, expected: str) -> bool:
    """Equal to a ten-thousandth, and to a thousandth of the number, for answers that are rounded somewhere."""
    given, wanted = number(found), number(expected)
    if given is None or wanted is None:
        return False
    return abs(given - wanted) <= min(Fraction(1, 10_000), abs(wanted) / 1000)


def three_figures(found: str, expected: str) -> bool:
    """Equal when both are rounded to three significant figures."""
    given, wanted = number(found), number(expected)
    return given is not None and wanted is not None and _figures(given) == _figures(wanted)


def fraction(found: str, expected: str) -> bool:
    """The same numerator and denominator, as a/b or \\frac{a}{b}: a fraction that is not reduced is another one."""
    given, wanted = _fraction(found), _fraction(expected)
    return given is not None and given == wanted


def factors(found: str, expected: str) -> bool:
    """The same factors in any order, with a sign of multiplication between them."""
    return _factors(found) is not None and _factors(found) == _factors(expected)


def json_value(found: str, expected: str) -> bool:
    """The same JSON value, whatever its white space; 1 and 1.0 are equal, 1 and true are not."""
    given, wanted = _json(found), _json(expected)
    return given is not None and wanted is not None and _same_json(given[0], wanted[0])


def number_list(found: str, expected: str) -> bool:
    """A list in brackets of equal numbers in the same order, quoted or not."""
    given, wanted = _json(found.replace("'", '"')), _json(expected.replace("'", '"'))
    if given is None or wanted is None or not isinstance(given[0], list) or not isinstance(wanted[0], list):
        return False
    pairs = [[number(str(value)) for value in values] for values in (given[0], wanted[0])]
    return None not in pairs[0] and pairs[0] == pairs[1]


def arithmetic(answer: str) -> tuple[Fraction, list[int]] | None:
    """Value and whole numbers of an expression of + - * / and brackets; None for anything else or a division by 0."""
    if len(answer) > 300 or not re.fullmatch(r"[0-9+\-*/() \t]+", answer) or "//" in answer or "**" in answer:
        return None
    used: list[int] = []

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            used.append(node.value)
            return Fraction(node.value)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            return -value(node.operand) if isinstance(node.op, ast.USub) else value(node.operand)
        if isinstance(node, ast.BinOp):
            left, right = value(node.left), value(node.right)
            if isinstance(node.op, ast.Add | ast.Sub):
                return left + right if isinstance(node.op, ast.Add) else left - right
            if isinstance(node.op, ast.Mult | ast.Div):
                return left * right if isinstance(node.op, ast.Mult) else left / right
        raise ValueError

    try:
        return value(ast.parse(answer.strip(), mode="eval").body), used
    except (ValueError, SyntaxError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _folded(value: str) -> str:
    return " ".join(unicodedata.normalize("NFC", value).casefold().split()).removesuffix(".")


def _rows(value: str) -> list[list[str]]:
    return [line.split() for line in value.strip().splitlines()]


def _numbers(value: str) -> list[Fraction] | None:
    values = [number(part) for part in re.split(r",\s|,(?=-)|\n", value.strip())]
    return None if None in values else sorted(v for v in values if v is not None)


def _figures(value: Fraction) -> Decimal:
    context = Context(prec=3)
    return context.divide(Decimal(value.numerator), Decimal(value.denominator))


def _fraction(value: str) -> tuple[int, int] | None:
    if len(value) > SHORT:
        return None
    found = re.fullmatch(
        r"\$*\s*\(?\s*(?:(-?\d{1,100})\s*/\s*(\d{1,100})|(-?)\\[dt]?frac\{(-?\d{1,100})\}\{(\d{1,100})\})\s*\)?\s*\$*\.?",
        value.strip(),
    )
    if not found:
        return None
    if found[1] is not None:
        return int(found[1]), int(found[2])
    return int(found[4]) * (-1 if found[3] else 1), int(found[5])


def _factors(value: str) -> list[int] | None:
    if len(value) > SHORT:
        return None
    parts = re.split(
        r"\s*(?:×|\*|·|\\times|\\cdot|(?<=\d)\s*x(?=\s*\d))\s*", value.strip().strip("$").removesuffix(".")
    )
    if not all(re.fullmatch(r"\d{1,100}", part) for part in parts):
        return None
    return sorted(int(part) for part in parts)


def _json(value: str) -> tuple[Any] | None:
    try:
        return (json.loads(value),)
    except (ValueError, RecursionError):
        return None


def _same_json(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same_json(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same_json(x, y) for x, y in zip(a, b, strict=True))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


COMPARISONS: dict[str, Callable[[str, str], bool]] = {
    "text": text,
    "fold": fold,
    "grid": grid,
    "commas": commas,
    "numbers": numbers,
    "number grid": number_grid,
    "near": near,
    "three figures": three_figures,
    "fraction": fraction,
    "factors": factors,
    "json": json_value,
    "number list": number_list,
}
