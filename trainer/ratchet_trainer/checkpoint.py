"""Checkpoints: one folder a step, written by Orbax, proved by digests, made to exist by the journal.

Decides what a step's folder holds, in which order it becomes durable, which steps are kept, and which step a restart
begins from. Who may write at all is the journal's matter; when to save is `run.py`'s.

    steps/<step>-a<N>-<uid8>/arrays/        the leaves, as an Orbax checkpoint of whole host arrays; with `-u<M>` at the
                                            end of the name, the state after M updates of the step after it
                             control.json   everything else of the state, canonical JSON
                             metrics.jsonl  metric lines of the steps since the commit before
                             digests.json   what proves the three above; its own SHA-256 stands in the journal
    metrics.jsonl                           the metric stream of all committed steps, for people and trackers
    timings/a<N>-<uid8>.jsonl               what the clock said, one file an attempt, never hashed
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ratchet_api.canonical import canonical
from ratchet_trainer import digests
from ratchet_trainer.errors import CheckpointUnreadable, StorageUnavailable
from ratchet_trainer.journal import Commit, Journal, sync_folder

log = logging.getLogger(__name__)

FORMAT = 1
BACK_OFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Waits between the tries of an operation on the storage; after the last one it is StorageUnavailable."""


@dataclass(frozen=True)
class Content:
    """One complete state on its way to or from the storage."""

    step: int
    arrays: Mapping[str, np.ndarray]
    control: Mapping[str, Any]
    lines: list[bytes]
    timings: list[bytes] = field(default_factory=list)
    sha256: Mapping[str, str] = field(default_factory=dict)  # path -> digest, known once read


def with_retries(what: str, operation: Callable[[], Any]) -> Any:
    """Runs an operation on the storage, again after each of BACK_OFF_SECONDS. Raises StorageUnavailable."""
    for wait in (*BACK_OFF_SECONDS, None):
        try:
            return operation()
        except Exception as error:
            if not _storage_failed(error):
                raise
            if wait is None:
                raise StorageUnavailable(f"{what}: {error}") from error
            log.warning("%s failed, again in %.1f s: %s", what, wait, error)
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


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
        self._alive: list[Commit] = []  # commits whose folders are there
        self._prunable: set[str] | None = None  # folders that may go once no kept commit needs them
        self._streamed = 0  # bytes of metrics.jsonl that belong to committed steps

    # Writing

    def write(self, content: Content, boundary: dict[str, Any] | None = None) -> tuple[Commit, dict[str, str]]:
        """Makes a state durable and commits it. Returns the commit and `{weightsSha256, stateSha256}`.

        Raises Fenced, or StorageUnavailable after retries; then the journal does not name the step, so nothing
        half-written counts.
        """
        leaf_digests = digests.leaf_digests(content.arrays)
        hashes = {
            "weightsSha256": digests.weights_sha256(leaf_digests),
            "stateSha256": digests.state_sha256(leaf_digests, content.control),
        }
        pending = content.control.get("pending")
        path = f"steps/{content.step}-{self.tag}" + (f"-u{pending['miniBatch']}" if pending else "")
        known = len(self.journal.entries)

        def attempt() -> Commit:
            self.journal.read()
            for entry in self.journal.entries[known:]:
                if isinstance(entry, Commit) and entry.path == path:
                    return entry  # journalled by the try before, which failed only after that: its folder counts now
            self._prunable = (self._there() if self._prunable is None else self._prunable) | {path}
            proof = self._write_step(self.directory / path, content, leaf_digests, hashes)
            return self.journal.commit(content.step, path, proof, boundary)

        commit = with_retries(f"saving step {content.step} to {self.directory}", attempt)
        with_retries("extending metrics.jsonl", lambda: self._extend_streams(content))
        self._streamed += sum(map(len, content.lines))
        self._alive.append(commit)
        self._prune()
        return commit, hashes

    def _write_step(self, folder: Path, content: Content, leaf_digests: dict[str, str], hashes: dict[str, str]) -> str:
        shutil.rmtree(folder, ignore_errors=True)  # what an earlier try of this very attempt left
        folder.mkdir(parents=True)
        _orbax(write=True).save((folder / "arrays").absolute(), dict(content.arrays))
        control, lines = canonical(content.control), b"".join(content.lines)
        proof = canonical(
            {
                "v": FORMAT,
                "step": content.step,
                "leaves": leaf_digests,
                "control": hashlib.sha256(control).hexdigest(),
                "metrics": {"sha256": hashlib.sha256(lines).hexdigest(), "offset": self._streamed},
                **hashes,
                "identity": self.identity,
            }
        )
        for name, data in (("control.json", control), ("metrics.jsonl", lines), ("digests.json", proof)):
            (folder / name).write_bytes(data)
        for parent, _, files in os.walk(folder):
            for name in files:
                _sync_file(os.path.join(parent, name))
            sync_folder(Path(parent))
        sync_folder(folder.parent)
        return hashlib.sha256(proof).hexdigest()

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
            c for c in self._alive if c in newest or c.boundary is not None or c.lineage != newest[0].lineage
        ]
        kept = {c.path for c in self._alive}
        for path in self._prunable - kept:
            shutil.rmtree(self.directory / path, ignore_errors=True)
            if not (self.directory / path).exists():
                self._prunable.discard(path)

    def _there(self) -> set[str]:
        try:
            return {f"steps/{name}" for name in os.listdir(self.directory / "steps")}
        except FileNotFoundError:
            return set()

    # Reading

    def candidates(self) -> list[Commit]:
        """Commits of the newest lineage whose folder is still there, the best first."""
        there = self._there()
        if self._prunable is None and self.journal.mine is not None:
            self._prunable = there
        self._alive = [e for e in self.journal.entries if isinstance(e, Commit) and e.path in there]
        return [c for c in self.journal.candidates() if c.path in there]

    def read_proof(self, commit: Commit) -> dict[str, Any] | None:
        """The content of digests.json if it is the one that was journalled, else None. Raises CheckpointUnreadable."""
        data = with_retries("reading digests.json", lambda: _read(self.directory / commit.path / "digests.json"))
        if data is None or hashlib.sha256(data).hexdigest() != commit.sha256:
            log.warning("step %d: digests.json is not the one that was journalled", commit.step)
            return None
        proof = json.loads(data)
        if proof["v"] > FORMAT:
            raise CheckpointUnreadable(
                f"{self.directory / commit.path} has format {proof['v']}, this trainer knows up to {FORMAT}; "
                "use the image that wrote it or a newer one"
            )
        return proof

    def read(self, commit: Commit, proof: Mapping[str, Any]) -> Content | None:
        """The state of a commit with every digest recomputed, or None (and a warning that says what is wrong)."""
        folder = self.directory / commit.path
        control = with_retries("reading control.json", lambda: _read(folder / "control.json"))
        lines = with_retries("reading metrics.jsonl", lambda: _read(folder / "metrics.jsonl"))
        for name, data, expected in (
            ("control.json", control, proof["control"]),
            ("metrics.jsonl", lines, proof["metrics"]["sha256"]),
        ):
            if data is None or hashlib.sha256(data).hexdigest() != expected:
                log.warning("step %d: %s does not have its digest", commit.step, name)
                return None
        arrays = self._read_arrays(commit, list(proof["leaves"]))
        if arrays is None:
            # Damaged, or is it the storage? Orbax's errors do not tell; plain reads do.
            with_retries("reading the arrays", lambda: _read_all(folder / "arrays"))
            return None
        found = digests.leaf_digests(arrays)
        if found != proof["leaves"]:
            wrong = [path for path in proof["leaves"] if found.get(path) != proof["leaves"][path]]
            log.warning(
                "step %d: %d leaves do not have their digest, the first is %s", commit.step, len(wrong), wrong[0]
            )
            return None
        return Content(commit.step, arrays, json.loads(control), lines.splitlines(keepends=True), sha256=found)

    def _read_arrays(self, commit: Commit, leaves: list[str]) -> dict[str, np.ndarray] | None:
        for last in (False, True):
            try:
                return _orbax(write=False).restore((self.directory / commit.path / "arrays").absolute(), leaves)
            except Exception as error:
                # A damaged file fails in as many ways as it has bytes; what fails twice cannot be trusted.
                log.warning("step %d: the arrays cannot be read: %s", commit.step, str(error)[:500])
                if not last:
                    time.sleep(BACK_OFF_SECONDS[0])
        return None

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
                "metrics.jsonl lacks %d bytes before the restored step; the hash of the stream is not affected",
                offset - size,
            )
        with open(stream, "r+b" if stream.exists() else "w+b") as file:
            file.truncate(offset)
            file.seek(offset)
            file.write(b"".join(lines))
        self._streamed = offset + sum(map(len, lines))


class _Orbax:
    """Orbax for whole host arrays by one process: no barriers, so a lost peer cannot hold a save up."""

    def __init__(self, prefix: str):
        import jax
        import orbax.checkpoint as ocp

        me = jax.process_index()
        options = ocp.options.MultiprocessingOptions(
            primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"{prefix}{me}"
        )
        self._ocp = ocp
        self._checkpointer = ocp.Checkpointer(
            ocp.PyTreeCheckpointHandler(use_ocdbt=True, use_zarr3=False, multiprocessing_options=options),
            multiprocessing_options=options,
        )

    def save(self, path: Path, arrays: dict[str, np.ndarray]) -> None:
        self._checkpointer.save(path, args=self._ocp.args.PyTreeSave(arrays))

    def restore(self, path: Path, leaves: list[str]) -> dict[str, np.ndarray]:
        whole = self._ocp.RestoreArgs(restore_type=np.ndarray)
        arguments = self._ocp.args.PyTreeRestore(restore_args=dict.fromkeys(leaves, whole))
        return {k: np.asarray(v) for k, v in self._checkpointer.restore(path, args=arguments).items()}


_instances: dict[bool, _Orbax] = {}


def _orbax(write: bool) -> _Orbax:
    # Made when first needed: importing Orbax takes a third of a second. Reading and writing may overlap, hence one
    # each.
    if write not in _instances:
        _instances[write] = _Orbax("write" if write else "read")
    return _instances[write]


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _read_all(folder: Path) -> None:
    def failed(error: OSError) -> None:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):  # those are damage, not the storage
            raise error

    for parent, _, files in os.walk(folder, onerror=failed):
        for name in files:
            _read(Path(parent, name))


def _sync_file(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
