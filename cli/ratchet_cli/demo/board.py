"""What the demo prints while a job runs: a row whenever its columns change, and every event.

The columns are those of `kubectl get rlj`. Rows are plain lines, so they read the same in a terminal and in a log.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import click

COLUMNS = (
    ("PHASE", 11),
    ("STAGE", 9),
    ("STEP", 9),
    ("REWARD", 9),
    ("ATTEMPT", 7),
    ("PREEMPTIONS", 11),
    ("CHECKPOINT", 10),
)


class Board:
    """Prints to standard output; `quiet` keeps it silent."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._start = time.monotonic()
        self._row: tuple[str, ...] | None = None
        self._row_at = 0.0
        self._events: set[str] = set()

    def say(self, text: str, **style: Any) -> None:
        """One line of the story, with the seconds since the beginning."""
        if not self._quiet:
            click.echo(f"{time.monotonic() - self._start:7.1f}s  " + click.style(text, **style))
            sys.stdout.flush()

    def header(self) -> None:
        """The names of the columns."""
        self.say("".join(name.ljust(width + 2) for name, width in COLUMNS), bold=True)

    def job(self, job: dict[str, Any]) -> None:
        """A row, if anything but the step changed, or three seconds have passed."""
        row = columns(job.get("status", {}))
        unchanged = self._row is not None and row[:2] + row[4:6] == self._row[:2] + self._row[4:6]
        if row == self._row or (unchanged and time.monotonic() < self._row_at + 3):
            return
        self._row, self._row_at = row, time.monotonic()
        self.say("".join(cell.ljust(width + 2) for cell, (_, width) in zip(row, COLUMNS, strict=True)).rstrip())

    def event(self, event: dict[str, Any]) -> None:
        """An event of the job, once."""
        uid = event["metadata"]["uid"]
        if uid not in self._events:
            self._events.add(uid)
            color = "yellow" if event.get("type") == "Warning" else "cyan"
            self.say(f"  {event.get('reason', '')}: {event.get('message', '')}", fg=color)


def columns(status: dict[str, Any]) -> tuple[str, ...]:
    """The cells of one row, as `kubectl get rlj` shows them."""
    progress = status.get("progress", {})
    return (
        status.get("phase", ""),
        status.get("stage", {}).get("name", ""),
        progress.get("text", ""),
        progress.get("reward", ""),
        str(status.get("attempt", {}).get("number", "")),
        str(status.get("counters", {}).get("preemptions", 0)),
        str(status.get("checkpoint", {}).get("step", "")),
    )
