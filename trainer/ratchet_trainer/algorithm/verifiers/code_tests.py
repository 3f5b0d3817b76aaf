"""Unit tests of an item: how they are read, and when what a program said passes them.

Decides what a program gets to know. Where a test compares with something that stands there (`assert f(2) == 4`), the
program gets `f(2)` only and the comparison is made outside, so it cannot claim to be right. Other tests run with the
program, and one that knows how could claim to pass them.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

VALUE_MAX = 64 * 1024
"""Longest text of one value that is read."""


class BadTests(Exception):
    """The item's tests are not as they should be; the message says how."""


@dataclass(frozen=True)
class Test:
    """One test. `setup` runs after the program; then `values` are evaluated, whose literals are `expected`; or, without
    any, the program reads `stdin` and must print `stdout`, or `setup` must pass by itself."""

    setup: str = ""
    values: tuple[str, ...] = ()
    expected: tuple[Any, ...] = ()
    stdin: str | None = None
    stdout: str = ""


def read_tests(tests: Any) -> tuple[Test, ...]:
    """The tests of an item: Python text, a list of such texts, or a list of {input, output}. Raises BadTests."""
    if isinstance(tests, str):
        tests = [tests]
    if not isinstance(tests, Sequence) or not tests:
        raise BadTests("tests are a text, or a list that is not empty")
    return tuple(_read_one(number, test) for number, test in enumerate(tests))


def _read_one(number: int, test: Any) -> Test:
    if isinstance(test, str) and test.strip():
        return _read_text(number, test)
    if isinstance(test, Mapping) and {"input", "output"} <= test.keys():
        if not isinstance(test["input"], str) or not isinstance(test["output"], str):
            raise BadTests(f"test {number}: input and output are texts")
        return Test(stdin=test["input"], stdout=test["output"])
    raise BadTests(f"test {number} is neither a text nor an object with input and output")


def _read_text(number: int, text: str) -> Test:
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise BadTests(f"test {number} is no Python: {error}") from error
    first = next((place for place, node in enumerate(body) if isinstance(node, ast.Assert)), len(body))
    compared = [_compared(node) for node in body[first:]]
    if not compared or None in compared:
        return Test(setup=text)
    pairs = [pair for pair in compared if pair is not None]
    return Test(
        setup="\n".join(ast.unparse(node) for node in body[:first]),
        values=tuple(value for value, _ in pairs),
        expected=tuple(literal for _, literal in pairs),
    )


def _compared(node: ast.stmt) -> tuple[str, Any] | None:
    """Expression and literal of `assert expression == literal`; None for anything else."""
    if not isinstance(node, ast.Assert) or not isinstance(node.test, ast.Compare):
        return None
    test = node.test
    if len(test.ops) != 1 or not isinstance(test.ops[0], ast.Eq | ast.Is):
        return None
    for value, literal in ((test.left, test.comparators[0]), (test.comparators[0], test.left)):
        try:
            return ast.unparse(value), ast.literal_eval(literal)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
    return None


def passes(test: Test, report: Mapping[str, Any]) -> bool:
    """Whether what the runner reports of a program passes a test."""
    if not report["finished"]:
        return False
    if test.stdin is not None:
        return _lines(report["stdout"]) == _lines(test.stdout)
    if not test.values:
        return bool(report["proven"])
    values = report["values"]
    if not isinstance(values, list) or len(values) != len(test.values):
        return False
    return all(_equal(value, expected) for value, expected in zip(values, test.expected, strict=True))


def _equal(text: Any, expected: Any) -> bool:
    if not isinstance(text, str) or len(text) > VALUE_MAX:
        return False
    try:
        return bool(ast.literal_eval(text) == expected)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]
