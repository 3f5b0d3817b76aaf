"""Rows of a file with one JSON object a line, read one at a time.

Decides where a line begins and ends, and what is no JSON Lines file at all. What a row means is in `columns`.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ratchet_trainer.data.columns import Refused, WrittenFloat
from ratchet_trainer.data.lfs import refuse_pointer
from ratchet_trainer.errors import ConfigurationInvalid

LONGEST = 64 << 20
"""Bytes of a line; a longer one is not read."""
MARK = b"\xef\xbb\xbf"
"""A byte order mark of UTF-8, which some editors and spreadsheets write. It is skipped."""
OTHERS = (
    # how a file begins, what it is, and the way out
    (b"\xff\xfe", "UTF-16", "convert it: iconv -f UTF-16 -t UTF-8 {0} > utf8.jsonl"),
    (b"\xfe\xff", "UTF-16", "convert it: iconv -f UTF-16 -t UTF-8 {0} > utf8.jsonl"),
    (b"{\0", "UTF-16 without a mark", "convert it: iconv -f UTF-16LE -t UTF-8 {0} > utf8.jsonl"),
    (b"\0{", "UTF-16 without a mark", "convert it: iconv -f UTF-16BE -t UTF-8 {0} > utf8.jsonl"),
    (b"\x1f\x8b", "compressed by gzip", "unpack it: gunzip {0}"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it: zstd -d {0}"),
    (b"PAR1", "Parquet", "name it under parquet instead of jsonl"),
)


class JsonlRows:
    """The rows of one file, numbered in file order; blank lines are none. `ends` int64[n, 3]: first byte, byte after
    the last, and line number of each row, as `scan` found them."""

    def __init__(self, path: Path, ends: np.ndarray):
        """Raises OSError."""
        self.path, self._ends = path, ends
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._changed = _change_of(self._file)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def __len__(self) -> int:
        return len(self._ends)

    def place(self, index: int) -> str:
        """Where a row is, for people."""
        return f"{self.path}:{self._ends[index, 2]}"

    def row(self, index: int) -> dict[str, Any]:
        """Raises Refused for a line that is no JSON object, ConfigurationInvalid if the file changed, OSError."""
        start, end, _ = map(int, self._ends[index])
        line = os.pread(self._file, end - start, start)
        while len(line) < end - start and (more := os.pread(self._file, end - start - len(line), start + len(line))):
            line += more
        if _change_of(self._file) != self._changed:
            raise ConfigurationInvalid(
                f"{self.path}: was written to while a run reads it; put changed data into another file and name it as "
                "a data set of its own"
            )
        return parsed(line)

    def __iter__(self) -> Iterator[dict[str, Any] | Refused]:
        """All rows in order; in the place of one that cannot be read, why."""
        with open(self.path, "rb", buffering=1 << 20) as file:
            at = 0
            for start, end, _ in (row for part in np.array_split(self._ends, 64) for row in part.tolist()):
                if start != at:
                    file.seek(start)
                line, at = file.read(end - start), end
                try:
                    yield parsed(line)
                except Refused as refused:
                    yield refused


def scan(path: Path, identity: bytes) -> tuple[np.ndarray, str]:
    """Where the rows of a file are (see `JsonlRows`), and the SHA-256 of `identity` and its content.

    Raises ConfigurationInvalid for a file that is no JSON Lines, OSError.
    """
    refuse_pointer(path)
    digest, found = hashlib.sha256(identity), array("q")
    with open(path, "rb", buffering=1 << 20) as file:
        head = file.read(4)
        for begin, what, way in OTHERS:
            if head.startswith(begin):
                raise ConfigurationInvalid(f"{path}: is {what}, not JSON Lines in UTF-8; {way.format(path.name)}")
        at = len(MARK) if head.startswith(MARK) else 0
        file.seek(0)
        digest.update(file.read(at))
        number = 0
        while line := file.readline(LONGEST + 1):
            digest.update(line)
            if len(line) > LONGEST:
                raise ConfigurationInvalid(
                    f"{path}:{number + 1}: longer than {LONGEST >> 20} MiB; is it one object a line? a JSON array "
                    f"becomes lines by: jq -c '.[]' {path.name}"
                )
            parts = line.splitlines(keepends=True) if b"\r" in line else (line,)
            for part in parts:
                number += 1
                if text := part.strip():
                    if not found and text in (b"[", b"[{") and number == 1:
                        raise ConfigurationInvalid(
                            f"{path}: is a JSON array, not one object a line; make lines of it: jq -c '.[]' {path.name}"
                        )
                    found.extend((at, at + len(part), number))
                at += len(part)
    return np.array(found, np.int64).reshape(-1, 3), digest.hexdigest()


def parsed(line: bytes) -> dict[str, Any]:
    """The object of a line. Raises Refused."""
    try:
        data = json.loads(line.decode(), parse_float=WrittenFloat)
    except UnicodeDecodeError as error:
        raise Refused(f"not UTF-8: {error.reason} at byte {error.start}; write the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise Refused(f"not JSON: {error}") from None
    if not isinstance(data, dict):
        raise Refused(f"a JSON object is needed, this is {type(data).__name__}")
    return data


def _change_of(file: int) -> tuple[int, int]:
    status = os.fstat(file)
    return status.st_size, status.st_mtime_ns
