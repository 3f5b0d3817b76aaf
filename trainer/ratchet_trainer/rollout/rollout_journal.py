"""The rollout journal: what was sampled for the step under way, kept over a drain so that it is not sampled again.

Decides what is kept, where, and when it may be used. The unit is one call of the sampler. Of a finished call the tokens
are kept; of one in the middle of decoding its whole state (caches, keys, tokens so far): the next attempt puts the same
arrays back and goes on with the same program, hence with the same bits. Rebuilding caches from tokens by a prefill
would be smaller, but a prefill rounds otherwise than the decoding that it replaces.

`DIRECTORY/rollouts/P-of-N` is process P's, replaced as a whole: a header that says where each array lies, the arrays
one after the other, and the SHA-256 of both. It is written after the last checkpoint of a drain. With a fast tier the
same is written there every so many seconds, by a thread of its own, so that little is sampled again after a kill
without notice. Correctness never depends on it: what is torn, missing on one process, of another step, of other weights
or of another program is left alone, and sampled again.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ratchet_trainer import storage
from ratchet_trainer.storage import Location
from ratchet_trainer.storage.stream import Stream

log = logging.getLogger(__name__)

ANY = re.compile(r"[0-9]+-of-[0-9]+")
LIMIT = 2 << 30
"""Bytes of unfinished state that a process keeps at most when it leaves: a local disk takes so much in two to four of
the 15 seconds. A slower one may not have taken all when the time is over; then it is sampled again."""
LIMIT_WHILE_DECODING = 512 << 20
"""The same for the copies that the fast tier gets while decoding goes on: what they cost is paid again and again."""


@dataclass(frozen=True)
class Kept:
    """One call: `made` float32[3, P, G, at] are tokens, log-probabilities and entropy so far, on every process;
    `state` this process's part of every leaf of the decoding state, one array a device, None once finished."""

    made: np.ndarray
    state: tuple[tuple[np.ndarray, ...], ...] | None = None

    @property
    def size(self) -> int:
        return self.made.nbytes + sum(part.nbytes for leaf in self.state or () for part in leaf)


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
        self._read = self._on_disk = False
        self._news, self._lock = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None
        self.asked = False  # whether all processes keep what the call under way has made; agreed on at safe points

    def bind(self, context: str) -> None:
        """Calls from now on belong to the step that `context` names, by all that decides what is sampled in it; what
        is kept of another step goes."""
        calls: dict[str, Kept] = {}
        if not self._read:
            self._read = True
            calls = self._found(context)
        elif context == self._context:
            return
        elif self._on_disk:
            self._on_disk = False
            self._kept_at.remove()
        with self._lock:
            self._calls, self._context = calls, context

    def find(self, call: str) -> Kept | None:
        """What is kept of a call. *Collective.*"""
        kept = self._calls.get(call)
        shown = None if kept is None else [kept.made.shape[-1], kept.state is None]
        everywhere = self._gather(shown)
        return kept if kept is not None and all(other == shown for other in everywhere) else None

    @property
    def due(self) -> bool:
        """Whether it is time to keep what the call under way has made."""
        long_ago = time.monotonic() - self._kept >= self._seconds
        return self._local is not None and long_ago and not self._waiting

    def keep(self, call: str, kept: Kept, *, leaving: bool = False) -> None:
        """Keeps a call, in place of what was kept of it. `leaving`: nobody goes on with it in this process."""
        if kept.state is not None and kept.size > (LIMIT if leaving else LIMIT_WHILE_DECODING):
            if leaving:
                log.info("%.0f MB of unfinished responses are too many to be kept", kept.size / 1e6)
            self._kept = math.inf  # nor is it looked at again
            return
        if kept.state is not None and not leaving:  # the call goes on in the memory that these are views of
            kept = replace(kept, state=tuple(tuple(np.array(part) for part in leaf) for leaf in kept.state))
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
            size = _write(self._kept_at, self._context, self._calls)
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
                    _write(local, context, calls)
            except OSError as error:
                log.warning("what is sampled is not kept on %s any more in this attempt: %s", local.place, error)
                self._local = None

    def _found(self, context: str) -> dict[str, Kept]:
        for stream in (self._kept_at, *([] if self._local is None else [self._local])):
            with contextlib.suppress(OSError):
                stream.sweep()  # of a process that had no time to finish it
        found = self._load(self._kept_at, context)
        self._on_disk = True  # if there is nothing, nothing is removed
        for call, kept in (self._load(self._local, context) if self._local is not None else {}).items():
            if call not in found or _made(kept) > _made(found[call]):
                found[call] = kept
        if found:
            log.info("%d sampling calls of the attempt before are taken up again", len(found))
        return found

    def _load(self, stream: Stream, context: str) -> dict[str, Kept]:
        folder, own = stream.place.parent, stream.place.name
        try:
            for other in storage.names(folder):
                if ANY.fullmatch(other) and other.partition("-of-")[2] != own.partition("-of-")[2]:
                    storage.delete_tree(folder / other)  # of another number of processes: nobody will ask for it again
            data = stream.read()
        except OSError as error:
            log.warning("%s cannot be read, its calls are sampled again: %s", stream.place, error)
            return {}
        if not data:
            return {}
        if hashlib.sha256(memoryview(data)[:-32]).digest() != data[-32:]:
            log.warning("%s is torn and left alone", stream.place)
            return {}
        return _unpacked(data, context)


def _made(kept: Kept) -> tuple[bool, int]:
    """How far a call has come."""
    return kept.state is None, kept.made.shape[-1]


def _write(stream: Stream, context: str, calls: dict[str, Kept]) -> int:
    """Bytes written. Nothing is copied on a file system: there may be no memory for it."""
    header, arrays = _described(context, calls)
    parts: list[bytes | memoryview] = [len(header).to_bytes(8, "big"), header, *(array.data for array in arrays)]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    stream.replace([*parts, digest.digest()])
    return sum(memoryview(part).nbytes for part in parts)


def context_of(parts: Sequence[Any]) -> str:
    """A digest of plain JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _described(context: str, calls: dict[str, Kept]) -> tuple[bytes, list[np.ndarray]]:
    """The header, and every array's bytes in the order in which they follow it."""
    arrays: list[np.ndarray] = []

    def put(array: np.ndarray) -> list[Any]:
        arrays.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        return [str(array.dtype), list(array.shape)]

    described = {
        call: {
            "made": put(kept.made),
            "state": None if kept.state is None else [[put(part) for part in leaf] for leaf in kept.state],
        }
        for call, kept in calls.items()
    }
    return json.dumps({"context": context, "calls": described}).encode(), arrays


def _unpacked(data: bytes, context: str) -> dict[str, Kept]:
    at = 8 + int.from_bytes(data[:8], "big")
    header = json.loads(data[8:at])
    if header["context"] != context:
        return {}

    def get(described: list[Any]) -> np.ndarray:
        nonlocal at
        dtype, shape = np.dtype(described[0]), described[1]
        array = np.frombuffer(data, dtype, math.prod(shape), at).reshape(shape)
        at += array.nbytes
        return array

    return {
        call: Kept(
            get(one["made"]),
            None if one["state"] is None else tuple(tuple(get(part) for part in leaf) for leaf in one["state"]),
        )
        for call, one in header["calls"].items()
    }
