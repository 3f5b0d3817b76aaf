"""Bytes that grow: a file on a file system, an object for every addition on a bucket.

Decides the form on buckets, where nothing can be added to an object: `metrics.jsonl` is a folder of objects there, each
named by the place of its first byte, twelve digits and more, so that listed by name they are in order and joined they
are the file. One writer at a time; what it writes again at the same place is the same bytes, or replaces what was not
to be kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from ratchet_trainer.storage import bucket, objects, posix
from ratchet_trainer.storage.location import Location


class Stream:
    """The bytes at a place. Methods raise OSError.

    stream = Stream(folder / "metrics.jsonl")
    stream.put(0, b"one\\n")
    stream.put(4, b"two\\n")
    stream.restart(4, b"three\\n")    # "one", "three": what was at 4 and behind is gone
    """

    def __init__(self, place: Location):
        self.place = place
        self._end: int | None = None  # on a bucket: where the next addition goes

    def put(self, offset: int, data: bytes, *, durable: bool = False) -> None:
        """Writes at a known place, not at the end: a deterministic replay writes the same bytes to the same place.
        The folder must be there: one that was removed in the middle of a run is not made again."""
        if self.place.on_bucket:
            if data:
                objects.write(self._piece(offset), data)
            return
        new = offset == 0
        handle = os.open(self.place.local, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            while data:  # a disk that is nearly full takes a part; the call after that says why
                done = os.pwrite(handle, data, offset)
                data, offset = data[done:], offset + done
            if durable:
                os.fsync(handle)
                if new:
                    posix.sync(self.place.local.parent)
        finally:
            os.close(handle)

    def append(self, data: bytes) -> None:
        """Adds at the end."""
        if self.place.on_bucket:
            if self._end is None:
                self._end = len(self.read())
            self.put(self._end, data)
            self._end += len(data)
            return
        path = self.place.local
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as file:
            file.write(data)

    def restart(self, offset: int, data: bytes, *, durable: bool = False) -> int:
        """Makes it `data` from `offset` on. Bytes that are missing before are left blank, with the end of a line as the
        last; returns how many."""
        whole = self._cut(offset)
        blank = b" " * (offset - whole - 1) + b"\n" if whole < offset else b""
        self.put(whole, blank + data, durable=durable)
        self._end = offset + len(data)
        return offset - whole

    def replace(self, parts: Iterable[bytes | memoryview]) -> None:
        """Makes it these parts and nothing else. On a bucket not at once: whoever reads meanwhile finds a part of it,
        which must be known by its content."""
        if not self.place.on_bucket:
            posix.write_parts(self.place, parts, durable=False)
            return
        objects.delete_tree(self.place)
        offset = 0
        for pieces in _by(4, _pieces(parts)):
            named = {}
            for piece in pieces:
                named[_name(offset)] = piece
                offset += len(piece)
            objects.write_all(self.place, named)

    def read(self) -> bytes:
        """All of it; empty where there is nothing."""
        if not self.place.on_bucket:
            return objects.read(self.place) or b""
        found = bytearray()
        offsets = self._offsets()
        for offset, piece in zip(offsets, bucket.read_all(map(self._piece, offsets)), strict=True):
            if piece is not None:  # else it was removed meanwhile
                found += b" " * (offset - len(found))
                found[offset:] = piece
        return bytes(found)

    def read_last(self) -> bytes:
        """What was added last; on a file system, where nobody can tell, all of it."""
        if not self.place.on_bucket:
            return self.read()
        offsets = self._offsets()
        return (objects.read(self._piece(offsets[-1])) or b"") if offsets else b""

    def read_range(self, offset: int, size: int) -> bytes:
        """So many bytes from a place on; fewer, or none, where there are not so many."""
        if not self.place.on_bucket:
            return posix.read_range(self.place, offset, offset + size)
        at, end, found = offset, offset + size, bytearray()
        begins = self._offsets()
        for begin, after in zip(begins, [*begins[1:], end][: len(begins)], strict=True):
            if begin <= at < min(after, end):
                found += bucket.read_range(self._piece(begin), at - begin, min(after, end) - begin)
                at = offset + len(found)
        return bytes(found)

    def remove(self) -> None:
        """Removes it, if there is one."""
        objects.delete_tree(self.place)

    def sweep(self) -> None:
        """Removes what writers of it that died have left unfinished."""
        if not self.place.on_bucket:
            for left_over in self.place.local.parent.glob(f".{self.place.name}.*tmp"):
                left_over.unlink(missing_ok=True)

    def _piece(self, offset: int) -> Location:
        return self.place / _name(offset)

    def _offsets(self) -> list[int]:
        return sorted(int(name) for name in objects.names(self.place) if name.isdigit())

    def _cut(self, offset: int) -> int:
        """Removes what is from `offset` on; if bytes are missing before, the line that was cut off too. Returns where
        it ends now."""
        if not self.place.on_bucket:
            path = self.place.local
            path.parent.mkdir(parents=True, exist_ok=True)
            size = path.stat().st_size if path.exists() else 0
            with open(path, "r+b" if path.exists() else "w+b") as file:
                whole = file.read(offset).rfind(b"\n") + 1 if size < offset else offset  # half a line is none
                file.truncate(whole)
            return whole
        kept = self._offsets()
        while kept and kept[-1] >= offset:
            objects.delete(self._piece(kept.pop()))
        if not kept:
            return 0
        last = objects.read(self._piece(kept[-1])) or b""
        end = kept[-1] + len(last)
        if end > offset:
            objects.write(self._piece(kept[-1]), last[: offset - kept[-1]])
        return min(end, offset)


def _name(offset: int) -> str:
    return f"{offset:012d}"


def _pieces(parts: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """The parts joined and cut anew, into pieces of a size that one request carries."""
    gathered: list[bytes | memoryview] = []
    size = 0
    for part in parts:
        view = memoryview(part).cast("B")
        for at in range(0, len(view), bucket.PIECE):
            piece = view[at : at + bucket.PIECE]
            if size + len(piece) > bucket.PIECE:
                yield b"".join(gathered)
                gathered, size = [], 0
            gathered.append(piece)
            size += len(piece)
    if gathered:
        yield b"".join(gathered)


def _by(number: int, pieces: Iterator[bytes]) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    for piece in pieces:
        group.append(piece)
        if len(group) == number:
            yield group
            group = []
    if group:
        yield group
