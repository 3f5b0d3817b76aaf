"""Which workers are alive: each writes a count to an object of its own, whoever wants to know looks whether it grows.

Decides that a worker counts from the second look on that sees it change: what a dead one left behind does not, and goes
after a while. Every start of a worker has a name of its own, so there would be thousands; one that was only frozen
writes again.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from itertools import count

from ratchet_trainer import storage
from ratchet_trainer.fleet.silence import Silence
from ratchet_trainer.storage import Location, with_retries

log = logging.getLogger(__name__)

FORGOTTEN = 100
"""Times the patience after which what a silent worker left is removed."""


class Heartbeats:
    """Those in a folder, as one process writes or sees them."""

    def __init__(self, folder: Location, patience: float, clock: Callable[[], float]):
        self.folder, self._patience, self._clock = folder, patience, clock
        self._start, self._count = secrets.token_hex(8), count()
        self._content: dict[str, bytes | None] = {}
        self._changed: dict[str, float] = {}
        self._silence = Silence(clock)
        self._looked: float | None = None

    def beat(self, worker: str) -> None:
        """To be called every third of the patience. Never fails: what a silent worker means is the observer's
        matter."""
        try:
            storage.write(self.folder / worker, f"{self._start} {next(self._count)}".encode(), durable=False)
        except OSError as error:
            log.warning("worker %s does not beat: %s", worker, error)

    def workers(self, patience: float | None = None) -> list[str]:
        """Those whose object changed within the patience. Asks the storage four times in it at most, so it may be
        called as often as one likes. Raises StorageUnavailable."""
        patience, now = self._patience if patience is None else patience, self._clock()
        if self._looked is None or now - self._looked >= patience / 4:
            with_retries(f"looking for workers in {self.folder}", self._look)
            self._looked = now
        return sorted(worker for worker, at in self._changed.items() if now - at < patience)

    def _look(self) -> None:
        names = storage.names(self.folder)
        for name, content in zip(names, storage.read_all(self.folder, names), strict=True):
            if name in self._content and content not in (None, self._content[name]):
                self._changed[name] = self._clock()
            self._content[name] = content
            if self._silence.of(name, content) >= FORGOTTEN * self._patience:
                self._forget(name)

    def _forget(self, name: str) -> None:
        storage.delete(self.folder / name)
        self._content.pop(name, None)
        self._changed.pop(name, None)
