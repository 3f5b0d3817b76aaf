"""The file that a curate stage leaves: which items of a data set it kept, beside the checkpoints.

Decides where it lies and what a line is. `datasets/STAGE/items.jsonl` has one kept item a line, in the order of the
items: its number in the data set that was looked through, question and answer for whoever reads it, the share of right
responses, and the hints that were made for it. Numbers and hints alone are read again. A file is whole
or not there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ratchet_trainer import storage
from ratchet_trainer.data.hints import HINTS
from ratchet_trainer.data.item import Item
from ratchet_trainer.data.items import Source
from ratchet_trainer.data.lengths import Kept
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.storage import Location, with_retries

FOLDER, ITEMS, REPORT = "datasets", "items.jsonl", "report.json"


def folder_of(directory: Location, stage: str) -> Location:
    """Where a stage leaves what it made. `directory`: of the checkpoints."""
    return directory / FOLDER / stage


def lines_of(
    source: Source, numbers: Iterable[int], rates: Iterable[float], hints: Callable[[Item], list[str]] | None = None
) -> bytes:
    """The file of the items with these numbers, whose shares of right responses are `rates`. `hints`: makes those of an
    item; None makes none."""
    lines = []
    for number, rate in zip(numbers, rates, strict=True):
        item = source.item(number)
        asked = item.question if item.messages is None else [dict(message) for message in item.messages]
        line: dict[str, Any] = {"item": number, "question": asked, "answer": item.answer, "passRate": repr(rate)}
        if hints is not None:
            line[HINTS] = [made] if (made := hints(item)) else []
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines).encode("utf-8", "surrogatepass")


def write(folder: Location, items: bytes, report: Mapping[str, Any]) -> None:
    """Both files, durable on return. Raises StorageUnavailable."""
    for name, content in ((REPORT, (json.dumps(report, indent=2) + "\n").encode()), (ITEMS, items)):
        with_retries(f"curated data set {folder}", partial(storage.write, folder / name, content))


def kept_of(source: Source, name: str, folder: Location | Path, digest: str | None) -> Kept:
    """The items of `source` that a stage kept, as the data set `name`. `digest`: SHA-256 of the file that the stage
    wrote, None where it is not over. Raises ConfigurationInvalid for a file that is not that one."""
    folder = Location.parse(folder)
    path = folder / ITEMS
    if digest is None:
        raise ConfigurationInvalid(
            f"data set {name}: stage {folder.name} has not made it yet; use it in a stage after that one"
        )
    content = with_retries(f"data set {name}: reading {path}", lambda: storage.read(path))
    if content is None:
        raise ConfigurationInvalid(
            f"data set {name}: {path}: {os.strerror(errno.ENOENT)}; put back the file that stage {folder.name} wrote, "
            f"whose SHA-256 is {digest}"
        )
    if (found := hashlib.sha256(content).hexdigest()) != digest:
        raise ConfigurationInvalid(
            f"data set {name}: {path} is not the file that stage {folder.name} wrote: its SHA-256 is {found}, not "
            f"{digest}; put that one back, or give what you changed a name of its own, as jsonl"
        )
    return Curated(source, name, [json.loads(line) for line in content.splitlines()], digest)


class Curated(Kept):
    """Items that a stage kept, with the hints that it made. `lines`: of its file, whose SHA-256 is `digest`."""

    def __init__(self, source: Source, name: str, lines: Sequence[Mapping[str, Any]], digest: str):
        super().__init__(source, np.array([line["item"] for line in lines], np.int64))
        self.name, self.digest = name, hashlib.sha256(f"{source.digest}/curated/{digest}".encode()).hexdigest()
        self._hints = [line.get(HINTS) for line in lines]

    def item(self, index: int) -> Item:
        item, hints = super().item(index), self._hints[index]
        return item if hints is None else replace(item, fields={**item.fields, HINTS: hints})
