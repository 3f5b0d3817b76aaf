"""The sources `jsonl`, `parquet` and `huggingFace`: items of files, each read when it is asked for.

Decides that a file is looked through whole before anything is trained, that all of its bad rows are named at once, and
what of that is remembered for the next attempt: where rows are, a hash of every question, and the digest.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ratchet_api.canonical import sha256
from ratchet_api.datasets import Columns, HuggingFace, Jsonl, Parquet
from ratchet_trainer.data import held_out, jsonl, tables
from ratchet_trainer.data.columns import Refused, item_of
from ratchet_trainer.data.faults import Faults
from ratchet_trainer.data.hub_folder import files_of
from ratchet_trainer.data.item import Item, with_system
from ratchet_trainer.data.remembered import Remembered, fingerprint, key_of
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.storage import with_retries
from ratchet_trainer.storage.local_copy import local_copy

log = logging.getLogger(__name__)

VERSION = 1
"""Of what is remembered; another one is looked up again."""
ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


class Rows(Protocol):
    """Numbered objects of a file."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Any: ...
    def row(self, index: int) -> dict[str, Any]: ...
    def place(self, index: int) -> str: ...


class FileItems:
    """Items are numbered in the order of the file, or of the files of a folder by name."""

    held = True
    """Reading an item costs microseconds."""

    def __init__(
        self,
        name: str,
        spec: Jsonl | Parquet | HuggingFace,
        system: str | None = None,
        remembered: Remembered | None = None,
        answers: bool = True,
    ):
        """`answers`: whether items need one. Raises ConfigurationInvalid for a file that is not there or not ours to
        read, that is malformed (every bad row is named) or has no items; StorageUnavailable if reading it fails
        otherwise."""
        self.name, self._spec, self._system, self._answers = name, spec, system, answers
        self._what = f"data set {name}: reading {spec.path}"
        self._rows, digest, self.asked, self.duplicates = self._kept(lambda: self._read(remembered or Remembered(None)))
        self.size = len(self._rows)
        self.digest = digest if system is None else sha256({"digest": digest, "system": system})
        if self.duplicates:
            log.warning(
                "data set %s: %d of %d items ask what another item asks too; each counts as an item of its own",
                name, self.duplicates, self.size,
            )  # fmt: skip

    def item(self, index: int) -> Item:
        """Raises ConfigurationInvalid for a file that changed since, StorageUnavailable."""
        try:
            return with_system(
                item_of(self._kept(lambda: self._rows.row(index)), self._spec, self._answers), self._system
            )
        except Refused as refused:  # it was looked through, so it is another file now
            raise ConfigurationInvalid(f"data set {self.name}: {self.place(index)}: {refused}") from None

    def place(self, index: int) -> str:
        """Where an item is, for people."""
        return str(self._rows.place(index))

    def held_out(self, count: int, training: Iterable[Any]) -> tuple[list[tuple[int, Item]], int]:
        """At most `count` items with different questions that occur in no training set, with their numbers, and how
        many items were left out for occurring twice or there. Raises ConfigurationInvalid if none is left."""
        kept, left_out = held_out.of_file(self, training)
        return [(int(i), self.item(int(i))) for i in kept[:count]], left_out

    def _kept(self, operation: Any) -> Any:
        """What an operation on the storage returns, tried again where the storage fails."""

        def tried() -> Any:
            try:
                return operation()
            except ABSENT as error:
                raise ConfigurationInvalid(
                    f"data set {self.name}: {error.filename or self._spec.path}: {error.strerror}; the path of a data "
                    f"set is as the trainer's pods see it (claimName mounts it)"
                ) from error

        return with_retries(self._what, tried)

    def _read(self, remembered: Remembered) -> tuple[Rows, str, np.ndarray, int]:
        """The rows, the digest of everything, a hash of what each item asks, and how many ask what one before asks."""
        spec, columns = self._spec, _identity(self._spec)
        path = local_copy(spec.path, f"data set {self.name}")
        files = files_of(path, spec.split) if isinstance(spec, HuggingFace) else [path]
        if not files:
            raise ConfigurationInvalid(f"data set {self.name}: {path} has no files")
        lines = isinstance(spec, Jsonl) or (isinstance(spec, HuggingFace) and files[0].suffix in (".jsonl", ".ndjson"))
        key = key_of("file", VERSION, columns.decode(), self._answers, lines, [fingerprint(file) for file in files])
        found = remembered.find(key, "ends", "digest", "asked", "duplicates")
        if found is not None:
            rows = self._opened(files, found["ends"], lines)
            return rows, str(found["digest"]), found["asked"], int(found["duplicates"])
        if lines:
            scanned = [jsonl.scan(file, columns) for file in files]
            ends = np.concatenate([np.insert(e, 0, i, axis=1) for i, (e, _) in enumerate(scanned)])
            digest = scanned[0][1] if isinstance(spec, Jsonl) else sha256([digest for _, digest in scanned])
        else:
            ends, digest = np.empty((0, 4), np.int64), tables.digest_of(files, columns)
        rows = self._opened(files, ends, lines)
        asked = self._looked_through(rows, path, lines)
        duplicates = len(asked) - len(np.unique(asked))
        remembered.keep(
            key, {"ends": ends, "digest": np.array(digest), "asked": asked, "duplicates": np.array(duplicates)}
        )
        return rows, digest, asked, duplicates

    @staticmethod
    def _opened(files: list[Path], ends: np.ndarray, lines: bool) -> Rows:
        if not lines:
            return tables.TableRows(files)
        parts = [jsonl.JsonlRows(file, ends[ends[:, 0] == i, 1:]) for i, file in enumerate(files)]
        return parts[0] if len(parts) == 1 else _Joined(parts)

    def _looked_through(self, rows: Rows, path: Path, lines: bool) -> np.ndarray:
        """A hash of what each item asks, uint64[n]. Raises ConfigurationInvalid that names the rows that are none."""
        faults = Faults()
        asked = np.empty(len(rows), np.uint64)
        for index, row in enumerate(rows):
            try:
                if isinstance(row, Refused):
                    raise row
                asked[index] = item_of(row, self._spec, self._answers).asked_hash
            except Refused as refused:
                faults.add(rows.place(index), str(refused))
        if faults:
            raise ConfigurationInvalid(f"data set {self.name}: {faults.said(len(rows), 'items cannot be used')}")
        if not len(rows):
            raise ConfigurationInvalid(
                f"data set {self.name}: {path} has no items; give it {'one JSON object a line' if lines else 'rows'}"
            )
        return asked


class _Joined:
    """Rows of several files, one after the other."""

    def __init__(self, parts: list[jsonl.JsonlRows]):
        self._parts = parts

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum([len(part) for part in self._parts])])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __iter__(self) -> Any:
        for part in self._parts:
            yield from part

    def _found(self, index: int) -> tuple[jsonl.JsonlRows, int]:
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._parts[part], index - int(self._starts[part])

    def row(self, index: int) -> dict[str, Any]:
        part, at = self._found(index)
        return part.row(at)

    def place(self, index: int) -> str:
        part, at = self._found(index)
        return part.place(at)


def _identity(columns: Columns) -> bytes:
    """What of the manifest decides what rows mean. Without messages as in the first version, so that a checkpoint of
    its goes on."""
    found = f"{columns.question}\0{columns.answer}\0"
    found += "" if columns.messages is None else f"{columns.messages}\0messages\0"
    return (found if columns.hints is None else f"{found}{columns.hints}\0hints\0").encode()
