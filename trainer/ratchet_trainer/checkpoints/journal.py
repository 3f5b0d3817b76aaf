"""The checkpoint journal: who owns a checkpoint directory, and which steps exist in it.

Decides claims, commits and fencing. `journal/%010d.json` from 1; each entry is created only if absent, so two writers
can never both have the same place: the loser re-reads and learns that it has been fenced. "Look for a newer owner, then
commit" would be a race. No two entries are alike, so a writer whose answer was lost knows its own by its content. What
a step's folder holds is `checkpoint.py`'s matter.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet_api.protocol import V
from ratchet_trainer import storage
from ratchet_trainer.errors import CheckpointUnreadable, ConfigurationInvalid, Fenced, StorageUnavailable
from ratchet_trainer.storage import Location
from ratchet_trainer.storage.probe import probe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Commit:
    """A step that exists: its place in the journal and what proves its content."""

    seq: int
    lineage: int
    step: int
    path: str  # of the step's folder, relative to the checkpoint directory
    sha256: str  # of digests.json in it
    boundary: dict[str, Any] | None = None  # {stage, step, rule, needsApproval?} if a stage ended there


@dataclass(frozen=True)
class Claim:
    """From here on the directory belongs to this attempt."""

    seq: int
    namespace: str
    name: str
    job_uid: str
    immutable_spec_hash: str
    attempt: int
    jobset_uid: str
    lineage: int = 1
    rewind: int = 0  # the number of the order (spec.rewind) that it was made under; 0: none
    base: tuple[int, int] | None = None  # step and place in the journal that its lineage goes on from, if it began one

    @property
    def owner(self) -> dict[str, Any]:
        return {"jobUID": self.job_uid, "attempt": self.attempt}


def _job_of(claim: Claim) -> tuple[str, str, str]:
    """What two claims have in common where one job was created twice."""
    return claim.namespace, claim.name, claim.immutable_spec_hash


SWEPT_AT_MOST = 100
"""Tries to make an entry whose temporary file is swept away: each owner before this one sweeps once."""


class Journal:
    """The journal of one directory, as one writer sees it. Methods raise OSError when the storage fails."""

    def __init__(self, directory: Location | Path):
        self.folder = Location.parse(directory) / "journal"
        self.entries: list[Claim | Commit] = []
        self.mine: Claim | None = None
        self._next = 1

    def read(self) -> list[Claim | Commit]:
        """Reads entries that were not seen yet and returns those, in order."""
        found: list[Claim | Commit] = []
        listed = self._listed() if self._next == 1 else []
        # One after the other they would cost a restart from a bucket as many round trips as the run has commits.
        known = dict(zip(listed, storage.read_all(self.folder, map(_name, listed)), strict=True))
        while True:
            seq = self._next
            if (content := known.get(seq)) is None:
                content = storage.read(self._file(seq))
            if content is None:
                later = [number for number in listed if number > seq]
                if not later:
                    return found
                self._next = later[0]  # somebody removed entries: what came after them was listed before this look
                continue
            entry = _parse(self._file(seq), seq, content)
            # Only now: if reading fails here, the next call begins at this entry, and those before are known.
            self._next = seq + 1
            if entry is not None:
                found.append(entry)
                self.entries.append(entry)

    def _file(self, seq: int) -> Location:
        return self.folder / _name(seq)

    def _listed(self) -> list[int]:
        """Numbers that are there, once: later entries are looked for by name, since the folder grows with every step
        ever made, and a listing beside a writer may show a number without the one before it."""
        names = storage.names(self.folder)
        return sorted(int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdigit())

    @property
    def lineage(self) -> int:
        """The newest lineage; lineages count rewinds, from 1."""
        return max((e.lineage for e in self.entries), default=1)

    @property
    def claims(self) -> list[Claim]:
        return [e for e in self.entries if isinstance(e, Claim)]

    @property
    def has_commits(self) -> bool:
        """Whether any step that counts in the newest lineage was ever committed."""
        return bool(self.candidates())

    def candidates(self) -> list[Commit]:
        """Commits of the newest lineage, the best first: highest (step, seq). After a rewind those of the one before it
        count up to where it began."""
        commits = self._of_lineage(self.lineage)
        return sorted(commits, key=lambda c: (c.step, c.seq), reverse=True)

    @property
    def inherited_from(self) -> Claim | None:
        """The last claim of the job that had the directory before this one's first claim; None if it was empty."""
        if self.mine is None:
            return None
        first = next(c for c in self.claims if c.job_uid == self.mine.job_uid)
        return max((c for c in self.claims if c.seq < first.seq), key=lambda c: c.seq, default=None)

    def _of_lineage(self, lineage: int) -> list[Commit]:
        own = [e for e in self.entries if isinstance(e, Commit) and e.lineage == lineage]
        base = next((c.base for c in self.claims if c.lineage == lineage and c.base is not None), None)
        if base is None or lineage <= 1:
            return own
        return own + [c for c in self._of_lineage(lineage - 1) if (c.step, c.seq) <= base]

    def _where_to_begin_again(self, claim: Claim, rewind: tuple[int, int] | None) -> tuple[int, int] | None:
        """Step and place of the commit that ended the stage before the one that is to begin again; (0, 0) for the first
        one. None if there is no order, if it was carried out, or if that stage has not begun."""
        if rewind is None or any(c.job_uid == claim.job_uid and c.rewind >= rewind[0] for c in self.claims):
            return None
        if rewind[1] == 0:
            return (0, 0) if self.has_commits else None
        ends = (c for c in self.candidates() if c.boundary is not None and c.boundary["stage"] == rewind[1] - 1)
        return next(((c.step, c.seq) for c in ends), None)

    def claim(self, claim: Claim, existing: str | None, last_step: int, rewind: tuple[int, int] | None = None) -> None:
        """Makes this attempt the owner, or says why it must not be.

        `claim.seq` and `claim.lineage` are ignored. `existing` is spec.checkpoint.existing (Resume, Refuse or None),
        `last_step` the last step that the job's status knows of, `rewind` the number of spec.rewind and the index of
        its stage. Before the first claim a bucket is tried. Raises Fenced, ConfigurationInvalid, CheckpointUnreadable.
        """
        self.read()
        if not self.claims:
            probe(self.folder.parent)
        while True:
            self._may_claim(claim, existing, last_step)
            base = self._where_to_begin_again(claim, rewind)
            body = {
                "claim": {
                    "v": V,
                    "namespace": claim.namespace,
                    "name": claim.name,
                    "jobUID": claim.job_uid,
                    "immutableSpecHash": claim.immutable_spec_hash,
                    "attempt": claim.attempt,
                    "jobSetUID": claim.jobset_uid,
                    "lineage": self.lineage + (base is not None),
                    **({"rewind": rewind[0]} if rewind is not None else {}),
                    **({"base": {"step": base[0], "seq": base[1]}} if base is not None else {}),
                }
            }
            seq = self._next
            if self._create(seq, body):
                self.read()
                self.mine = next(c for c in self.claims if c.seq == seq)
                storage.sweep(self.folder)  # of writers that died; whoever still lives is fenced
                return
            self.read()  # somebody was quicker: a last commit of the old owner, or another claim

    def _may_claim(self, claim: Claim, existing: str | None, last_step: int) -> None:
        newest = max(self.claims, key=lambda c: (c.lineage, c.seq), default=None)
        if newest is None:
            self._may_begin(existing, last_step)
            return
        if newest.job_uid == claim.job_uid:
            itself = (claim.attempt, claim.jobset_uid) == (newest.attempt, newest.jobset_uid)
            if itself or claim.attempt > newest.attempt:
                return
            raise Fenced(
                f"attempt {claim.attempt} ({claim.jobset_uid}): the directory belongs to attempt {newest.attempt} "
                f"({newest.jobset_uid})",
                newest.owner,
            )
        whose = f"{newest.namespace}/{newest.name} (uid {newest.job_uid})"
        if any(c.job_uid == claim.job_uid for c in self.claims):
            raise Fenced(f"{self.folder.parent} was taken over by {whose}", newest.owner)
        if last_step > 0:
            raise CheckpointUnreadable(
                f"the job's status knows step {last_step}, but {self.folder.parent} holds checkpoints of {whose} only"
            )
        same = _job_of(newest) == _job_of(claim)
        if existing == "Resume" or (existing is None and same):
            return
        raise ConfigurationInvalid(
            f"spec.checkpoint.directory: {self.folder.parent} holds checkpoints of {whose}"
            + ("" if same else ", a job with another name, model, seed or first stage")
            + "; choose another directory, remove this one, or set spec.checkpoint.existing: Resume to go on from them"
        )

    def _may_begin(self, existing: str | None, last_step: int) -> None:
        """Whether a directory without a claim may be taken: one that is empty, or a user says so."""
        directory, steps = self.folder.parent, any(isinstance(e, Commit) for e in self.entries)
        if steps and existing == "Resume":
            return
        if steps or storage.names(directory / "steps"):
            raise CheckpointUnreadable(
                f"{directory} holds steps, but no readable claim in {self.folder} says whose they are; restore the "
                "journal from a copy, choose another directory"
                + (", or set spec.checkpoint.existing: Resume to go on from them" if steps else " or remove this one")
            )
        if last_step > 0:
            raise CheckpointUnreadable(
                f"the job's status knows step {last_step}, but {directory} has no checkpoints; "
                "restore the directory (is it the right volume?), or create the job anew to start over"
            )

    def commit(self, step: int, path: str, sha256: str, boundary: dict[str, Any] | None = None) -> Commit:
        """Makes a step exist. Raises Fenced if a newer claim stands in the way, StorageUnavailable if no entry can be
        made though none is there."""
        assert self.mine is not None, "claim first"
        lineage = self.mine.lineage
        # A claim may be known already, from a read that failed after it: a place behind it must not be taken.
        self.must_be_mine(f"step {step} is not committed")
        body = {"v": V, "lineage": lineage, "step": step, "path": path, "sha256": sha256}
        if boundary is not None:
            body["boundary"] = boundary
        seq = self._next
        for _ in range(SWEPT_AT_MOST):
            if self._create(seq, {"commit": body}):
                break
            newer = self.read()
            own = next((e for e in newer if isinstance(e, Commit) and (e.path, e.sha256) == (path, sha256)), None)
            if own is not None:
                return own  # the entry was made although an earlier try ended with an error
            claim = next((e for e in newer if isinstance(e, Claim)), None)
            if claim is not None or self._next > seq:
                owner = claim.owner if claim else {}
                raise Fenced(f"step {step} is not committed: a newer owner took journal entry {seq}", owner)
            # Nobody took it: an older owner that was slow to sweep has removed the file that was to become the entry.
        else:
            raise StorageUnavailable(
                f"step {step} is not committed: {self._file(seq)} cannot be made, and is not there; look whether "
                "something removes files from the folder"
            )
        made = Commit(seq, lineage, step, path, sha256, boundary)
        self.entries.append(made)
        self._next = seq + 1
        return made

    def must_be_mine(self, otherwise: str) -> None:
        """Raises Fenced, saying what is not done, if a newer claim is known; OSError if this one's is gone: then the
        directory was replaced or removed, and whoever owns what is there now would not be seen."""
        if self.mine is None:
            return
        newer = next((c for c in self.claims if c.seq > self.mine.seq), None)
        if newer is not None:
            raise Fenced(f"{otherwise}: a newer owner took journal entry {newer.seq}", newer.owner)
        if not storage.exists(file := self._file(self.mine.seq)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))

    def _create(self, seq: int, body: dict[str, Any]) -> bool:
        """Creates an entry unless its number is taken. Durable on return."""
        return storage.create(self._file(seq), json.dumps(body, separators=(",", ":")).encode())


def _name(seq: int) -> str:
    return f"{seq:010d}.json"


def _parse(file: Location, seq: int, content: bytes) -> Claim | Commit | None:
    """An entry, or None if it cannot be trusted. Raises CheckpointUnreadable for one of a newer format."""
    try:
        ((kind, body),) = json.loads(content).items()
        newer = int(body["v"]) > V
        if kind == "claim" and not newer:
            return Claim(
                seq,
                str(body["namespace"]),
                str(body["name"]),
                str(body["jobUID"]),
                str(body["immutableSpecHash"]),
                int(body["attempt"]),
                str(body["jobSetUID"]),
                int(body["lineage"]),
                int(body.get("rewind", 0)),
                (int(base["step"]), int(base["seq"])) if (base := body.get("base")) is not None else None,
            )
        if kind == "commit" and not newer:
            return Commit(
                seq,
                int(body["lineage"]),
                int(body["step"]),
                str(body["path"]),
                str(body["sha256"]),
                body.get("boundary"),
            )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s is unreadable and does not count: %r", file, error)
        return None
    if newer:
        raise CheckpointUnreadable(
            f"{file} has format {body['v']}, this trainer knows up to {V}; use the image that wrote it or a newer one"
        )
    log.warning("%s is of an unknown kind %r and does not count", file, kind)
    return None
