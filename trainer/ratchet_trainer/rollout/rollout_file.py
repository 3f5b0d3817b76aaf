"""A file of the rollout journal: calls of the sampler by name, each in arrays that can be read one by one.

Decides the bytes: the length of a header and its SHA-256, the header (JSON: the context, and for every array its number
format, shape and SHA-256), then the arrays one after the other. So a process reads its own rows out of a file that
another process wrote, and trusts nothing that is torn. What is kept, and who uses it, is decided in `rollout_journal`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ratchet_trainer.storage.stream import Stream

log = logging.getLogger(__name__)

_PREFIX = 8 + 32
MOST_HEADER = 256 << 20
"""Bytes; a longer one is no header but damage."""


@dataclass(frozen=True)
class Kept:
    """One call: `made` float32[3, P, G, at] are tokens, log-probabilities and entropy so far, of all rows.

    `parts` is the decoding state of the rows that a process has, None once the call is finished: the first row of a
    part, counted over the whole call, -> the rows of every leaf from there on. Rows are named, not devices or
    processes: after a restart other processes may have them.
    """

    made: np.ndarray
    parts: Mapping[int, tuple[np.ndarray, ...]] | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return self.made.nbytes + sum(leaf.nbytes for part in (self.parts or {}).values() for leaf in part)

    @property
    def progress(self) -> tuple[bool, int]:
        """How far the call has come: whether it is finished, and the tokens of each response."""
        return self.parts is None, self.made.shape[-1]


@dataclass(frozen=True)
class _Place:
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    offset: int

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Stored:
    """One call as a file describes it: the rows that one process had."""

    stream: Stream
    made: _Place
    parts: Mapping[int, tuple[_Place, ...]] | None

    @property
    def progress(self) -> tuple[bool, int]:
        """As `Kept.progress`."""
        return self.parts is None, self.made.shape[-1]


def cover(known: Sequence[Kept | Stored], rows: Collection[int]) -> bool:
    """Whether what is known of a call, all of it equally far, has all parts that begin at these rows, or needs none."""
    return any(one.parts is None for one in known) or set(rows) <= {row for one in known for row in one.parts or ()}


def load(known: Sequence[Kept | Stored], rows: Collection[int]) -> Kept | None:
    """The call with the parts that begin at these rows, which `known` must `cover`, each from the first that has it.
    None if a file does not hold what was written."""
    first = known[0]
    try:
        made = first.made if isinstance(first, Kept) else _array(first.stream, first.made)
        return Kept(made, None if first.parts is None else {row: _part(known, row) for row in rows})
    except (OSError, ValueError) as error:
        log.warning("what is kept of a call is left alone: %s", error)
        return None


def _part(known: Sequence[Kept | Stored], row: int) -> tuple[np.ndarray, ...]:
    one = next(one for one in known if one.parts and row in one.parts)
    assert one.parts is not None
    if isinstance(one, Kept):
        return one.parts[row]
    return tuple(_array(one.stream, place) for place in one.parts[row])


def write(stream: Stream, context: str, calls: Mapping[str, Kept]) -> int:
    """Replaces the file as a whole; bytes written. Nothing is copied on a file system: there may be no memory for it.
    Raises OSError."""
    arrays: list[memoryview] = []

    def put(array: np.ndarray) -> list[Any]:
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        arrays.append(data)
        return [str(array.dtype), list(array.shape), hashlib.sha256(data).hexdigest()]

    described = {
        call: {
            "made": put(kept.made),
            "parts": None if kept.parts is None else {str(row): [*map(put, part)] for row, part in kept.parts.items()},
        }
        for call, kept in calls.items()
    }
    header = json.dumps({"context": context, "calls": described}).encode()
    parts: list[bytes | memoryview] = [len(header).to_bytes(8, "big"), hashlib.sha256(header).digest(), header, *arrays]
    stream.replace(parts)
    return sum(map(len, parts))


def read(stream: Stream, context: str) -> dict[str, Stored]:
    """The calls in a file that was written with this context; empty if it is another one's, torn or not there."""
    try:
        prefix = stream.read_range(0, _PREFIX)
        if not prefix:
            return {}
        length = int.from_bytes(prefix[:8], "big")
        header = stream.read_range(_PREFIX, length) if length <= MOST_HEADER else b""
    except OSError as error:
        log.warning("%s cannot be read, its calls are sampled again: %s", stream.place, error)
        return {}
    if hashlib.sha256(header).digest() != prefix[8:]:
        log.warning("%s is torn and left alone", stream.place)
        return {}
    content = json.loads(header)
    if content["context"] != context:
        return {}
    offset = _PREFIX + length

    def place(described: list[Any]) -> _Place:  # called in the order of writing
        nonlocal offset
        dtype, shape, sha256 = described
        found = _Place(dtype, tuple(shape), sha256, offset)
        offset += found.size
        return found

    return {
        call: Stored(
            stream,
            place(one["made"]),
            one["parts"] and {int(row): tuple(map(place, part)) for row, part in one["parts"].items()},
        )
        for call, one in content["calls"].items()
    }


def _array(stream: Stream, place: _Place) -> np.ndarray:
    """Raises ValueError when the bytes are not those that were written."""
    data = stream.read_range(place.offset, place.size)
    if hashlib.sha256(data).hexdigest() != place.sha256:
        raise ValueError(f"{stream.place} is torn")
    return np.frombuffer(data, np.dtype(place.dtype)).reshape(place.shape)
