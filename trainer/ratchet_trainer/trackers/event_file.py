"""TensorBoard's file format: records of TFRecord with messages `Event`, as far as scalars need it.

The frame is tensorflow/core/lib/io/record_writer.h: length (8 bytes), masked CRC of it (4), data, masked CRC of that
(4), little endian. The message is tensorflow/core/util/event.proto, written as protocol buffers are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

VERSION = b"brain.Event:2"
START = 1
"""SessionLog.START: what TensorBoard has read before it of the same run, from this step on, no longer counts."""
_POLYNOMIAL = 0x82F63B78  # Castagnoli's, reflected
_MASK = 0xA282EAD8
_HEADER, _CRC = 12, struct.Struct("<I")


def _table() -> list[int]:
    found = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        found.append(value)
    return found


_TABLE = _table()


def crc(data: bytes) -> int:
    """CRC-32C."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    """The checksum as it is stored: a CRC of data that holds CRCs is weak, so it is turned and shifted."""
    value = crc(data)
    return _CRC.pack(((value >> 15 | value << 17) + _MASK) & 0xFFFFFFFF)


def record(data: bytes) -> bytes:
    """One record with that content."""
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def contents(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(place of its end, content) of each whole record; what is cut off or damaged at the end, and all behind it, is
    left out. The content's checksum is compared for the last one only: before it nothing was ever half written."""
    at = 0
    while len(data) - at > _HEADER:
        (size,) = struct.unpack_from("<Q", data, at)
        end = at + _HEADER + size + 4
        if masked(data[at : at + 8]) != data[at + 8 : at + _HEADER] or end > len(data):
            return
        content = data[at + _HEADER : end - 4]
        if len(data) - end <= _HEADER and masked(content) != data[end - 4 : end]:
            return
        yield end, content
        at = end


def opening(step: int, wall_time: float) -> bytes:
    """What a file begins with: its version, and that what was read of the run before is void from this step on."""
    session = _field(2, 0) + _varint(step) + _field(7, 2) + _sized(_field(1, 0) + _varint(START))
    return record(_wall(wall_time) + _field(3, 2) + _sized(VERSION)) + record(_wall(wall_time) + session)


OPENING_RECORDS = 2


def scalars(step: int, values: Mapping[str, float], wall_time: float) -> bytes:
    """The content of a record: all scalars of one step."""
    return _wall(wall_time) + without_time(step, values)


def without_time(step: int, values: Mapping[str, float]) -> bytes:
    """The same but for the time, which is its first field."""
    summary = b"".join(
        _field(1, 2) + _sized(_field(1, 2) + _sized(tag.encode()) + _field(2, 5) + struct.pack("<f", _single(value)))
        for tag, value in values.items()
    )
    return _field(2, 0) + _varint(step) + _field(5, 2) + _sized(summary)


TIME_BYTES = 9
"""Length of the time at the beginning of a record's content."""


def _wall(seconds: float) -> bytes:
    return _field(1, 1) + struct.pack("<d", seconds)


def _single(value: float) -> float:
    """TensorBoard's scalars are of single precision: what is too large for it is infinite."""
    try:
        struct.pack("<f", value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
    return value


def _field(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _sized(data: bytes) -> bytes:
    return _varint(len(data)) + data
