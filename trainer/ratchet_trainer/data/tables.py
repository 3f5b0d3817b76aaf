"""Rows of Parquet files and of Arrow files, numbered over all files of a data set, read in pieces.

Decides how much of a table is in memory: of Parquet the row groups asked for last, within a bound; Arrow files are
mapped. What a row means is in `columns`.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ratchet_trainer.data.columns import Refused
from ratchet_trainer.data.lfs import refuse_pointer
from ratchet_trainer.errors import ConfigurationInvalid

if TYPE_CHECKING:
    import pyarrow as pa

KEPT = 128 << 20
"""Bytes of decoded row groups that stay in memory."""
OTHER_TYPES = re.compile("binary|decimal|date|time|duration|extension")
"""Types whose values are none of JSON's."""
SLICE = 1024
"""Rows that become Python objects at a time when all are read."""


class TableRows:
    """The rows of tables that lie in pieces. Pieces are read when a row of theirs is asked for."""

    def __init__(self, paths: Sequence[Path]):
        """Raises ConfigurationInvalid for a file that is no such table, OSError."""
        self._pieces: list[tuple[Path, Any, int, int]] = []  # file, reader, number of the piece, first row in the file
        sizes: list[int] = []
        for path in paths:
            refuse_pointer(path)
            reader = _Parquet(path) if path.suffix != ".arrow" else _Arrow(path)
            first = 0
            for number, rows in enumerate(reader.sizes):
                if rows:
                    self._pieces.append((path, reader, number, first))
                    sizes.append(rows)
                first += rows
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self._tables: OrderedDict[int, pa.Table] = OrderedDict()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def place(self, index: int) -> str:
        """Where a row is, for people."""
        piece = self._piece_of(index)
        path, _, _, first = self._pieces[piece]
        return f"{path}, row {first + index - int(self._starts[piece]) + 1}"

    def row(self, index: int) -> dict[str, Any]:
        """Raises Refused for text that is no UTF-8, ConfigurationInvalid for a file that is damaged."""
        piece = self._piece_of(index)
        (row,) = _rows(self._table(piece).slice(index - int(self._starts[piece]), 1))
        if isinstance(row, Refused):
            raise row
        return row

    def __iter__(self) -> Iterator[dict[str, Any] | Refused]:
        """All rows in order; in the place of one that cannot be read, why."""
        for path, reader, number, _ in self._pieces:
            table = _read(path, reader.piece, number)
            for at in range(0, len(table), SLICE):
                yield from _rows(table.slice(at, SLICE))

    def _piece_of(self, index: int) -> int:
        return int(np.searchsorted(self._starts, index, side="right")) - 1

    def _table(self, piece: int) -> pa.Table:
        if piece not in self._tables:
            path, reader, number, _ = self._pieces[piece]
            self._tables[piece] = _read(path, reader.piece, number)
            while len(self._tables) > 1 and sum(t.nbytes for t in self._tables.values()) > KEPT:
                self._tables.popitem(last=False)
        self._tables.move_to_end(piece)
        return self._tables[piece]


def digest_of(paths: Sequence[Path], identity: bytes) -> str:
    """SHA-256 of `identity` and the digests of the files in order. Raises OSError."""
    found = hashlib.sha256(identity)
    for path in paths:
        with open(path, "rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


class _Parquet:
    def __init__(self, path: Path):
        import pyarrow.parquet as pq

        # No thread pool: the row groups are small, and the cores are XLA's.
        self._file = _read(path, pq.ParquetFile)
        metadata = self._file.metadata
        self.sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]

    def piece(self, number: int) -> pa.Table:
        return self._file.read_row_group(number, use_threads=False)


class _Arrow:
    """Of either format, stream (as `save_to_disk` writes it) or file. Mapped, so reading it costs no memory."""

    def __init__(self, path: Path):
        import pyarrow as pa

        def opened(path: Path) -> pa.Table:
            mapped = pa.memory_map(str(path))
            try:
                return pa.ipc.open_stream(mapped).read_all()
            except pa.ArrowInvalid:
                mapped.seek(0)
                return pa.ipc.open_file(mapped).read_all()

        self._table = _read(path, opened)
        self.sizes = [self._table.num_rows]

    def piece(self, number: int) -> pa.Table:
        return self._table


def _read(path: Path, read: Any, *arguments: Any) -> Any:
    """What a reader makes of a file. Raises ConfigurationInvalid for what it cannot read, OSError for the storage."""
    import pyarrow as pa

    try:
        return read(*(arguments or (path,)))
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise ConfigurationInvalid(f"{path}: cannot be read as a table: {str(error).rstrip('.')}") from None
    except OSError as error:
        if error.errno is None:  # Arrow's own, for instance a page that cannot be unpacked
            raise ConfigurationInvalid(f"{path}: is damaged: {str(error).rstrip('.')}; fetch it again") from None
        raise


def _plain(value: Any) -> Any:
    """What JSON can hold of a value: numbers with a fixed point and times as text, bytes not at all."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items() if not isinstance(one, bytes)}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, bytes):
        return None
    known = value is None or isinstance(value, (str, int, float))
    return value if known else value.isoformat() if hasattr(value, "isoformat") else str(value)


def _rows(table: pa.Table) -> list[dict[str, Any] | Refused]:
    try:
        rows = table.to_pylist()
        # Most tables have none of these, and a look at every value takes longer than reading it.
        return [_plain(row) for row in rows] if OTHER_TYPES.search(str(table.schema)) else rows
    except UnicodeDecodeError as error:
        if len(table) == 1:
            return [Refused(f"not UTF-8: {error.reason} at byte {error.start}")]
        return [row for at in range(len(table)) for row in _rows(table.slice(at, 1))]
