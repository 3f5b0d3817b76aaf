"""What survives: claiming the checkpoint directory, restoring from it, saving to it, on every process of an attempt.

Decides which process reads and writes what, and that all hear how it went: arrays are everybody's, each its part, the
rest is process 0's. Which steps are trusted is in `checkpoints.trusted_step`; which exist, in `checkpoints.journal`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ratchet_api.canonical import canonical, immutable_spec_hash
from ratchet_api.job import Spec
from ratchet_trainer.checkpoints import digests, identity, parts
from ratchet_trainer.checkpoints.checkpoint import Checkpoints
from ratchet_trainer.checkpoints.fast_tier import LocalTier
from ratchet_trainer.checkpoints.journal import Claim, Commit
from ratchet_trainer.checkpoints.trusted_step import Content
from ratchet_trainer.errors import CheckpointUnreadable, ConfigurationInvalid, TrainerError, error_of
from ratchet_trainer.process.agreement import Peers
from ratchet_trainer.process.environment import Environment
from ratchet_trainer.process.progress import Progress
from ratchet_trainer.process.shutdown import Watchdog
from ratchet_trainer.process.tracking import LAST_SECONDS, Tracking
from ratchet_trainer.storage import Location, with_retries

if TYPE_CHECKING:
    import jax

log = logging.getLogger(__name__)


@dataclass
class Saved:
    """One complete state, as it is committed and restored.

    `control["stage"]` says which stage the state belongs to: {index, name, start_step, ...}.
    """

    step: int
    arrays: dict[str, Any]  # flat path -> global array, of the host for "pending/"; the policy's begin with "params/"
    control: dict[str, Any]  # plain JSON: the rest of the state; integers, strings, lists; floats as float.hex()
    lines: list[bytes] = field(default_factory=list)  # canonical metric lines since the last commit


@dataclass
class Job:
    """The job that is trained, as it stands now: `spec` follows the gate at boundaries."""

    namespace: str
    name: str
    uid: str
    attempt: int
    spec: Spec
    may_enter: int


class Cache(Protocol):
    """What is kept beside the checkpoints for later steps, and may go once no restart needs it."""

    def list_old(self, step: int) -> list[str]:
        """Names of what no restart needs that begins at `step` or later; asked before a commit."""

    def delete(self, names: list[str]) -> None:
        """Removes what was listed; told after the commit."""


class DurableState:
    """The durable state of one job, as one process of an attempt sees it."""

    def __init__(
        self,
        job: Job,
        environment: Environment,
        mesh: Any,
        peers: Peers,
        watchdog: Watchdog,
        progress: Progress,
    ):
        checkpoint = job.spec.checkpoint
        self._job, self._environment, self._process = job, environment, environment.process
        self._peers, self._watchdog, self._progress = peers, watchdog, progress
        self._identity = identity.present(mesh)
        self.dtype: str | None = None  # that the model is computed in; None until it is known
        self._exact_since: dict[str, Any] | None = None
        self.directory = Location.parse(checkpoint.directory, "spec.checkpoint.directory")
        self._checkpoints = Checkpoints(self.directory, environment.tag, checkpoint.keep, self._identity)
        local = checkpoint.local_directory
        self.local = LocalTier(Path(local) if local else None, self._process)
        self._thread = ThreadPoolExecutor(1, "commit")
        self._flight: Future[Any] | None = None
        self.tracking = Tracking(progress)
        self.timings: list[bytes] = []  # lines for the next commit
        self.hashes: dict[str, str] = {}  # of the last committed state
        self.lineage = 1  # of the journal, once it is claimed
        self.cache: Cache | None = None  # what is kept beside the checkpoints for later steps
        self.sampler: str | None = None  # the identity of the workers that have sampled so far
        watchdog.flight = lambda: self._flight

    @property
    def name_of_run(self) -> list[Any]:
        """What tells this run's programs and trajectory from every other's, as plain JSON."""
        return [self._job.uid, identity.config_hash(self._job.spec, 0), self._identity]

    @property
    def identity(self) -> dict[str, Any]:
        """Versions, settings and topology of this process (`checkpoints.identity`), as plain JSON."""
        return self._identity

    def compute_in(self, dtype: str) -> None:
        """Decides the number format for the job's life."""
        self.dtype = dtype
        if dtype != "float32":
            self._identity["settings"]["dtype"] = dtype

    def restore(
        self,
        shardings: Callable[[str, tuple[int, ...]], jax.sharding.Sharding],
        lacks: Callable[[dict[str, Any]], str | None] = lambda control: None,
    ) -> Saved | None:
        """Claims the directory and returns the newest state whose digests hold; None when nothing was ever committed.

        `shardings` maps a leaf's path and shape to where it belongs. `lacks` is asked on process 0 what a state's
        control values need that is gone (None: nothing); where every sound state lacks something the run begins anew,
        since all of it follows from the seed. *Collective.* Raises Fenced, ConfigurationInvalid, CheckpointUnreadable,
        StorageUnavailable.
        """
        self._collectively(self._claim)
        if self._process == 0:
            candidates, journal = self._checkpoints.candidates(), self._checkpoints.journal
            plan = [[vars(c) for c in candidates], journal.has_commits, journal.lineage]
        else:
            plan = None
        rows, journalled, self.lineage = self._peers.main.broadcast(plan)
        passed_over = False
        for row in rows:
            if (saved := self._restore_commit(row, shardings)) is None:
                continue
            why = self._peers.main.broadcast(lacks(saved.control) if self._process == 0 else None)
            if why is None:
                self._begin_at(saved.step)
                return saved
            log.warning("step %d cannot be gone on from: %s", saved.step, why)
            passed_over = True
        if passed_over:
            if self._process == 0:
                with_retries("beginning metrics.jsonl anew", self._checkpoints.begin_anew)
            self._forget()
            self._begin_at(0)
            log.warning("no committed step can be gone on from: starting at step 0")
            return None
        if journalled or self._environment.last_step > 0:
            raise CheckpointUnreadable(
                f"{self._checkpoints.directory}: none of the journalled steps can be read"
                + (
                    f"; the job's status knows step {self._environment.last_step}"
                    if self._environment.last_step
                    else ""
                )
                + ". Restore the directory from a copy, or create the job anew in another directory"
            )
        self._begin_at(0)
        log.info("nothing is committed yet: starting at step 0")
        return None

    def _forget(self) -> None:
        """Nothing of the states that were read decides what comes, or is shown as if it stood."""
        self.sampler, self._exact_since, self.hashes = None, None, {}
        self._watchdog.standing.step = 0
        self._progress.update(step=0, stage=None, exactSince=None, checkpoint=None)

    def _begin_at(self, step: int) -> None:
        self._progress.update(startStep=step)
        if self._process == 0:
            self._progress.ledger.open(self._checkpoints.directory, self._environment.tag, step)
            spec = self._job.spec
            wanted = spec.trackers.wanted if spec.trackers is not None else {}
            told = {name: settings.manifest() for name, settings in wanted.items()}
            self.tracking.start(told, self._environment, self.directory, spec.manifest())
        self._watchdog.claimed()
        self._watchdog.last_act = self._last_act

    def _last_act(self, code: int) -> None:
        if self._process == 0:
            self._progress.ledger.close(code)
        self.local.settle()
        self.tracking.finish(LAST_SECONDS)

    def _claim(self) -> None:
        spec = self._job.spec
        claim = Claim(
            0,
            self._job.namespace,
            self._job.name,
            self._job.uid,
            immutable_spec_hash(spec.manifest()),
            self._environment.attempt,
            self._environment.jobset_uid,
        )
        directory, journal = self._checkpoints.directory, self._checkpoints.journal
        names = [stage.name for stage in spec.stages]
        rewind = (spec.rewind.id, names.index(spec.rewind.stage)) if spec.rewind is not None else None

        def take() -> None:
            try:
                journal.claim(claim, spec.checkpoint.existing, self._environment.last_step, rewind)
            except (FileExistsError, NotADirectoryError) as error:
                raise ConfigurationInvalid(
                    f"spec.checkpoint.directory: {directory} cannot be a folder, something else is at "
                    f"{error.filename}; name another path, or move that away"
                ) from error

        with_retries(f"claiming {directory}", take)
        if (heir_of := journal.inherited_from) is not None:
            left = {"namespace": heir_of.namespace, "name": heir_of.name, "jobUID": heir_of.job_uid}
            self._progress.update(inherited=left)

    def _collectively(self, operation: Callable[[], None]) -> None:
        """Runs an operation on process 0; what it raises is raised on all."""
        outcome = _outcome(operation) | {"value": None} if self._process == 0 else None
        _value(self._peers.main.broadcast(outcome))

    def weights(self, step: int, shardings: Callable[..., Any]) -> dict[str, Any]:
        """The arrays of the policy of an earlier step, on the devices. *Collective.* Raises CheckpointUnreadable."""
        rows = None
        if self._process == 0:
            rows = [vars(c) for c in self._checkpoints.committed() if c.step == step and "-u" not in c.path]
        for row in self._peers.main.broadcast(rows):
            commit = Commit(**row)
            proof = self._checkpoints.read_proof(commit)
            content = None if proof is None else self._checkpoints.read(commit, proof, shardings, digests.WEIGHTS)
            if all(self._peers.main.gather(content is not None)):
                assert content is not None
                return dict(content.arrays)
        raise CheckpointUnreadable(
            f"{self._checkpoints.directory}: the weights of step {step}, which a stage starts from, are not there or "
            "cannot be read; restore that step from a copy, or let the stage start from previous"
        )

    def ended_stages(self) -> list[dict[str, Any]]:
        """The boundaries of the newest lineage, {stage, step, rule}. *Collective.*"""
        found = [c.boundary for c in self._checkpoints.committed() if c.boundary] if self._process == 0 else None
        return list(self._peers.main.broadcast(found))

    def pin(self, steps: set[int]) -> None:
        """Steps whose checkpoints are kept besides the newest ones, from the next commit on."""
        self._checkpoints.pinned = steps

    def host_copies(self, arrays: dict[str, Any], prefix: str) -> dict[str, Any]:
        """Arrays whose path begins so, whole, on process 0; empty on the others. *Collective.*"""
        own = {path: leaf for path, leaf in arrays.items() if path.startswith(prefix)}
        return parts.host_copies(own, self._process == 0)

    def on_first(self, operation: Callable[[], None]) -> None:
        """Runs an operation on process 0; what it raises is raised on all. *Collective.*"""
        self._collectively(operation)

    def _restore_commit(self, row: dict[str, Any], shardings: Callable[..., Any]) -> Saved | None:
        commit = Commit(**row)
        proof: dict[str, Any] | None
        content: Content | None
        if (found := self.local.find(commit, shardings)) is not None:
            proof, content = found
        else:
            proof = self._checkpoints.read_proof(commit)
            content = self._checkpoints.read(commit, proof, shardings) if proof is not None else None
        if not all(self._peers.main.gather(content is not None)):
            return None
        assert proof is not None
        assert content is not None
        if self.dtype is None:
            self.compute_in(identity.dtype_of(proof["identity"]))
        self.sampler = proof["identity"].get("sampler")
        self._exact_since = identity.check(proof["identity"], self._job.spec, self._identity, commit.step)
        if self._exact_since is not None:
            log.warning("bits are as an undisturbed run's since step %(step)d only: %(reason)s", self._exact_since)
        self.hashes = {k: proof[k] for k in ("weightsSha256", "stateSha256")}
        if self._process == 0:
            with_retries("resuming metrics.jsonl", lambda: self._checkpoints.resume(commit, proof, content.lines))
        self._watchdog.standing.step = commit.step
        stage = content.control["stage"]
        self._progress.update(
            step=commit.step,
            stage={"name": stage["name"], "index": stage["index"], "startStep": stage["start_step"]},
            exactSince=self._exact_since,
            checkpoint=self._shown(commit.step, commit.path),
        )
        log.info("restored step %d from %s", commit.step, commit.path)
        return Saved(commit.step, dict(content.arrays), dict(content.control))

    def commit(self, saved: Saved, boundary: dict[str, Any] | None = None, wait: bool = False) -> None:
        """Saves a state in the background; one save is in flight at a time, so this waits for the one before.

        On return the arrays are copied to the host and may be donated. `boundary` {stage, step, rule} marks the end of
        a stage. With `wait` the state is committed on return. *Collective.* Raises Fenced, StorageUnavailable.
        """
        self.wait_for_commits()
        if self._process == 0:
            index = saved.control["stage"]["index"]
            self._checkpoints.identity = {
                **self._identity,
                "stage": index,
                "config": identity.config_hash(self._job.spec, index),
                "exactSince": self._exact_since,
                **({} if self.sampler is None else {"sampler": self.sampler}),
            }
        timings, self.timings = self.timings, []
        copied = self.local.wants
        part = parts.host_part(saved.arrays, _number(), self._peers.processes, held=copied)
        content = Content(saved.step, part, saved.control, list(saved.lines), timings)
        self._flight = self._thread.submit(self._commit, content, boundary, copied)
        if wait:
            self.wait_for_commits()

    def _commit(self, content: Content, boundary: dict[str, Any] | None, copied: bool) -> None:
        """On the commit thread: process 0 makes room, every process writes its part, process 0 commits once all have.
        The processes meet on lines that break when a peer is gone: then this raises PeerLost, and no step was made.
        `copied`: whether the content has what the fast tier keeps."""
        line, checkpoints, first = self._peers.commit, self._checkpoints, self._process == 0
        _value(line.broadcast(_outcome(lambda: checkpoints.begin(content)) if first else None))
        outcomes = line.collect(_outcome(lambda: checkpoints.write_part(content, self._process)))
        told = _value(line.broadcast(_outcome(lambda: self._finish(content, outcomes, boundary)) if first else None))
        self.hashes = told["hashes"]
        self._watchdog.standing.step = content.step
        self._watchdog.standing.boundary = boundary
        self._progress.update(checkpoint=self._shown(content.step, told["path"]))
        self.tracking.committed()
        if copied:
            self.local.put(told["path"], content, told["proof"].encode())

    def _finish(
        self, content: Content, outcomes: list[dict[str, Any]], boundary: dict[str, Any] | None
    ) -> dict[str, Any]:
        written = [_value(outcome) for outcome in outcomes]
        old = self.cache.list_old(self._restart_step()) if self.cache is not None else []
        commit, proof = self._checkpoints.finish(content, written, boundary)
        if self.cache is not None:  # who is fenced has not come here, and deletes nothing of its heir's
            self.cache.delete(old)
        hashes = {k: proof[k] for k in ("weightsSha256", "stateSha256")}
        return {"path": commit.path, "hashes": hashes, "proof": canonical(proof).decode() if self.local.folder else ""}

    def _restart_step(self) -> int:
        """The lowest step that a restart may begin from before the commit under way: of the newest complete ones, as
        many as are kept."""
        complete = [c.step for c in self._checkpoints.trusted() if "-u" not in c.path][: self._checkpoints.keep]
        return min(complete) if len(complete) == self._checkpoints.keep else 0

    def exact_since(self, step: int, reason: str) -> None:
        """Bits are as an undisturbed run's from this step on only, for this reason."""
        log.warning("bits are as an undisturbed run's since step %d only: %s", step, reason)
        self._exact_since = {"step": step, "reason": reason[:1000]}
        self._progress.update(exactSince=self._exact_since)

    def wait_for_commits(self) -> None:
        """Returns once no save is in flight. Raises what the save ended with: Fenced, StorageUnavailable, PeerLost."""
        if self._flight is not None:
            self._flight.result()  # a failure stays there: whoever asks again hears it again
            self._flight = None

    def _shown(self, step: int, path: str) -> dict[str, Any]:
        return {"step": step, "path": path, "time": datetime.now(UTC).isoformat(timespec="milliseconds")}


def _outcome(operation: Callable[[], Any]) -> dict[str, Any]:
    """What an operation returned, or which of our errors it raised, as plain JSON."""
    try:
        return {"value": operation(), "error": None}
    except TrainerError as error:
        return {"value": None, "error": [error.reason, str(error), getattr(error, "owner", None)]}


def _value(outcome: dict[str, Any]) -> Any:
    """What an operation returned; an error is raised here as it was there."""
    if outcome["error"]:
        raise error_of(*outcome["error"])
    return outcome["value"]


def _number() -> int:
    """JAX's number of this process, which a TPU's runtime gives out as it likes."""
    import jax

    return jax.process_index()
