"""Every error text of the product, with the place that says it: read from the code, so that none is forgotten.

Decides what an error text is: what an exception is made with, what a command says when it fails, what is wrong in a
manifest, and what the API server refuses. Exceptions that only a programmer's mistake leads to are left out.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from text_patterns import HOLE, Code, Function, Module, Reader, own_nodes

PACKAGES = ("crds", "operator", "trainer", "cli", "cluster")

MISTAKES = {
    # made where code contradicts itself, never by what a user does
    "AssertionError",
    "NotImplementedError",
    "KeyError",
    "IndexError",
    "TypeError",
    "StopIteration",
    "SystemExit",
    "Drain",
    "BudgetSpent",
}
SPEAKERS = {
    # function that says an error -> which of its arguments are texts
    "fail": slice(1, None),
    "Problem": slice(1, 2),
    "refuse": slice(0, 1),
    "Rule": slice(1, 2),
}
MENDED = {"error": slice(1, 3), "warning": slice(1, 3)}
"""Those of `ratchet_operator.checks.finding`: what is wrong, and what mends it."""
FOUND = "Found"
"""Annotation of functions in `ratchet_api` that yield a path and a message."""


@dataclass(frozen=True, order=True)
class Said:
    """One error text and who says it."""

    text: str
    module: str
    kind: str
    """The exception's name, or the function's that says it."""
    line: int


def error_texts(root: Path) -> list[Said]:
    """All of them, sorted by text; one entry for each text and module."""
    code = Code.read(root / package for package in PACKAGES)
    exceptions = _exceptions(code)
    found: dict[tuple[str, str], Said] = {}
    for module in code.modules.values():
        for said in _of_module(code, module, exceptions):
            found.setdefault((said.text, said.module), said)
    return sorted([*found.values(), *_of_chart(root)])


def _exceptions(code: Code) -> set[str]:
    """Names of exception classes: Python's own, click's and the product's."""
    bases = {
        node.name: {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        for module in code.modules.values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
    }
    known = {"Exception", "ValueError", "RuntimeError", "OSError", "FileNotFoundError", "FileExistsError"}
    known |= {"TimeoutError", "PermissionError", "ConnectionError", "NotADirectoryError", "IsADirectoryError"}
    known |= {"ClickException", "UsageError", "BadParameter"}
    grown = True
    while grown:
        more = {name for name, above in bases.items() if above & known} - known
        grown, known = bool(more), known | more
    return known - MISTAKES


def _of_module(code: Code, module: Module, exceptions: set[str]) -> Iterator[Said]:
    for function in [None, *(n for n in ast.walk(module.tree) if isinstance(n, Function))]:
        reader = Reader(code, module, function)
        for node in own_nodes(function or module.tree):
            kind = ""
            texts: list[str] = []
            if isinstance(node, ast.Call):
                kind = ast.unparse(node.func).rpartition(".")[2]
                texts = _of_call(node, kind, reader, exceptions)
            elif isinstance(node, ast.Dict) and module.name.startswith("ratchet_api"):
                kind, texts = "Rule", _of_rule(node, reader)
            elif isinstance(node, ast.Yield) and function is not None and _yields_found(module, function):
                kind, texts = "Problem", _of_pair(node.value, reader)
            for text in texts:
                if is_text(text):
                    yield Said(_one_line(text), module.name, kind, getattr(node, "lineno", 0))


def _of_call(node: ast.Call, kind: str, reader: Reader, exceptions: set[str]) -> list[str]:
    texts = [reader.texts(argument) for argument in node.args if not isinstance(argument, ast.Starred)]
    named = {word.arg: reader.texts(word.value) for word in node.keywords}
    if kind in exceptions:
        ways = [each for each in texts if any(map(is_text, each))] or [[""]]
        return max(ways, key=lambda each: max(map(len, each)))  # others are fields, codes and places
    if kind in SPEAKERS:
        return [text for each in texts[SPEAKERS[kind]] for text in each] + named.get("message", [])
    if kind in MENDED and reader.module.name.startswith("ratchet_operator.checks"):
        wrong, mend = (*texts[MENDED[kind]], [HOLE], [HOLE])[:2]
        return [f"{one}; {other}" for one in wrong for other in mend]
    return []


def _of_rule(node: ast.Dict, reader: Reader) -> list[str]:
    keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
    return reader.texts(node.values[keys.index("message")]) if {"rule", "message"} <= set(keys) else []


def _yields_found(module: Module, function: Function) -> bool:
    said = ast.unparse(function.returns) if function.returns is not None else ""
    return module.name.startswith("ratchet_api") and said in (FOUND, "Iterator[tuple[str, str]]")


def _of_pair(value: ast.expr | None, reader: Reader) -> list[str]:
    return reader.texts(value.elts[1]) if isinstance(value, ast.Tuple) and len(value.elts) == 2 else []


def _of_chart(root: Path) -> Iterator[Said]:
    """What templates of the chart say with `fail`."""
    for file in sorted((root / "helm").rglob("templates/**/*")):
        if file.suffix not in (".yaml", ".tpl", ".txt"):
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            for found in re.finditer(r'\bfail (?:\(printf )?"((?:[^"\\]|\\.)*)"', line):
                text = re.sub(r"%[a-z]", HOLE, found[1].replace('\\"', '"'))
                yield Said(_one_line(text), "chart", "fail", number)


def is_text(text: str) -> bool:
    """Whether a text has words of its own, so that a reader could look for it."""
    return " " in text and len(re.findall(r"[A-Za-z]{2,}", text)) >= 2


def _one_line(text: str) -> str:
    joined = re.sub(rf"{HOLE}(?:{HOLE})+", HOLE, " ".join(text.split()))
    return joined.strip()


if __name__ == "__main__":
    for said in error_texts(Path(__file__).parents[1]):
        print(f"{said.module}:{said.line} {said.kind}: {said.text}")
