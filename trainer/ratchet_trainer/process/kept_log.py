"""The end of each process's log, kept beside the checkpoints: it outlives the pod.

`DIRECTORY/logs/a<N>-<uid8>/process-<i>.log` has the last LIMIT bytes of what the process said: written again at
intervals while it changes, which is all that is left after a kill without notice, and once more at the process's end.
What Python writes to its standard streams is kept; what a native library writes past it (XLA's and libtpu's own lines,
the stacks of a crash) is in the pod's log alone. Catching that, too, would put a pipe between libraries and their
output, in which they could hang.

A copy for people, on which nothing depends: it is made by a thread of its own and never waited for, and storage that
refuses costs one line.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections import deque
from typing import TextIO, cast

from ratchet_trainer import storage
from ratchet_trainer.storage import Location

log = logging.getLogger(__name__)

FOLDER = "logs"
LIMIT = 64 << 10
"""Bytes kept of each process."""
KEPT_ATTEMPTS = 20
"""Attempts whose logs are kept, the newest ones; status keeps as many records."""
PACE_SECONDS = 15.0
BUCKET_PACE_SECONDS = 60.0
"""On a bucket every write costs money."""
SLOWEST_SECONDS = 600.0
"""Between two tries where storage refuses."""
ATTEMPT = re.compile(r"a([0-9]+)-.+")


class Tail:
    """The last LIMIT bytes of a text that grows; any number of threads may add."""

    def __init__(self, limit: int = LIMIT):
        self._limit, self._size, self._parts = limit, 0, deque[bytes]()
        self._lock = threading.Lock()
        self.added = 0
        """Bytes added so far."""

    def renew(self) -> None:
        """Nobody adds any more who did."""
        self._lock = threading.Lock()

    def add(self, text: str) -> None:
        data = text.encode(errors="replace")[-self._limit :]
        with self._lock:
            self._parts.append(data)
            self._size += len(data)
            self.added += len(data)
            while self._size - len(self._parts[0]) >= self._limit:
                self._size -= len(self._parts.popleft())

    def content(self) -> bytes:
        """What is kept, from the beginning of a line on where something was cut off."""
        with self._lock:
            kept = b"".join(self._parts)[-self._limit :]
            cut = self.added > len(kept)
        return kept.partition(b"\n")[2] or kept if cut else kept


class _Listened:
    """A text stream that a Tail hears, too; in all else the stream itself."""

    def __init__(self, stream: TextIO, tail: Tail):
        self._stream, self._tail = stream, tail

    def write(self, text: str) -> int:
        self._tail.add(text)
        return self._stream.write(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def listen() -> Tail:
    """Hears from now on what this process writes to its standard streams."""
    tail = Tail()
    os.register_at_fork(after_in_child=tail.renew)  # another thread may have been adding
    sys.stdout, sys.stderr = (cast(TextIO, _Listened(stream, tail)) for stream in (sys.stdout, sys.stderr))
    return tail


class KeptLog:
    """Keeps the tail of one process of an attempt."""

    def __init__(self, tail: Tail, directory: Location, tag: str, process: int):
        self._tail, self._logs = tail, directory / FOLDER
        self._place = self._logs / tag / f"process-{process}.log"
        self._pace = BUCKET_PACE_SECONDS if directory.on_bucket else PACE_SECONDS
        self._kept = self._refused = False
        self._written = 0
        self._writing = threading.Lock()
        self._prune = threading.Event()
        self._leads = process == 0

    def begin(self) -> None:
        """Starts the thread that writes at intervals."""
        threading.Thread(target=self._follow, name="kept log", daemon=True).start()

    def own(self) -> None:
        """The directory is this job's: old attempts' logs may be removed, at the next interval."""
        if self._leads:
            self._prune.set()

    def keep(self) -> bool:
        """Writes what there is, if it is more than was written; whether that is so. Raises nothing."""
        with self._writing:
            known = self._tail.added
            if known == self._written:
                return True
            try:
                storage.write(self._place, self._tail.content(), durable=False)
            except Exception as error:
                if not self._refused:
                    log.warning("the log is not kept beside the checkpoints: %s: %s", self._place, error)
                self._refused = True
                return False
            self._written = known
            return True

    def _follow(self) -> None:
        pause, wait = self._pace, threading.Event()
        while True:
            wait.wait(pause)
            pause = self._pace if self.keep() else min(2 * pause, SLOWEST_SECONDS)
            if self._prune.is_set():
                self._prune.clear()
                prune(self._logs)


def prune(logs: Location, most: int = KEPT_ATTEMPTS) -> None:
    """Removes the folders of all but the newest `most` attempts. Raises nothing."""
    try:
        for name in attempts(logs)[:-most]:
            storage.delete_tree(logs / name)
    except Exception as error:
        log.warning("old logs beside the checkpoints are not removed: %s", error)


def attempts(logs: Location) -> list[str]:
    """The folders of attempts, oldest first."""
    found = [(int(match[1]), name) for name in storage.names(logs) if (match := ATTEMPT.fullmatch(name))]
    return [name for _, name in sorted(found)]


def read(directory: Location, attempt: int, process: int) -> list[tuple[Location, bytes]]:
    """What is kept of a process of an attempt, and where; several where a job was applied anew in the directory, whose
    attempts had the same numbers. Raises OSError."""
    logs = directory / FOLDER
    places = [logs / name / f"process-{process}.log" for name in attempts(logs) if name.startswith(f"a{attempt}-")]
    return [(place, data) for place in places if (data := storage.read(place)) is not None]
