"""When a job's progress may be written to status: at most every 10 s a job and 20 a second in all.

Decides pace only. Conditions, stage and attempt do not wait for it; what else is in a status that is written anyway
goes along.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ratchet_operator.queue import Key

EVERY_SECONDS = 10.0
EACH_SECOND = 20.0


class Flush:
    def __init__(self, monotonic: Callable[[], float] = time.monotonic):
        self._monotonic = monotonic
        self._last: dict[Key, float] = {}
        self._tokens, self._at = EACH_SECOND, monotonic()

    def wait(self, key: Key) -> float:
        """Seconds until this job's progress may be written; 0 is now."""
        now = self._monotonic()
        self._tokens, self._at = min(EACH_SECOND, self._tokens + (now - self._at) * EACH_SECOND), now
        own = self._last.get(key, -EVERY_SECONDS) + EVERY_SECONDS - now
        return max(0.0, own, (1.0 - self._tokens) / EACH_SECOND)

    def took(self, key: Key) -> None:
        """It was written."""
        self._last[key] = self._monotonic()
        self._tokens -= 1.0

    def forget(self, key: Key) -> None:
        self._last.pop(key, None)
