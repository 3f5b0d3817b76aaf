"""What was found out about data that does not change, kept in a folder so that the next attempt need not look again.

Decides when a file counts as the same: path, size, time of change and its first and last bytes. Whatever is wrong with
an entry, it is as if there were none: the work is done again.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ratchet_api.canonical import canonical
from ratchet_trainer import storage
from ratchet_trainer.storage import Location

log = logging.getLogger(__name__)

ENDS = 65_536
"""Bytes at either end of a file that are looked at."""

Arrays = Mapping[str, np.ndarray]


def fingerprint(path: Path) -> list[str | int]:
    """What tells a file from another one without reading it whole. Raises OSError."""
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        ends = hashlib.sha256(file.read(ENDS))
        file.seek(max(0, status.st_size - ENDS))
        ends.update(file.read(ENDS))
    return [str(path), status.st_size, status.st_mtime_ns, ends.hexdigest()]


def key_of(*what: object) -> str:
    """The name of an entry that depends on plain data."""
    return hashlib.sha256(canonical(list(what))).hexdigest()[:32]


class Remembered:
    """Named arrays by key; in `folder`, or nowhere if that is None."""

    def __init__(self, folder: Location | Path | None):
        self._folder = None if folder is None else Location.parse(folder)

    def find(self, key: str, *names: str) -> dict[str, np.ndarray] | None:
        """The arrays of an entry; None if it is not there, unreadable or lacks one of the names."""
        if self._folder is None:
            return None
        place = self._folder / f"{key}.npz"
        try:
            data = storage.read(place)
            if data is None:
                return None
            with np.load(io.BytesIO(data), allow_pickle=False) as opened:
                return {name: opened[name] for name in names}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            kind = type(error).__name__
            log.warning("%s: cannot be read (%s), so the data is looked through again", place, kind)
            return None

    def keep(self, key: str, arrays: Arrays) -> None:
        """Keeps an entry. A folder that takes nothing costs the next attempt time, and this one a warning."""
        if self._folder is None:
            return
        place, data = self._folder / f"{key}.npz", io.BytesIO()
        np.savez(data, allow_pickle=False, **arrays)
        try:
            storage.write(place, data.getvalue(), durable=False)
        except OSError as error:
            log.warning("the data will be read again in the next attempt: %s: %s", place, error)
