"""Where every second of an attempt went: each is in exactly one category, from the start of the process to its end.

Decides the categories and when lines are written. `DIRECTORY/ledger/aN-UID.jsonl` has one JSON object a line: seconds
by category since the line before (so a file sums to the attempt's wall time), what the attempt was worth meanwhile, and
where it stood. Process 0 keeps the books; what other threads do counts only while the main thread waits for it.

    at        seconds since the process began
    from      the step that the attempt went on from (first line only)
    step      the last complete step
    steps, tokens                   new ones since the line before
    replayedSteps, replayedTokens   those which an attempt before had reported, too
    exit      the exit code (last line only; a killed attempt has none)

What was reported before is read from the files of earlier attempts. Every step has a line unless steps are faster than
a line a second: then a killed attempt's last second is missing here, as it is in `replay`.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

log = logging.getLogger(__name__)

CATEGORIES = (
    "init", "compile", "restore", "replay", "generate", "verify", "update", "evaluate", "save", "wait", "drain",
    "other",
)  # fmt: skip
USEFUL = ("generate", "verify", "update", "evaluate")
"""What a run is for; goodput is their share. Any of it that had been done before is `replay`."""
OF_PHASE = {"start": "init", "boundary": "wait", "done": "other"}
"""Phase of /progress -> category, where the names differ."""
PACE_SECONDS = 1.0


class Ledger:
    """The books of one process. Lines go to a file from `open` on; before, and on other processes, they only add up."""

    def __init__(self, started: float, clock: Callable[[], float] = time.monotonic):
        """`started`: when the process began, on the clock."""
        self._clock = clock
        self._started = self._since = self._written = started
        self._lock = threading.Lock()  # the process may be ended by another thread than the one that works
        self._file: IO[bytes] | None = None
        self._booked = dict.fromkeys(CATEGORIES, 0.0)  # up to the last line
        self._worth = dict.fromkeys(("steps", "tokens", "replayedSteps", "replayedTokens"), 0.0)
        self.seconds = dict.fromkeys(CATEGORIES, 0.0)
        self.category = "init"
        self.step = 0
        self._reported_before = 0
        self._first: dict[str, Any] = {}

    def enter(self, category: str) -> None:
        """The seconds since the last call belong to the category before. Once told to go, all is `drain`."""
        with self._lock:
            self._settle()
            if self.category != "drain":
                self.category = category

    def open(self, directory: Path, tag: str, step: int) -> None:
        """Begins the file of this attempt, which goes on from `step`. A folder that cannot be written costs the books,
        not the run."""
        self.step = step
        self._first = {"from": step}
        try:
            folder = directory / "ledger"
            folder.mkdir(parents=True, exist_ok=True)
            self._reported_before = max((lines[-1]["step"] for lines in read(directory).values()), default=0)
            self._file = open(folder / f"{tag}.jsonl", "ab", buffering=0)  # noqa: SIM115 closed by the process's end
        except OSError as error:
            log.warning("no ledger is kept: %s", error)

    def step_done(self, step: int, tokens: float) -> None:
        """A step is complete and reported; what comes now belongs to the next one."""
        with self._lock:
            self._settle()
            kind = ("replayedSteps", "replayedTokens") if step <= self._reported_before else ("steps", "tokens")
            self._worth[kind[0]] += 1
            self._worth[kind[1]] += tokens
            self.step = step
            if self._since - self._written >= PACE_SECONDS:
                self._write({})

    def close(self, code: int) -> None:
        """The last line: the process ends now."""
        with self._lock:
            self._settle()
            self._write({"exit": code})
            self._file = None

    def _settle(self) -> None:
        now = self._clock()
        replayed = self.category in USEFUL and self.step < self._reported_before
        self.seconds["replay" if replayed else self.category] += now - self._since
        self._since = now

    def _write(self, more: dict[str, Any]) -> None:
        if self._file is None:
            return
        spent = {k: round(s - self._booked[k], 6) for k, s in self.seconds.items()}
        line = {"at": round(self._since - self._started, 6), **self._first, "step": self.step}
        line |= {k: int(v) for k, v in self._worth.items() if v} | {k: s for k, s in spent.items() if s} | more
        try:
            self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        except OSError as error:
            log.warning("the ledger ends here: %s", error)
            self._file = None
        self._booked, self._first = dict(self.seconds), {}
        self._worth = dict.fromkeys(self._worth, 0.0)
        self._written = self._since


def read(directory: Path) -> dict[str, list[dict[str, Any]]]:
    """Tag of each attempt (`aN-UID`), in order -> its lines; half a line at the end of a killed one is left out."""
    files = sorted((directory / "ledger").glob("a*-*.jsonl"), key=lambda f: int(f.stem[1:].split("-")[0]))
    return {file.stem: lines for file in files if (lines := list(whole_lines(file)))}


def whole_lines(file: Path) -> Iterator[dict[str, Any]]:
    """Lines of a file of steps; one that was cut short by a kill or a full disk is left out."""
    for line in file.read_bytes().splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and isinstance(found.get("step"), int):
            yield found


def summary(directory: Path) -> dict[str, Any]:
    """Of all attempts in a checkpoint directory: seconds by category, their sum, goodput, and what was done twice."""
    lines = [line for attempt in read(directory).values() for line in attempt]
    seconds = {k: round(sum(line.get(k, 0.0) for line in lines), 3) for k in CATEGORIES}
    total = sum(seconds.values())
    return {
        "seconds": seconds,
        "wallSeconds": round(total, 3),
        "goodput": round(sum(seconds[k] for k in USEFUL) / total, 4) if total else None,
        "stepsReplayed": sum(line.get("replayedSteps", 0) for line in lines),
        "tokensReplayed": sum(line.get("replayedTokens", 0) for line in lines),
    }
