"""How long something has been silent, by the clock of who watches it, and when it was last looked at.

Decides that no two clocks are compared: what counts is when a change was seen, not what was written about it. So what
is seen for the first time has not been silent at all, and a clock that is off by an hour decides nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

MOST = 100_000
"""Names that are remembered; those that nobody has asked for the longest are forgotten."""


class Silence:
    """silence = Silence(time.monotonic)
    silence.of("a", b"1")    # 0.0: seen for the first time
    silence.of("a", b"1")    # seconds since then
    silence.of("a", b"2")    # 0.0
    """

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        self._seen: dict[object, tuple[object, float]] = {}
        self._lock = threading.Lock()

    def of(self, name: object, content: object = None) -> float:
        """Seconds since what is there under a name was first seen as it is now."""
        with self._lock:
            now = self._clock()
            before = self._seen.pop(name, None)
            since = before[1] if before is not None and before[0] == content else now
            self._keep(name, content, since)
            return now - since

    def begin(self, name: object) -> None:
        """From now on."""
        with self._lock:
            self._seen.pop(name, None)
            self._keep(name, None, self._clock())

    def is_over(self, name: object, seconds: float) -> bool:
        """Whether so long has passed since `begin`, or there was none."""
        with self._lock:
            return name not in self._seen or self._clock() - self._seen[name][1] >= seconds

    def is_due(self, name: object, seconds: float) -> bool:
        """Whether so long has passed since this was first asked, or last true."""
        due = self.of(name) >= seconds
        if due:
            self.begin(name)
        return due

    def _keep(self, name: object, content: object, since: float) -> None:
        self._seen[name] = content, since
        if len(self._seen) > MOST:
            del self._seen[next(iter(self._seen))]
