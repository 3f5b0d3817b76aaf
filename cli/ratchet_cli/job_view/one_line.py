"""A job's state as one plain line: what `watch` prints into a pipe, one for each change that a reader would see."""

from __future__ import annotations

from datetime import datetime

from ratchet_cli.job_view.rows import JobRow
from ratchet_cli.job_view.words import short


def line(row: JobRow, now: datetime, *, named: bool) -> str:
    """`2026-11-30T04:30:49Z Running stage=easier step=196/220 ...`; fields that are not known are left out."""
    fields = [
        ("stage", row.stage),
        ("step", None if row.step is None else f"{row.step}/{row.target_step}" if row.target_step else str(row.step)),
        ("reward", None if row.reward is None else short(row.reward)),
        ("accuracy", None if row.accuracy is None else short(row.accuracy)),
        ("learning", None if row.learning == "Unknown" else row.learning),
        ("attempt", row.attempts),
        ("placement", row.placement),
        ("preemptions", row.preemptions),
        ("steps-lost", row.steps_lost or None),
        ("reason", row.reason),
    ]
    words = " ".join(f"{name}={value}" for name, value in fields if value is not None)
    message = f' message="{row.message}"' if row.level in ("error", "wait") and row.message else ""
    head = f"{now:%Y-%m-%dT%H:%M:%SZ} " + (f"{row.namespace}/{row.name} " if named else "")
    return f"{head}{row.phase} {words}{message}".rstrip()
