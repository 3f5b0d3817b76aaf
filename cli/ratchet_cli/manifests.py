"""Reading manifests for the commands: files and standard input, with errors that name the place.

Exit codes follow sysexits: 65 for wrong data, 66 for a file that cannot be read.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ratchet_api.job import KIND, RLTrainingJob
from ratchet_api.validate import Problem, problems
from ratchet_cli.ending import fail as fail
from ratchet_cli.ending import unreadable

MOST_VALUES = 1_000_000
"""Of one document, aliases written out: far more than an accepted spec can have, and soon checked."""


@dataclass(frozen=True)
class Document:
    """One YAML document of a file, as nodes (which know their lines) and as data."""

    file: str
    node: yaml.Node
    data: Any

    def place(self, path: str = "") -> str:
        """`file:line` of the deepest part of a path such as `spec.stages[0].sft` that is there."""
        mark, node = self.node.start_mark, self.node
        for key, index in re.findall(r"([^.\[\]]+)|\[([0-9]+)\]", path):
            if isinstance(node, yaml.MappingNode):
                inside = [pair for pair in node.value if pair[0].value == key]
            elif isinstance(node, yaml.SequenceNode) and index:
                inside = [(entry, entry) for entry in node.value[int(index) : int(index) + 1]]
            else:
                inside = []
            if not inside:
                break
            mark, node = inside[0][0].start_mark, inside[0][1]
        return f"{self.file}:{mark.line + 1}"


def read(file: str) -> list[Document]:
    """The non-empty YAML documents of a file, or of standard input for `-`. Exits with 66 or 65."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fail(os.EX_NOINPUT, f"{file}: cannot be read: {unreadable(error)}; name the file of a manifest")
    try:
        nodes = [node for node in yaml.compose_all(text, Loader=yaml.SafeLoader) if node is not None]
        documents = [data for data in yaml.safe_load_all(text) if data is not None]
        endless = [node for node in nodes if _values(node, {}) > MOST_VALUES]
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        fail(os.EX_DATAERR, _not_yaml(file, text, error))
    except RecursionError:
        fail(os.EX_DATAERR, f"{file}: lists or mappings in it are nested too deeply to be read")
    if endless:
        line = endless[0].start_mark.line + 1
        fail(os.EX_DATAERR, f"{file}:{line}: its aliases stand for over {MOST_VALUES} values; write out what is meant")
    if twice := [line for node in nodes for line in _said_twice(file, node)]:
        fail(os.EX_DATAERR, *twice)
    if not documents:
        fail(os.EX_DATAERR, f"{file}: no manifest in it")
    return [Document(file, node, data) for node, data in zip(nodes, documents, strict=False)]


def _not_yaml(file: str, text: str, error: Exception) -> str:
    """What a parser says, which it does over several lines, in one that begins with the place."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        return f"{file}:{mark.line + 1 if mark else 1}: not YAML: {said}"
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return f"{file}:{line}: not YAML: character {error.character:#x} cannot be in it"
    return f"{file}: not YAML: {error}"


def _values(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values there are once every alias is written out; infinite where one stands inside of what it names.
    `known`: node -> its values."""
    if id(node) not in known:
        known[id(node)] = float("inf")  # as long as it is not known: who meets it now is inside of it
        inside = node.value if isinstance(node, yaml.SequenceNode) else []
        if isinstance(node, yaml.MappingNode):
            inside = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_values(part, known) for part in inside)
    return known[id(node)]


def _said_twice(file: str, root: yaml.Node) -> Iterator[str]:
    """Keys that a mapping has twice: YAML's reader keeps the last one without a word, kubectl takes none."""
    seen, waiting = set(), [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # an alias, perhaps of what it is in
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            first: dict[str, int] = {}
            for key, value in node.value:
                waiting.append(value)
                if not isinstance(key, yaml.ScalarNode):
                    continue
                line = key.start_mark.line + 1
                if key.value in first:
                    yield f"{file}:{line}: {key.value} stands in line {first[key.value]}, too; leave out one of the two"
                first.setdefault(key.value, line)


def read_job(file: str) -> tuple[dict[str, Any], RLTrainingJob]:
    """The one RLTrainingJob of a file: its raw data, and the validated job. Prints what is wrong and exits with 65."""
    documents = [d for d in read(file) if not isinstance(d.data, dict) or d.data.get("kind") == KIND] or read(file)
    if len(documents) > 1:
        fail(os.EX_DATAERR, f"{file}: holds {len(documents)} {KIND}s; put each into a file of its own")
    found = problems(documents[0].data)
    if found:
        fail(os.EX_DATAERR, *describe(documents[0], found))
    job = RLTrainingJob.model_validate({"spec": documents[0].data["spec"]})
    return documents[0].data, job


def describe(document: Document, found: list[Problem]) -> list[str]:
    """The problems of one document as lines."""
    return [f"{document.place(problem.path)}: {problem}" for problem in found]
