"""The rollout journal: what was sampled for the step under way, kept over a drain so that it is not sampled again.

Decides what is kept, where, and when it may be used. The unit is one call of the sampler. Of a finished call the tokens
are kept; of one in the middle of decoding its whole state (caches, keys, tokens so far): the next attempt puts the same
arrays back and goes on with the same program, hence with the same bits. Rebuilding caches from tokens by a prefill
would be smaller, but a prefill rounds otherwise than the decoding that it replaces.

`DIRECTORY/rollouts/P-of-N` (`rollout_file`) is written by process P and replaced as a whole, after the last checkpoint
of a drain. It names rows, and every process looks for its rows in all files: which process has which rows follows from
where its chips are, and may be another one after a restart. With a fast tier the same is written there every so many
seconds, by a thread of its own, so that little is sampled again after a kill without notice. Correctness never depends
on it: what is torn, missing on one process, of another step, of other weights or of another program is left alone, and
sampled again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import re
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ratchet_trainer import storage
from ratchet_trainer.rollout import rollout_file
from ratchet_trainer.rollout.rollout_file import Kept, Stored
from ratchet_trainer.storage import Location
from ratchet_trainer.storage.stream import Stream

log = logging.getLogger(__name__)

FILE = re.compile(r"[0-9]+-of-[0-9]+")
LIMIT = 2 << 30
"""Bytes of unfinished state that a process keeps at most when it leaves: a local disk takes so much in two to four of
the 15 seconds. A slower one may not have taken all when the time is over; then it is sampled again."""
LIMIT_WHILE_DECODING = 512 << 20
"""The same for the copies that the fast tier gets while decoding goes on: what they cost is paid again and again."""


class RolloutJournal:
    """The calls of one step. `gather` is the group's: all processes use a call, or none does."""

    def __init__(
        self,
        directory: Location | Path,
        process: int,
        processes: int,
        gather: Callable[[Any], list[Any]],
        local: Path | None = None,
        seconds: float = 10.0,
    ):
        """`local` is the fast tier's folder, None without one; there calls are written every `seconds`."""
        name = f"{process}-of-{processes}"
        self._kept_at = Stream(Location.parse(directory) / "rollouts" / name)
        self._local = None if local is None else Stream(Location.parse(local) / "rollouts" / name)
        self._seconds, self._written = seconds, time.monotonic()
        self._kept, self._waiting = self._written, False  # when a call was kept unfinished, and whether it waits
        self._gather = gather
        self._context = ""
        self._calls: dict[str, Kept] = {}
        self._files: list[dict[str, Stored]] = []  # what the attempt before left, by any process
        self._read = self._on_disk = False
        self._news, self._lock = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None
        self.asked = False  # whether all processes keep what the call under way has made; agreed on at safe points

    def bind(self, context: str) -> None:
        """Calls from now on belong to the step that `context` names, by all that decides what is sampled in it; what
        is kept of another step goes."""
        calls: dict[str, Kept] = {}
        files: list[dict[str, Stored]] = []
        if not self._read:
            self._read = True
            calls, files = self._left_behind(context)
        elif context == self._context:
            return
        elif self._on_disk:
            self._on_disk = False
            self._kept_at.remove()
        with self._lock:
            self._calls, self._context, self._files = calls, context, files

    def find(self, call: str, rows: Collection[int]) -> Kept | None:
        """What is kept of a call, as far as all processes have come with it. `rows`: where the parts begin that this
        process needs (`Sampler.first_rows`). *Collective.*"""
        own = self._calls.get(call)
        known: dict[tuple[bool, int], list[Kept | Stored]] = {} if own is None else {own.progress: [own]}
        for file in self._files:
            if (one := file.get(call)) is not None:
                known.setdefault(one.progress, []).append(one)
        mine = sorted(progress for progress, some in known.items() if rollout_file.cover(some, rows))
        everywhere = [{(done, at) for done, at in shown} for shown in self._gather(mine)]
        if not (common := set.intersection(*everywhere)):
            return None
        found = rollout_file.load(known[max(common)], rows)
        return found if all(self._gather(found is not None)) else None

    @property
    def due(self) -> bool:
        """Whether it is time to keep what the call under way has made."""
        long_ago = time.monotonic() - self._kept >= self._seconds
        return self._local is not None and long_ago and not self._waiting

    def keep(self, call: str, kept: Kept, *, leaving: bool = False) -> None:
        """Keeps a call, in place of what was kept of it. `leaving`: nobody goes on with it in this process."""
        if kept.parts is not None and kept.size > (LIMIT if leaving else LIMIT_WHILE_DECODING):
            if leaving:
                log.info("%.0f MB of unfinished responses are too many to be kept", kept.size / 1e6)
            self._kept = math.inf  # nor is it looked at again
            return
        if kept.parts is not None and not leaving:  # the call goes on in the memory that these are views of
            copied = {row: tuple(np.array(leaf) for leaf in part) for row, part in kept.parts.items()}
            kept = replace(kept, parts=copied)
            self._kept, self._waiting = time.monotonic(), True
        with self._lock:
            self._calls[call] = kept
        if self._local is not None and not leaving:
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_on, name="rollouts", daemon=True)
                self._thread.start()
            self._news.set()

    def write(self) -> None:
        """Makes durable what is kept. A failure costs time, nothing else."""
        if not self._calls:
            return
        try:
            size = rollout_file.write(self._kept_at, self._context, self._calls)
            log.info("kept %d sampling calls (%.1f MB) for the next attempt", len(self._calls), size / 1e6)
        except OSError as error:
            log.warning("what was sampled is not kept: %s", error)

    def _write_on(self) -> None:
        """On a thread of its own: what is new goes to the fast tier, at most every `seconds`."""
        while (local := self._local) is not None:
            self._news.wait()
            time.sleep(max(0.0, self._written + self._seconds - time.monotonic()))
            self._news.clear()
            self._written, self._waiting = time.monotonic(), False
            with self._lock:
                context, calls = self._context, dict(self._calls)
            try:
                if calls:
                    rollout_file.write(local, context, calls)
            except OSError as error:
                log.warning("what is sampled is not kept on %s any more in this attempt: %s", local.place, error)
                self._local = None
                with contextlib.suppress(OSError):  # it may have filled the disk
                    local.sweep()

    def _left_behind(self, context: str) -> tuple[dict[str, Kept], list[dict[str, Stored]]]:
        """What the attempt before left: the calls in this process's own files, so that they are not lost when those
        are written anew, and what each file says."""
        own: dict[str, Stored] = {}
        files = []
        for stream in (self._kept_at, *([] if self._local is None else [self._local])):
            with contextlib.suppress(OSError):
                stream.sweep()  # of a process that had no time to finish it
            for file in _files(stream.place):
                files.append(calls := rollout_file.read(Stream(file), context))
                for call, one in calls.items() if file == stream.place else ():
                    if call not in own or one.progress > own[call].progress:
                        own[call] = one
        self._on_disk = True  # if there is nothing, nothing is removed
        loaded = {call: rollout_file.load([one], one.parts or ()) for call, one in own.items()}
        found = {call: kept for call, kept in loaded.items() if kept is not None}
        if found:
            log.info("%d sampling calls of the attempt before may be taken up again", len(found))
        return found, files


def _files(own: Location) -> list[Location]:
    """The files of all processes beside that of one, as far as they can be seen here; those of another number of
    processes go: nobody will ask for them again."""
    found = []
    with contextlib.suppress(OSError):
        for name in storage.names(own.parent):
            if not FILE.fullmatch(name):
                continue
            if name.partition("-of-")[2] == own.name.partition("-of-")[2]:
                found.append(own.parent / name)
            else:
                storage.delete_tree(own.parent / name)
    return found


def context_of(parts: Sequence[Any]) -> str:
    """A digest of plain JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
