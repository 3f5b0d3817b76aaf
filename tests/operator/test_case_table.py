"""The tables of cases: none of the cases is missing, and every test that they name is there."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TABLES = ("cases.yaml", "cases_of_trials.yaml")
KEYS = {"id", "source", "case", "expected"}
IDS = [
    f"{kind}{number:0{digits}}"
    for kind, count, digits in (("F", 30, 2), ("I", 10, 1), ("O", 24, 2), ("T", 19, 2))
    for number in range(1, count + 1)
]
CASES = [case for name in TABLES for case in yaml.safe_load(Path(__file__).with_name(name).read_text())]


def test_every_case_is_in_a_table_once():
    assert [case["id"] for case in CASES] == IDS


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_a_case_has_its_tests_or_says_why_not(case):
    assert set(case) - {"tests", "open"} == KEYS
    assert case.get("tests") or case.get("open"), "it names neither a test nor why there is none"
    missing = [test for test in case.get("tests", ()) if not there(test)]
    assert missing == [], "no such test, or no such parameter of it"


@pytest.mark.parametrize(
    "test",
    [
        "tests/operator/test_case_table.py::test_that_nobody_wrote",
        "tests/operator/no_such_file.py::test_x",
        "tests/operator/test_case_table.py::test_a_name_that_is_wrong_is_found[no such parameter]",
    ],
)
def test_a_name_that_is_wrong_is_found(test):
    assert not there(test)


def there(test: str) -> bool:
    """Whether `path::name` is a test, and `path::name[parameter]` one whose file has that parameter as a text or, where
    parameters are joined by `-`, has the parts."""
    path, _, name = test.partition("::")
    name, _, parameter = name.removesuffix("]").partition("[")
    if not (ROOT / path).is_file():
        return False
    names, texts = _read(path)
    return name in names and (not parameter or parameter in texts or set(parameter.split("-")) <= texts)


@cache
def _read(path: str) -> tuple[frozenset[str], frozenset[str]]:
    """The tests of a file, and all texts in it."""
    nodes = list(ast.walk(ast.parse((ROOT / path).read_text())))
    functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return frozenset(name for name in functions if name.startswith("test_")), frozenset(texts)
