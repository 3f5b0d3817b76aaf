"""The weights that a worker will sample with next, on their way to its host's memory while it samples.

Decides that one version is fetched at a time, the newest that was announced, and that what was fetched is given out
once. Devices hold one version: the next one takes its place when a call asks for it.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from typing import Any

from ratchet_trainer.checkpoints.array_reader import Shardings
from ratchet_trainer.errors import TrainerError
from ratchet_trainer.fleet.versions import Fetched, Versions

log = logging.getLogger(__name__)


class WeightsAhead:
    """Those of one process of a worker.

    ahead.expect(digest)             # on any thread: it is announced
    arrays = ahead.arrays(digest)    # a call names it: from the host's memory, else from the storage
    """

    def __init__(self, versions: Versions, shardings: Shardings):
        self._versions, self._shardings = versions, shardings
        self._lock = threading.Lock()
        self._coming: tuple[str, Future[Fetched | None]] | None = None
        self._given = ""  # the version that was asked for last

    def expect(self, digest: str) -> None:
        """Begins to fetch a version, unless it is the one that is used, or on its way."""
        with self._lock:
            if not digest or digest == self._given or (self._coming is not None and self._coming[0] == digest):
                return
            if self._coming is not None and not self._coming[1].done():
                return  # one at a time; it is announced again
            self._coming = digest, self._versions.fetch(digest, self._shardings)

    def arrays(self, digest: str) -> dict[str, Any] | None:
        """A version's arrays where they belong, None where it is missing or damaged. Raises StorageUnavailable."""
        with self._lock:
            coming, self._given = self._coming, digest
            if coming is not None and coming[0] == digest:
                self._coming = None
        began = time.monotonic()
        found = None if coming is None or coming[0] != digest else self._fetched(coming[1])
        how = "came ahead" if found is not None else "are read when they are needed"
        found = self._versions.load(digest, self._shardings) if found is None else found
        log.info("the weights %s %s: waited %.0f ms", digest[:12], how, 1e3 * (time.monotonic() - began))
        return found

    def _fetched(self, coming: Future[Fetched | None]) -> dict[str, Any] | None:
        try:
            fetched = coming.result()
            return None if fetched is None else fetched.placed()
        except TrainerError as error:
            log.warning("what was fetched ahead is read again: %s", error)
            return None
