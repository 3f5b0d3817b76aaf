"""Additions to a stream that nobody waits for: a bucket answers in tens of milliseconds, which a step may not cost.

Decides that additions are made in their order by a thread of its own, those that came meanwhile at once, and that the
first one which fails is the last.
"""

from __future__ import annotations

import logging
import threading

from ratchet_trainer.storage.stream import Stream

log = logging.getLogger(__name__)


class Behind:
    """A stream that is added to behind its writer's back."""

    def __init__(self, stream: Stream):
        self._stream, self._waiting = stream, bytearray()
        self._news = threading.Condition()
        self._busy = self._ended = False
        threading.Thread(target=self._work, name="behind", daemon=True).start()

    def append(self, data: bytes) -> None:
        """Adds at the end, some time soon."""
        with self._news:
            if not self._ended:
                self._waiting += data
                self._news.notify_all()

    def settle(self, seconds: float) -> None:
        """Returns once all is added, or after so long."""
        with self._news:
            self._news.wait_for(lambda: self._ended or not (self._waiting or self._busy), seconds)

    def _work(self) -> None:
        while not self._ended:
            with self._news:
                self._news.wait_for(lambda: self._waiting)
                data, self._waiting, self._busy = bytes(self._waiting), bytearray(), True
            try:
                self._stream.append(data)
            except OSError as error:
                log.warning("%s ends here: %s", self._stream.place, error)
                self._ended = True
            with self._news:
                self._busy = False
                self._news.notify_all()
