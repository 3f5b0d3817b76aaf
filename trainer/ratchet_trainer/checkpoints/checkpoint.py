"""Checkpoints: one folder a step, made to exist by the journal.

Decides in which order a step becomes durable, which steps are kept, and which step a restart begins from. What a step's
folder holds is `trusted_step.py`'s matter, who may write at all the journal's; when to save is `run.py`'s.

    steps/<step>-a<N>-<uid8>/   see trusted_step.py; with `-u<M>` at the end, the state after M updates of the next step
    metrics.jsonl               the metric stream of all committed steps, for people and trackers
    timings/a<N>-<uid8>.jsonl   what the clock said, one file an attempt, never hashed
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ratchet_trainer.checkpoints import digests, trusted_step
from ratchet_trainer.checkpoints.journal import Commit, Journal
from ratchet_trainer.checkpoints.trusted_step import Content
from ratchet_trainer.errors import StorageUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

STEP_FOLDER = re.compile(r"[0-9]+-a[0-9]+-")
"""How the names of folders begin that a trainer has made; no other is ever removed."""
WAYS_OUT = {
    errno.ENOSPC: "free some space there or enlarge the volume",
    errno.EDQUOT: "free some space there or raise the quota",
    errno.EFBIG: "let larger files be written there",
    errno.EROFS: "mount it writable",
    errno.EACCES: "let the trainer's user write there",
    errno.EPERM: "let the trainer's user write there",
    errno.ENOENT: "it was removed or replaced while it was in use; is the volume still mounted?",
}
BACK_OFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Waits between the tries of an operation on the storage; after the last one it is StorageUnavailable."""


def with_retries(what: str, operation: Callable[[], T]) -> T:
    """Runs an operation on the storage, again after each of BACK_OFF_SECONDS. Raises StorageUnavailable."""
    for wait in (*BACK_OFF_SECONDS, None):
        try:
            return operation()
        except Exception as error:
            if not _storage_failed(error):
                raise
            if wait is None:
                raise StorageUnavailable(f"{what}: {error}{_way_out(error)}") from error
            log.warning("%s failed, again in %.1f s: %s", what, wait, error)
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _way_out(error: Exception) -> str:
    # TensorStore's errors have the number in their text only.
    found = re.search(r"OS error (\d+)", str(error))
    number = error.errno if isinstance(error, OSError) else int(found[1]) if found else None
    return f"; {WAYS_OUT[number]}" if number in WAYS_OUT else ""


def _storage_failed(error: Exception) -> bool:
    # TensorStore reports what the file system said as ValueError or RuntimeError with the status and errno in the text.
    return isinstance(error, OSError) or (
        type(error) in (ValueError, RuntimeError)
        and any(w in str(error) for w in ("OS error", "Error writing", "Error opening"))
    )


class Checkpoints:
    """The checkpoint directory of one job, as one process sees it. Only process 0 writes."""

    def __init__(self, directory: Path, tag: str, keep: int, identity: Mapping[str, Any]):
        self.directory = Path(directory)
        self.journal = Journal(self.directory)
        self.tag = tag  # a<N>-<uid8> of this attempt
        self.keep = keep
        self.identity = identity
        self.pinned: set[int] = set()  # steps that are kept whatever their age
        self._alive: list[Commit] = []  # commits whose folders are there
        self._prunable: set[str] | None = None  # folders that may go once no kept commit needs them
        self._streamed = 0  # bytes of metrics.jsonl that belong to committed steps

    # Writing

    def write(self, content: Content, boundary: dict[str, Any] | None = None) -> tuple[Commit, dict[str, str], bytes]:
        """Makes a state durable and commits it. Returns the commit, `{weightsSha256, stateSha256}` and digests.json.

        Raises Fenced, or StorageUnavailable after retries; then the journal does not name the step, so nothing
        half-written counts.
        """
        leaf_digests = digests.leaf_digests(content.arrays)
        hashes = {
            "weightsSha256": digests.weights_sha256(leaf_digests),
            "stateSha256": digests.state_sha256(leaf_digests, content.control),
        }
        proof = trusted_step.proof_of(content, leaf_digests, hashes, self._streamed, self.identity)
        pending = content.control.get("pending")
        path = f"steps/{content.step}-{self.tag}" + (f"-u{pending['miniBatch']}" if pending else "")
        known = len(self.journal.entries)

        def attempt() -> Commit:
            self.journal.read()
            self.journal.must_be_mine(f"step {content.step} is not saved")
            for entry in self.journal.entries[known:]:
                if isinstance(entry, Commit) and entry.path == path:
                    return entry  # journalled by the try before, which failed only after that: its folder counts now
            self._prunable = (self._there() if self._prunable is None else self._prunable) | {path}
            trusted_step.write(self.directory / path, content, proof)
            return self.journal.commit(content.step, path, hashlib.sha256(proof).hexdigest(), boundary)

        commit = with_retries(f"saving step {content.step} to {self.directory}", attempt)
        with_retries("extending metrics.jsonl", lambda: self._extend_streams(content))
        self._streamed += sum(map(len, content.lines))
        self._alive.append(commit)
        self._prune()
        return commit, hashes, proof

    def _extend_streams(self, content: Content) -> None:
        # At a known offset, not at the end: a deterministic replay writes the same bytes to the same place.
        handle = os.open(self.directory / "metrics.jsonl", os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            rest, offset = b"".join(content.lines), self._streamed
            while rest:  # a disk that is nearly full takes a part; the call after that says why
                done = os.pwrite(handle, rest, offset)
                rest, offset = rest[done:], offset + done
        finally:
            os.close(handle)
        if content.timings:
            (self.directory / "timings").mkdir(exist_ok=True)
            with open(self.directory / "timings" / f"{self.tag}.jsonl", "ab") as file:
                file.write(b"".join(content.timings))

    def _prune(self) -> None:
        # Of what was there after the claim or is our own, never of what is there now: a writer that slept since its
        # append may have an heir by now, whose folders it does not know.
        assert self._prunable is not None, "a step was written"
        newest = sorted(self._alive, key=lambda c: (c.step, c.seq), reverse=True)[: self.keep]
        self._alive = [
            c
            for c in self._alive
            if c in newest or c.boundary is not None or c.step in self.pinned or c.lineage != newest[0].lineage
        ]
        kept = {c.path for c in self._alive}
        for path in self._prunable - kept:
            shutil.rmtree(self.directory / path, ignore_errors=True)
            if not (self.directory / path).exists():
                self._prunable.discard(path)

    def _there(self) -> set[str]:
        try:
            return {f"steps/{name}" for name in os.listdir(self.directory / "steps") if STEP_FOLDER.match(name)}
        except FileNotFoundError:
            return set()

    # Reading

    def candidates(self) -> list[Commit]:
        """Commits of the newest lineage whose folder is still there, the best first: what a restart begins from. Asked
        once, before `resume`."""
        there = self._there()
        if self._prunable is None and self.journal.mine is not None:
            self._prunable = there
        self._alive = [e for e in self.journal.entries if isinstance(e, Commit) and e.path in there]
        return self.committed()

    def committed(self) -> list[Commit]:
        """The same, at any time."""
        there = self._there()
        return [c for c in self.journal.candidates() if c.path in there]

    def read_proof(self, commit: Commit) -> dict[str, Any] | None:
        """The content of digests.json if it is the one that was journalled, else None. Raises CheckpointUnreadable,
        StorageUnavailable."""
        folder = self.directory / commit.path
        return with_retries(f"reading {folder}", lambda: trusted_step.read_proof(folder, commit.step, commit.sha256))

    def read(self, commit: Commit, proof: Mapping[str, Any]) -> Content | None:
        """The state of a commit with every digest recomputed, or None (and a warning that says what is wrong). Raises
        StorageUnavailable."""
        folder = self.directory / commit.path
        return with_retries(f"reading {folder}", lambda: trusted_step.read(folder, commit.step, proof))

    def resume(self, commit: Commit, proof: Mapping[str, Any], lines: list[bytes]) -> None:
        """Goes on from a commit that was read: what lies above it is done again.

        Steps above it could not be read; they neither take the place of good ones among the newest that are kept, nor
        stand lines of theirs twice in the metric stream, which is cut to the restored step. Raises Fenced when the
        directory has a newer owner: cutting its stream would lose lines.
        """
        self.journal.read()
        self.journal.must_be_mine("the metric stream is left alone")
        self._alive = [
            c for c in self._alive if c.lineage != commit.lineage or (c.step, c.seq) <= (commit.step, commit.seq)
        ]
        offset = proof["metrics"]["offset"]
        stream = self.directory / "metrics.jsonl"
        size = stream.stat().st_size if stream.exists() else 0
        if size < offset:
            log.warning(
                "metrics.jsonl lacks %d bytes before the restored step, they are left blank; the hash of the stream is "
                "not affected",
                offset - size,
            )
        with open(stream, "r+b" if stream.exists() else "w+b") as file:
            whole = file.read(offset).rfind(b"\n") + 1 if size < offset else offset  # half a line is none
            file.truncate(whole)
            file.seek(whole)
            file.write(b"".join([b" " * (offset - whole - 1) + b"\n" if whole < offset else b"", *lines]))
        self._streamed = offset + sum(map(len, lines))
