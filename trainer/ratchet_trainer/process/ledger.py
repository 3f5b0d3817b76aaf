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
a line a second: then a killed attempt's last second is missing here, as it is in `replay`. On a bucket lines are
objects, which cost time and money: there it is one in ten seconds, written by a thread of its own.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ratchet_trainer import storage
from ratchet_trainer.storage import Location
from ratchet_trainer.storage.behind import Behind
from ratchet_trainer.storage.stream import Stream

log = logging.getLogger(__name__)

FOLDER = "ledger"
STREAM = re.compile(r"a[0-9]+-.*\.jsonl")
CATEGORIES = (
    "init", "compile", "restore", "replay", "generate", "await", "verify", "update", "evaluate", "save", "wait",
    "drain", "other",
)  # fmt: skip
USEFUL = ("generate", "verify", "update", "evaluate")
"""What a run is for; goodput is their share. Any of it that had been done before is `replay`."""
OF_PHASE = {"start": "init", "boundary": "wait", "done": "other"}
"""Phase of /progress -> category, where the names differ."""
PACE_SECONDS = 1.0
BUCKET_PACE_SECONDS = 10.0
PATIENCE_SECONDS = 3.0
"""How long the last line may take at the end of a process."""


class Ledger:
    """The books of one process. Lines go to a file from `open` on; before, and on other processes, they only add up."""

    def __init__(self, started: float, clock: Callable[[], float] = time.monotonic):
        """`started`: when the process began, on the clock."""
        self._clock = clock
        self._started = self._since = self._written = started
        self._lock = threading.Lock()  # the process may be ended by another thread than the one that works
        self._file: Stream | Behind | None = None
        self._pace = PACE_SECONDS
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

    def open(self, directory: Location | Path, tag: str, step: int) -> None:
        """Begins the file of this attempt, which goes on from `step`. A folder that cannot be written costs the books,
        not the run."""
        self.step = step
        self._first = {"from": step}
        try:
            self._reported_before = max(map(_last_step, _streams(Location.parse(directory) / FOLDER)), default=0)
            stream = Stream(Location.parse(directory) / FOLDER / f"{tag}.jsonl")
            if stream.place.on_bucket:
                self._file, self._pace = Behind(stream), BUCKET_PACE_SECONDS
            else:
                stream.append(b"")  # whether it can be written
                self._file = stream
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
            if self._since - self._written >= self._pace:
                self._write({})

    def close(self, code: int) -> None:
        """The last line: the process ends now."""
        with self._lock:
            self._settle()
            self._write({"exit": code})
            if isinstance(self._file, Behind):
                self._file.settle(PATIENCE_SECONDS)
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
            self._file.append(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        except OSError as error:
            log.warning("the ledger ends here: %s", error)
            self._file = None
        self._booked, self._first = dict(self.seconds), {}
        self._worth = dict.fromkeys(self._worth, 0.0)
        self._written = self._since


def read(directory: Location | Path) -> dict[str, list[dict[str, Any]]]:
    """Tag of each attempt (`aN-UID`), in order -> its lines; half a line at the end of a killed one is left out."""
    return by_attempt(Location.parse(directory) / FOLDER)


def by_attempt(folder: Location) -> dict[str, list[dict[str, Any]]]:
    """The same of any folder with a stream of steps for each attempt."""
    found = {stream.place.name.removesuffix(".jsonl"): list(whole_lines(stream.read())) for stream in _streams(folder)}
    return {tag: lines for tag, lines in found.items() if lines}


def _streams(folder: Location) -> list[Stream]:
    """Of all attempts, in order."""
    names = [name for name in storage.names(folder) if STREAM.fullmatch(name)]
    return [Stream(folder / name) for name in sorted(names, key=lambda name: int(name[1:].split("-")[0]))]


def _last_step(stream: Stream) -> int:
    """The step in its last line; 0 if it has none. The other lines, of a bucket an object each, are not read."""
    lines = list(whole_lines(stream.read_last()))
    return int(lines[-1]["step"]) if lines else 0


def whole_lines(data: bytes) -> Iterator[dict[str, Any]]:
    """Lines of a stream of steps; one that was cut short by a kill or a full disk is left out."""
    for line in data.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and isinstance(found.get("step"), int):
            yield found


def summary(directory: Location | Path) -> dict[str, Any]:
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
