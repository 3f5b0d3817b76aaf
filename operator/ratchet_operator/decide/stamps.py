"""Stamps: points in time as the API writes them, RFC 3339 in UTC.

Only stamps of the API server's clock (`Snapshot.now`, deletionTimestamp, and what was written from them) are compared
with deadlines. Stamps of kubelets and trainers are evidence: shown, and their differences clamped at 0.
"""

from __future__ import annotations

from datetime import UTC, datetime


def seconds(stamp: str) -> float:
    """Seconds since the epoch. Raises ValueError if it is no RFC 3339 stamp."""
    return datetime.fromisoformat(stamp).timestamp()


def stamp(at: float) -> str:
    """The stamp of a time in seconds since the epoch, with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def whole(of: str) -> str:
    """The same stamp in whole seconds, as metav1.Time has it."""
    return datetime.fromtimestamp(int(seconds(of)), UTC).isoformat().replace("+00:00", "Z")


def after(of: str, by: float) -> str:
    """The stamp `by` seconds later."""
    return stamp(seconds(of) + by)


def between(earlier: str, later: str) -> float:
    """Seconds from one stamp to the other, never negative: two clocks may have made them."""
    return max(0.0, round(seconds(later) - seconds(earlier), 3))
