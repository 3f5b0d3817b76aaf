"""The rollout journal: what was sampled for the step under way, kept over a drain so that it is not sampled again.

Decides what is kept, where, and when it may be used. The unit is one call of the sampler. Of a finished call the tokens
are kept; of one in the middle of decoding its whole state (caches, keys, tokens so far): the next attempt puts the same
arrays back and goes on with the same program, hence with the same bits. Rebuilding caches from tokens by a prefill
would be smaller, but a prefill rounds otherwise than the decoding that it replaces.

`DIRECTORY/rollouts/P-of-N` is process P's, replaced as a whole: an .npz and its SHA-256. It is written after the last
checkpoint of a drain. Correctness never depends on it: what is torn, missing on one process, of another step, of other
weights or of another program is left alone, and sampled again. State larger than LIMIT is not kept; it would not fit
into the notice.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

log = logging.getLogger(__name__)

LIMIT = 512 << 20
"""Bytes of unfinished state that a process keeps at most; a disk takes so much in a few of the 15 seconds."""


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
    """The calls of one step. `gather` is the team's: all processes use a call, or none does."""

    def __init__(self, directory: Path, process: int, processes: int, gather: Callable[[Any], list[Any]]):
        self._path = Path(directory) / "rollouts" / f"{process}-of-{processes}"
        self._gather = gather
        self._context = ""
        self._calls: dict[str, Kept] = {}
        self._read = self._on_disk = False

    def bind(self, context: str) -> None:
        """Calls from now on belong to the step that `context` names, by all that decides what is sampled in it; what
        is kept of another step goes."""
        if not self._read:
            self._read = True
            self._calls, self._context = self._load(context), context
        if context != self._context:
            self._calls, self._context = {}, context
            if self._on_disk:
                self._on_disk = False
                self._path.unlink(missing_ok=True)

    def find(self, call: str) -> Kept | None:
        """What is kept of a call. *Collective.*"""
        kept = self._calls.get(call)
        shown = None if kept is None else [kept.made.shape[-1], kept.state is None]
        everywhere = self._gather(shown)
        return kept if kept is not None and all(other == shown for other in everywhere) else None

    def keep(self, call: str, kept: Kept) -> None:
        """Keeps a call, in place of what was kept of it."""
        if kept.state is None or kept.size <= LIMIT:
            self._calls[call] = kept

    def write(self) -> None:
        """Makes durable what is kept. A failure costs time, nothing else."""
        if not self._calls:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._path.with_name(f".{self._path.name}.tmp")
            data = _packed(self._context, self._calls)
            temporary.write_bytes(data + hashlib.sha256(data).digest())
            os.replace(temporary, self._path)
            log.info("kept %d sampling calls (%.1f MB) for the next attempt", len(self._calls), len(data) / 1e6)
        except OSError as error:
            log.warning("what was sampled is not kept: %s", error)

    def _load(self, context: str) -> dict[str, Kept]:
        for other in self._path.parent.glob("*-of-*"):
            if other.name.partition("-of-")[2] != self._path.name.partition("-of-")[2]:
                other.unlink(missing_ok=True)  # of another number of processes: nobody will ask for it again
        try:
            data = self._path.read_bytes()
        except OSError:
            return {}
        self._on_disk = True
        if hashlib.sha256(data[:-32]).digest() != data[-32:]:
            log.warning("%s is torn and left alone", self._path)
            return {}
        found = _unpacked(data[:-32], context)
        if found:
            log.info("%d sampling calls of the attempt before are taken up again", len(found))
        return found


def context_of(parts: Sequence[Any]) -> str:
    """A digest of plain JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _packed(context: str, calls: dict[str, Kept]) -> bytes:
    arrays: dict[str, np.ndarray] = {}
    described: dict[str, Any] = {}

    def put(array: np.ndarray) -> list[Any]:
        name = str(len(arrays))
        arrays[name] = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        return [name, str(array.dtype), list(array.shape)]

    for call, kept in calls.items():
        state = None if kept.state is None else [[put(part) for part in leaf] for leaf in kept.state]
        described[call] = {"made": put(kept.made), "state": state}
    header = json.dumps({"context": context, "calls": described}).encode()
    file = io.BytesIO()
    np.savez(file, header=np.frombuffer(header, np.uint8), **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def _unpacked(data: bytes, context: str) -> dict[str, Kept]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        header = json.loads(arrays["header"].tobytes())
        if header["context"] != context:
            return {}

        def get(described: list[Any]) -> np.ndarray:
            name, dtype, shape = described
            return np.frombuffer(arrays[name].tobytes(), np.dtype(dtype)).reshape(shape)

        return {
            call: Kept(
                get(one["made"]),
                None if one["state"] is None else tuple(tuple(get(part) for part in leaf) for leaf in one["state"]),
            )
            for call, one in header["calls"].items()
        }
