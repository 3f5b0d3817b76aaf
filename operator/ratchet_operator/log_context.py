"""Which job the present task works on, for the lines of the log that it writes.

A pass over a job is a task, or a part of one that goes on with another job; what it starts inherits the names.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

_about: ContextVar[dict[str, Any] | None] = ContextVar("about", default=None)


def about(namespace: str, job: str, attempt: int | None = None) -> None:
    """What is logged from here on is about this job."""
    _about.set({"namespace": namespace, "job": job, "attempt": attempt})


def fields() -> dict[str, Any]:
    """The names for a line of the log; empty for lines about no job."""
    return _about.get() or {}
