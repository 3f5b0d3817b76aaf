"""How a pool and its workers talk: frames of four bytes of length and that many bytes.

Decides the format only. Cases go down as pickles, because an item may hold whatever its source made and the pool is
trusted; outcomes come up as JSON, because what a worker says may come from anybody's code.
"""

from __future__ import annotations

import os
import struct

HEAD = struct.Struct(">I")
REPLY_MAX = 1024 * 1024
"""Longest frame that a pool takes from a worker."""


class TooLong(Exception):
    """The other side announces a frame longer than it may be."""


def framed(body: bytes) -> bytes:
    return HEAD.pack(len(body)) + body


def take(buffer: bytearray, limit: int = REPLY_MAX) -> bytes | None:
    """Takes the first whole frame out of a buffer, or None. Raises TooLong."""
    if len(buffer) < HEAD.size:
        return None
    (length,) = HEAD.unpack_from(buffer)
    if length > limit:
        raise TooLong(f"{length} bytes")
    if len(buffer) < HEAD.size + length:
        return None
    body = bytes(buffer[HEAD.size : HEAD.size + length])
    del buffer[: HEAD.size + length]
    return body


def read_frame(descriptor: int) -> bytes | None:
    """The next frame, waiting for it; None at the end."""
    head = read_exactly(descriptor, HEAD.size)
    return None if head is None else read_exactly(descriptor, HEAD.unpack(head)[0])


def read_exactly(descriptor: int, length: int) -> bytes | None:
    parts = b""
    while len(parts) < length:
        part = os.read(descriptor, min(length - len(parts), 1 << 20))
        if not part:
            return None
        parts += part
    return parts


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
