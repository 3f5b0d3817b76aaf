"""A list of what is wrong with data, told all at once: the first ten, and how many more.

Decides how much an error says: it also has to fit a pod's termination message.
"""

from __future__ import annotations

NAMED = 10
"""Faults that are told one by one."""


class Faults:
    """Places and reasons in the order in which they were added, or from the largest `size` on."""

    def __init__(self) -> None:
        self._count = 0
        self._found: list[tuple[int, str, str]] = []

    def __len__(self) -> int:
        return self._count

    def add(self, place: str, reason: str, size: int = 0) -> None:
        """One more; of all, the ten of the largest `size` are kept, and of equal ones the first."""
        self._count += 1
        self._found.append((size, place, reason))
        if len(self._found) >= 2 * NAMED:
            self._shorten()

    def said(self, of: int, what: str) -> str:
        """`2 of 19 <what>: PLACE: REASON; PLACE: the same`, the worst first."""
        self._shorten()
        told, last = [], None
        for _, place, reason in self._found:
            told.append(f"{place}: {reason if reason != last else 'the same'}")
            last = reason
        more = f"; and {self._count - len(told)} more" if self._count > len(told) else ""
        return f"{self._count} of {of} {what}: {'; '.join(told)}{more}"

    def _shorten(self) -> None:
        self._found.sort(key=lambda fault: -fault[0])  # stable
        del self._found[NAMED:]
