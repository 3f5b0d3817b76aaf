"""The operator's only clock: the API server's time.

Decides what time it is for every stamp and deadline of a job. Kubernetes stamps its objects by the API server's clock,
so ours must be that one too; the clock of this machine is never asked for the time of day. The `Date` header of every
response has a resolution of one second, but the server's time at a request that was sent at s and answered at r lies in
[Date - r, Date + 1 - s] of our monotonic clock, and the best of many such bounds is good to milliseconds.

Durations come out right even when the server's clock is set: a jump is counted and reported, the old offset is kept for
the life of this process, and no deadline fires because of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

JUMP_SECONDS = 5.0
"""A disagreement beyond this is a clock that was set, not one that drifts."""


def to_rfc3339(seconds: float) -> str:
    """Seconds since 1970 -> `2026-01-02T03:04:05.678Z`."""
    stamp = datetime.fromtimestamp(seconds, UTC)
    return f"{stamp:%Y-%m-%dT%H:%M:%S}.{stamp.microsecond // 1000:03d}Z"


class Clock:
    """API-server time from `Date` headers, advanced by the monotonic clock; never runs backwards."""

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, on_jump: Callable[[float], None] = lambda seconds: None
    ):
        self.monotonic = monotonic
        self.on_jump = on_jump
        self._offset: float | None = None  # server time - monotonic: the highest lower bound seen
        self._last = 0.0
        self._jump = 0.0  # jump that is being ignored, in seconds

    @property
    def known(self) -> bool:
        """Whether a response has been seen; `now` must not be asked before."""
        return self._offset is not None

    def hear(self, date: str | None, sent: float, received: float) -> None:
        """Takes the `Date` header of a response; `sent` and `received` are monotonic. Anything unreadable is
        ignored.
        """
        try:
            told = parsedate_to_datetime(date or "").timestamp()
        except (TypeError, ValueError):
            return
        lowest, highest = told - received, told + 1.0 - sent
        if self._offset is None:
            self._offset = lowest
            return
        if max(lowest - self._offset, self._offset - highest) > JUMP_SECONDS:
            jump = lowest - self._offset
            if abs(jump - self._jump) > JUMP_SECONDS:
                self._jump = jump
                self.on_jump(jump)
            return
        self._jump = 0.0
        self._offset = min(max(self._offset, lowest), highest)

    def seconds(self) -> float:
        """API-server time in seconds since 1970."""
        if self._offset is None:
            raise RuntimeError("no response of the API server has been seen yet; its time is unknown")
        self._last = max(self._last, self._offset + self.monotonic())
        return self._last

    def now(self) -> str:
        """API-server time as RFC 3339 with milliseconds."""
        return to_rfc3339(self.seconds())
