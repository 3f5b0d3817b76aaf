"""What happens to files on disks: cut short, emptied, a bit turned."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip(file: Path) -> None:
    """Turns one bit, behind the middle: nearer to the beginning a format may check by itself."""
    data = bytearray(file.read_bytes())
    data[2 * len(data) // 3] ^= 1
    file.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut": cut,
    "empty": lambda file: os.truncate(file, 0),
    "flipped": flip,
}
