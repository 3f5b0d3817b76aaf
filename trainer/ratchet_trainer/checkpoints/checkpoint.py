"""Checkpoints: one folder a step, made to exist by the journal.

Decides in which order a step becomes durable, which steps are kept, and which step a restart begins from. What a step's
folder holds is `trusted_step.py`'s matter, who may write at all the journal's; when to save is `run.py`'s.

    steps/<step>-a<N>-<uid8>/   see trusted_step.py; with `-u<M>` at the end, the state after M updates of the next step
    metrics.jsonl               the metric stream of all committed steps, for people and trackers; in a bucket a folder
                                of pieces (storage/stream.py)
    timings/a<N>-<uid8>.jsonl   what the clock said, one file an attempt, never hashed
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ratchet_api.canonical import canonical
from ratchet_trainer import storage
from ratchet_trainer.checkpoints import digests, trusted_step
from ratchet_trainer.checkpoints.array_reader import Shardings
from ratchet_trainer.checkpoints.journal import Commit, Journal
from ratchet_trainer.checkpoints.trusted_step import Content
from ratchet_trainer.storage import Location, with_retries
from ratchet_trainer.storage.stream import Stream

log = logging.getLogger(__name__)

TIMINGS = "timings"
STEP_FOLDER = re.compile(r"[0-9]+-a[0-9]+-")
"""How the names of folders begin that a trainer has made; no other is ever removed."""


class Checkpoints:
    """The checkpoint directory of one job, as one process sees it. Every process writes its part of
    the arrays, process 0 all else."""

    def __init__(self, directory: Location | Path, tag: str, keep: int, identity: Mapping[str, Any]):
        self.directory = Location.parse(directory)
        self.stream = stream_of(self.directory)
        self._timings = Stream(self.directory / TIMINGS / f"{tag}.jsonl")  # kept: it knows where it ends
        self.journal = Journal(self.directory)
        self.tag = tag  # a<N>-<uid8> of this attempt
        self.keep = keep
        self.identity = identity
        self.pinned: set[int] = set()  # steps that are kept whatever their age
        self._alive: list[Commit] = []  # commits whose folders are there
        self._prunable: set[str] | None = None  # folders that may go once no kept commit needs them
        self._streamed = 0  # bytes of metrics.jsonl that belong to committed steps

    # Writing

    def write(self, content: Content, boundary: dict[str, Any] | None = None) -> tuple[Commit, dict[str, Any]]:
        """`begin`, `write_part` and `finish` where one process is all there are."""
        self.begin(content)
        return self.finish(content, [self.write_part(content, 0)], boundary)

    def begin(self, content: Content) -> None:
        """Makes room for a step, before the processes write their parts. On process 0. Raises Fenced, or
        StorageUnavailable after retries."""

        def attempt() -> None:
            self.journal.read()
            self.journal.must_be_mine(f"step {content.step} is not saved")
            path = self.path_of(content)
            self._prunable = (self._there() if self._prunable is None else self._prunable) | {path}
            trusted_step.begin(self.directory / path)

        with_retries(f"saving step {content.step} to {self.directory}", attempt)

    def write_part(self, content: Content, process: int) -> digests.BlockDigests:
        """Makes what this process writes of a step durable. On every process, after `begin`. Raises StorageUnavailable
        after retries."""
        found = digests.of_part(content.arrays)
        folder = self.directory / self.path_of(content)
        with_retries(
            f"saving step {content.step} to {self.directory}",
            lambda: trusted_step.write_part(folder, process, content.arrays),
        )
        return found

    def finish(
        self, content: Content, written: Sequence[digests.BlockDigests], boundary: dict[str, Any] | None = None
    ) -> tuple[Commit, dict[str, Any]]:
        """Commits a step of which every process has `written` its part, in process order. On process 0. Returns the
        commit and the content of digests.json.

        Raises Fenced, or StorageUnavailable after retries; then the journal does not name the step, so nothing
        half-written counts.
        """
        leaves = digests.of_leaves(content.arrays, written)
        proof = trusted_step.proof_of(content, leaves, self._streamed, self.identity)
        data = canonical(proof)
        path = self.path_of(content)
        known = len(self.journal.entries)

        def attempt() -> Commit:
            self.journal.read()
            self.journal.must_be_mine(f"step {content.step} is not saved")
            for entry in self.journal.entries[known:]:
                if isinstance(entry, Commit) and entry.path == path:
                    return entry  # journalled by the try before, which failed only after that: its folder counts now
            trusted_step.finish(self.directory / path, content, data, range(len(written)))
            return self.journal.commit(content.step, path, hashlib.sha256(data).hexdigest(), boundary)

        commit = with_retries(f"saving step {content.step} to {self.directory}", attempt)
        with_retries("extending metrics.jsonl", lambda: self._extend_streams(content))
        self._streamed += sum(map(len, content.lines))
        self._alive.append(commit)
        self._prune()
        return commit, proof

    def path_of(self, content: Content) -> str:
        """Of a step's folder in the directory; the same on all processes of an attempt."""
        pending = content.control.get("pending")
        return f"steps/{content.step}-{self.tag}" + (f"-u{pending['miniBatch']}" if pending else "")

    def _extend_streams(self, content: Content) -> None:
        self.stream.put(self._streamed, b"".join(content.lines))
        if content.timings:
            self._timings.append(b"".join(content.timings))

    def _prune(self) -> None:
        # Of what was there after the claim or is our own, never of what is there now: a writer that slept since its
        # append may have an heir by now, whose folders it does not know.
        assert self._prunable is not None, "a step was written"
        lineage = self.journal.lineage  # steps of older ones are kept
        own = [c for c in self._alive if c.lineage == lineage]
        newest = sorted(own, key=lambda c: (c.step, c.seq), reverse=True)[: self.keep]
        self._alive = [
            c
            for c in self._alive
            if c in newest or c.boundary is not None or c.step in self.pinned or c.lineage != lineage
        ]
        kept = {c.path for c in self._alive}
        for path in self._prunable - kept:
            with contextlib.suppress(OSError):  # another time
                storage.delete_tree(self.directory / path)
                self._prunable.discard(path)

    def _there(self) -> set[str]:
        return {f"steps/{name}" for name in storage.names(self.directory / "steps") if STEP_FOLDER.match(name)}

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

    def trusted(self) -> list[Commit]:
        """The same, without those that the restart has passed over."""
        return [c for c in self.committed() if c in self._alive]

    def read_proof(self, commit: Commit) -> dict[str, Any] | None:
        """The content of digests.json if it is the one that was journalled, else None. Raises CheckpointUnreadable,
        StorageUnavailable."""
        folder = self.directory / commit.path
        return with_retries(f"reading {folder}", lambda: trusted_step.read_proof(folder, commit.step, commit.sha256))

    def read(
        self, commit: Commit, proof: Mapping[str, Any], shardings: Shardings | None = None, wanted: str = ""
    ) -> Content | None:
        """The state of a commit, or this process's part of it; see `trusted_step.read`. None (and a warning) if it is
        not what was written. Raises StorageUnavailable."""
        folder = self.directory / commit.path
        return with_retries(
            f"reading {folder}", lambda: trusted_step.read(folder, commit.step, proof, shardings, wanted)
        )

    def resume(self, commit: Commit, proof: Mapping[str, Any], lines: list[bytes]) -> None:
        """Goes on from a commit that was read: what lies above it is done again.

        Steps above it could not be read; they neither take the place of good ones among the newest that are kept, nor
        stand lines of theirs twice in the metric stream, which is cut to the restored step. Raises Fenced when the
        directory has a newer owner: cutting its stream would lose lines.
        """
        self.journal.read()
        self.journal.must_be_mine("the metric stream is left alone")
        self._alive = [
            c for c in self._alive if c.lineage != self.journal.lineage or (c.step, c.seq) <= (commit.step, commit.seq)
        ]
        offset = proof["metrics"]["offset"]
        if blank := self.stream.restart(offset, b"".join(lines)):
            log.warning(
                "metrics.jsonl lacks %d bytes before the restored step, they are left blank; the hash of the stream is "
                "not affected",
                blank,
            )
        self._streamed = offset + sum(map(len, lines))

    def begin_anew(self) -> None:
        """Goes on from step 0 although steps are there: they are done again. Raises Fenced as `resume` does."""
        self.journal.read()
        self.journal.must_be_mine("the metric stream is left alone")
        self._alive = [c for c in self._alive if c.lineage != self.journal.lineage]
        self.stream.restart(0, b"")
        self._streamed = 0


def stream_of(directory: Location) -> Stream:
    """The metric stream of a checkpoint directory."""
    return Stream(directory / "metrics.jsonl")
