"""How long questions and answers are, in characters, as far as a file or a task tells: from its first items."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ratchet_cli.init.answers import SUMS, Data, Unfit

ITEMS = 200
SUMS_LENGTHS = (33, 3)
"""Of the sums that the built-in model learns within minutes: question and answer, in tokens of that model."""


def longest(data: Data, question: str, answer: str) -> tuple[int, int] | None:
    """(question, answer), or None where nothing can be told from here. Raises Unfit for a file without these keys."""
    if data.task == SUMS:
        return SUMS_LENGTHS
    if data.task is not None:
        return _of(_generated(data.task))
    if data.file is None or "://" in data.file:
        return None
    rows = _lines(data.file) if data.source == "jsonl" else _table(data.file)
    return _of((_text(row, question, data.file), _text(row, answer, data.file)) for row in rows)


def _of(pairs: Iterator[tuple[str, str]]) -> tuple[int, int] | None:
    found = [(len(question), len(answer)) for question, answer in islice(pairs, ITEMS)]
    return (max(q for q, _ in found), max(a for _, a in found)) if found else None


def _generated(task: str) -> Iterator[tuple[str, str]]:
    import reasoning_gym

    for item in reasoning_gym.create_dataset(task, size=ITEMS, seed=0):
        yield str(item["question"]), str(item["answer"])


def _lines(file: str) -> Iterator[Any]:
    try:
        with open(file, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    try:
                        yield json.loads(line)
                    except ValueError:
                        raise Unfit(f"{file}:{number}: not JSON; each line is one object") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Unfit(f"{file}: cannot be read: {error}") from None


def _table(file: str) -> Iterator[Any]:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(Path(file)) as table:
            for batch in table.iter_batches(ITEMS):
                yield from batch.to_pylist()
    except (OSError, arrow.ArrowException) as error:
        raise Unfit(f"{file}: cannot be read: {error}") from None


def _text(row: Any, key: str, file: str) -> str:
    value = row
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            there = ", ".join(map(str, row)) if isinstance(row, dict) else "no keys"
            raise Unfit(f"{file}: an item has no key {key}; it has {there}. Name them with --question and --answer")
        value = value[part]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
