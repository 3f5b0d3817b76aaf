"""What stands between a training loop and everything that may befall it.

`run.py` is written against this interface: agreeing with the other processes, saving, restoring, being told to go,
waiting for the word. Decides none of these itself: each has a file of its own (`peers`, `checkpoint`, `preemption`,
`progress`, `word`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet_api.base import read_tolerantly
from ratchet_api.canonical import canonical, immutable_spec_hash
from ratchet_api.job import Spec
from ratchet_api.protocol import BOUNDARY_WAIT_SECONDS
from ratchet_trainer.checkpoints import digests, identity
from ratchet_trainer.checkpoints.checkpoint import Checkpoints, with_retries
from ratchet_trainer.checkpoints.fast_tier import LocalTier
from ratchet_trainer.checkpoints.journal import Claim
from ratchet_trainer.checkpoints.step_folder import Content
from ratchet_trainer.errors import (
    CheckpointUnreadable,
    ConfigurationInvalid,
    Drain,
    Fenced,
    StorageUnavailable,
    TrainerError,
)
from ratchet_trainer.process.agreement import Peers
from ratchet_trainer.process.environment import Environment
from ratchet_trainer.process.progress import Progress
from ratchet_trainer.process.shutdown import Watchdog
from ratchet_trainer.process.stage_gate import Word, WordFile, merged
from ratchet_trainer.rollout.rollout_journal import RolloutJournal

if TYPE_CHECKING:
    import jax

log = logging.getLogger(__name__)

WITHOUT_COLLECTIVES = ("start", "restore", "compile", "boundary")
"""Phases in which nothing is uncommitted and no safe point comes: here the watchdog may leave on its own."""

WORD_SECONDS = 1.0
"""How often the word is looked at within a stage, for a request to checkpoint."""


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
    """The job that is trained, as it stands now: `spec` follows the word at boundaries."""

    namespace: str
    name: str
    uid: str
    attempt: int
    spec: Spec
    may_enter: int


class Runtime:
    """One process of one attempt. *Collective* methods are called on all processes at the same program points."""

    def __init__(
        self, environment: Environment, job: dict[str, Any], peers: Peers, watchdog: Watchdog, progress: Progress
    ):
        """`job` is the content of job.json. JAX must have been started (`distributed.start`). *Collective.*"""
        from ratchet_trainer.process import distributed

        self.environment = environment
        self.process, self.processes = environment.process, environment.processes
        spec = read_tolerantly(Spec, job["spec"])  # an image lives as long as its job; operators may be newer
        self.mesh = distributed.mesh(spec.parallelism)
        self.job = Job(job["namespace"], job["name"], job["jobUID"], environment.attempt, spec, job["mayEnter"])
        self.progress = progress
        self.commit_requested = False  # a checkpoint was asked for by the word; agreed on at safe points
        self._peers, self._watchdog = peers, watchdog
        self._identity = identity.present(self.mesh)
        self.dtype: str | None = None  # that the model is computed in; None until it is known
        if spec.model.dtype != "auto":
            self.compute_in(spec.model.dtype or "float32")
        self._exact_since: dict[str, Any] | None = None
        directory, local = Path(spec.checkpoint.directory), spec.checkpoint.local_directory
        self._checkpoints = Checkpoints(directory, environment.tag, spec.checkpoint.keep, self._identity)
        self.local = LocalTier(Path(local) if local else None, self.process)
        self.rollouts = RolloutJournal(
            directory, self.process, self.processes, self.gather, self.local.folder, spec.checkpoint.journal_seconds
        )
        names = {dataset.name for dataset in spec.datasets}
        self._words = WordFile(environment.word_file, environment.uid, environment.attempt, job["mayEnter"], names)
        self._stages = list(job["spec"]["stages"])  # as admitted: the hashes in the word are of these
        self._honoured = 0  # the last checkpointRequest of the word that was answered
        self._word_read = 0.0
        self._thread = ThreadPoolExecutor(1, "commit")
        self._flight: Future[Any] | None = None
        self._timings: list[bytes] = []
        self.hashes: dict[str, str] = {}  # of the last committed state
        watchdog.flight = lambda: self._flight
        watchdog.on_request = lambda: progress.update(draining=True)
        watchdog.silence = progress.silence
        self.enter("start")

    @cached_property
    def name_of_run(self) -> list[Any]:
        """What tells this run's programs and trajectory from every other's, as plain JSON."""
        return [self.job.uid, identity.config_hash(self.job.spec, 0), self._identity]

    def compute_in(self, dtype: str) -> None:
        """Decides the number format for the job's life."""
        self.dtype = dtype
        if dtype != "float32":
            self._identity["settings"]["dtype"] = dtype

    # Agreeing

    def broadcast(self, value: Any) -> Any:
        """Plain JSON decided on process 0, on all processes. *Collective.* Raises PeerLost."""
        return self._peers.main.broadcast(value)

    def gather(self, value: Any) -> list[Any]:
        """Plain JSON of every process in process order, on all processes. *Collective.* Raises PeerLost."""
        return self._peers.main.gather(value)

    def enter(self, phase: str) -> None:
        """Begins one of `protocol.PROGRESS_PHASES`."""
        self._watchdog.free = phase in WITHOUT_COLLECTIVES
        self.progress.enter(phase)
        self._watchdog.patience = self.patience(phase)

    def patience(self, phase: str) -> float:
        """Seconds in a phase without a sign of life after which the process hangs."""
        return float(self.job.spec.restart.patience(phase))

    def spend(self, category: str) -> None:
        """What comes now is of this category of the ledger, within the same phase."""
        self.progress.ledger.enter(category)

    def safe_point(self) -> None:
        """A place where leaving is cheap. *Collective.* Raises Drain on all processes or on none."""
        self.progress.alive()
        flags = [self._watchdog.requested, self._checkpoint_asked() if self.process == 0 else 0, self.rollouts.due]
        flags = self.gather(flags) if self.processes > 1 else [flags]
        if flags[0][1] > self._honoured:
            self._honoured, self.commit_requested = flags[0][1], True
        self.rollouts.asked = flags[0][2]  # by one clock: what is kept of a call must be as much on every process
        if any(drain for drain, *_ in flags):
            log.info("a safe point in phase %s: all leave", self.progress.document["phase"])
            self.enter("drain")
            raise Drain

    def seconds_to_finish(self) -> float:
        """How long a step that was begun may still take once the process was told to go."""
        return self._watchdog.seconds_to_finish()

    def _checkpoint_asked(self) -> int:
        if time.monotonic() - self._word_read > WORD_SECONDS:
            self._word_read = time.monotonic()
            return self._words.read(self._stages).checkpoint_request
        return self._words.word.checkpoint_request

    # Saving

    def restore(self, shardings: Callable[[str, tuple[int, ...]], jax.sharding.Sharding]) -> Saved | None:
        """Claims the directory and returns the newest state whose digests hold; None when nothing was ever committed.

        `shardings` maps a leaf's path and shape to where it belongs. *Collective.* Raises Fenced, ConfigurationInvalid,
        CheckpointUnreadable, StorageUnavailable.
        """
        self.enter("restore")
        self._collectively(self._claim)
        if self.process == 0:
            candidates = self._checkpoints.candidates()
            plan = [[vars(c) for c in candidates], self._checkpoints.journal.has_commits]
        else:
            plan = None
        rows, journalled = self.broadcast(plan)
        for row in rows:
            if (saved := self._restore_commit(row, shardings)) is not None:
                self._begin_at(saved.step)
                return saved
        if journalled or self.environment.last_step > 0:
            raise CheckpointUnreadable(
                f"{self._checkpoints.directory}: none of the journalled steps can be read"
                + (f"; the job's status knows step {self.environment.last_step}" if self.environment.last_step else "")
                + ". Restore the directory from a copy, or create the job anew in another directory"
            )
        self._begin_at(0)
        log.info("nothing is committed yet: starting at step 0")
        return None

    def _begin_at(self, step: int) -> None:
        self.progress.update(startStep=step)
        if self.process == 0:
            self.progress.ledger.open(self._checkpoints.directory, self.environment.tag, step)
        self._watchdog.last_act = self._last_act

    def _last_act(self, code: int) -> None:
        if self.process == 0:
            self.progress.ledger.close(code)
        self.local.settle()

    def _claim(self) -> None:
        spec = self.job.spec
        claim = Claim(
            0,
            self.job.namespace,
            self.job.name,
            self.job.uid,
            immutable_spec_hash(spec.manifest()),
            self.environment.attempt,
            self.environment.jobset_uid,
        )
        directory = self._checkpoints.directory

        def take() -> None:
            try:
                self._checkpoints.journal.claim(claim, spec.checkpoint.existing, self.environment.last_step)
            except (FileExistsError, NotADirectoryError) as error:
                raise ConfigurationInvalid(
                    f"spec.checkpoint.directory: {directory} cannot be a folder, something else is at "
                    f"{error.filename}; name another path, or move that away"
                ) from error

        with_retries(f"claiming {directory}", take)

    def _collectively(self, operation: Callable[[], None]) -> None:
        """Runs an operation on process 0; what it raises is raised on all."""
        if self.process != 0:
            operation = _nothing
        error: TrainerError | None = None
        try:
            operation()
        except TrainerError as caught:
            error = caught
        told = self.broadcast([error.reason, str(error), getattr(error, "owner", None)] if error else None)
        if error is not None:
            raise error
        if told is not None:
            raise _ERRORS[told[0]](told[1], told[2]) if told[0] == "Fenced" else _ERRORS[told[0]](told[1])

    def _restore_commit(self, row: dict[str, Any], shardings: Callable[..., Any]) -> Saved | None:
        from ratchet_trainer.checkpoints.journal import Commit

        commit = Commit(**row)
        if (found := self.local.find(commit)) is not None:
            proof, content = found
        else:
            proof = self._checkpoints.read_proof(commit)
            content = self._checkpoints.read(commit, proof) if proof is not None else None
        if not all(self.gather(content is not None)):
            return None
        assert proof is not None
        assert content is not None
        if self.dtype is None:
            self.compute_in(identity.dtype_of(proof["identity"]))
        self._exact_since = identity.check(proof["identity"], self.job.spec, self._identity, commit.step)
        if self._exact_since is not None:
            log.warning("bits are as an undisturbed run's since step %(step)d only: %(reason)s", self._exact_since)
        self.hashes = {k: proof[k] for k in ("weightsSha256", "stateSha256")}
        if self.process == 0:
            with_retries("resuming metrics.jsonl", lambda: self._checkpoints.resume(commit, proof, content.lines))
        arrays = _on_devices(content.arrays, shardings)
        self._watchdog.standing.step = commit.step
        stage = content.control["stage"]
        self.progress.update(
            step=commit.step,
            stage={"name": stage["name"], "index": stage["index"], "startStep": stage["start_step"]},
            exactSince=self._exact_since,
            checkpoint=self._shown(commit.step, commit.path),
        )
        log.info("restored step %d from %s", commit.step, commit.path)
        return Saved(commit.step, arrays, dict(content.control))

    def commit(self, saved: Saved, boundary: dict[str, Any] | None = None, wait: bool = False) -> None:
        """Saves a state in the background; one save is in flight at a time, so this waits for the one before.

        On return the arrays are copied to the host and may be donated. `boundary` {stage, step, rule} marks the end of
        a stage. With `wait` the state is committed on return. *Collective.* Raises Fenced, StorageUnavailable.
        """
        self.wait_for_commits()
        if self.process == 0:
            index = saved.control["stage"]["index"]
            self._checkpoints.identity = {
                **self._identity,
                "stage": index,
                "config": identity.config_hash(self.job.spec, index),
                "exactSince": self._exact_since,
            }
        timings, self._timings = self._timings, []
        keep = self.process == 0 or self.local.wants
        arrays = digests.host_copies(saved.arrays, keep) if keep or _spread(saved.arrays) else {}
        content = Content(saved.step, arrays, saved.control, list(saved.lines), timings)
        self.commit_requested = False
        self._flight = self._thread.submit(self._commit, content, boundary)
        if wait:
            self.wait_for_commits()

    def _commit(self, content: Content, boundary: dict[str, Any] | None) -> None:
        """On the commit thread. Process 0 writes; the others hear how it went."""
        error: TrainerError | None = None
        path, hashes, proof = "", {}, b""
        if self.process == 0:
            try:
                commit, hashes, proof = self._checkpoints.write(content, boundary)
                path = commit.path
            except TrainerError as caught:
                error = caught
        shown = proof.decode() if self.local.folder is not None else ""
        told = self._peers.commit.broadcast(
            [path, hashes, shown, [error.reason, str(error), getattr(error, "owner", None)] if error else None]
        )
        if error is not None:
            raise error
        path, hashes, shown, failure = told
        if failure is not None:
            kind, text, owner = failure
            raise Fenced(text, owner) if kind == "Fenced" else StorageUnavailable(text)
        self.hashes = hashes
        self._watchdog.standing.step = content.step
        self._watchdog.standing.boundary = boundary
        self.progress.update(checkpoint=self._shown(content.step, path))
        if content.arrays:
            self.local.put(path, content, shown.encode())

    def wait_for_commits(self) -> None:
        """Returns once no save is in flight. Raises what the save ended with: Fenced, StorageUnavailable, PeerLost."""
        if self._flight is not None:
            self._flight.result()  # a failure stays there: whoever asks again hears it again
            self._flight = None

    def _shown(self, step: int, path: str) -> dict[str, Any]:
        return {"step": step, "path": path, "time": datetime.now(UTC).isoformat(timespec="milliseconds")}

    # Telling and being told

    def step_done(
        self, step: int, target_step: int, stage: dict[str, Any], record: dict[str, Any], timing: dict[str, Any]
    ) -> None:
        """Reports a complete step: `stage` {name, index, startStep}, the step's metrics, and what the clock said."""
        parts = self.progress.first_step_done()
        self.progress.record = record
        self.progress.steps += 1
        self.progress.skipped += timing.get("skippedUpdates", 0)
        self.progress.ledger.step_done(step, timing.get("generatedTokens", timing.get("trainedTokens", 0)))
        if self.process == 0:
            self._timings.append(canonical_timing(step, timing))
        shown = {k: stage[k] for k in ("name", "index", "startStep")}
        changes: dict[str, Any] = {
            "step": step,
            "targetStep": target_step,
            "stage": shown,
            "reward": record.get("train/reward"),
            "accuracy": record.get("train/accuracy"),
            "tokensPerSecond": timing.get("tokensPerSecond"),
            "boundary": None,
        }
        self.progress.update(**changes | ({"parts": parts} if parts else {}))
        if step == self.environment.until_step:
            self._watchdog.request()  # the next safe point is in the step after; what stands there is this step

    def boundary(self, stage_index: int, step: int, rule: str) -> Word:
        """Reports the end of a stage, which must be committed, and waits until the next may begin or all is finished.

        *Collective.* Raises Drain after a minute without a word: the termination message then carries the boundary.
        """
        self.wait_for_commits()
        shown = {"stage": stage_index, "step": step, "rule": rule}
        self._watchdog.standing.boundary = shown
        self.enter("boundary")
        self.progress.update(boundary=shown)
        word = self._await_word(stage_index) if self.process == 0 else None
        told = self.broadcast(word.plain() if word else None)
        if told is None:
            raise Drain(f"no word came in {BOUNDARY_WAIT_SECONDS} s at the end of stage {stage_index}", shown)
        word = Word.from_plain(told)
        self._stages = merged(self._stages, word, stage_index)
        self.job.spec = read_tolerantly(Spec, self.job.spec.manifest() | {"stages": self._stages})
        self.job.may_enter = word.may_enter
        self._watchdog.standing.boundary = None
        if word.ends(stage_index):
            self.enter("done")
            spent = self.progress.ledger.seconds.items()
            log.info("seconds by category: %s", "  ".join(f"{name} {s:.1f}" for name, s in spent if s >= 0.05))
        return replace(word, stages={i: self._stages[i] for i in word.stages if i < len(self._stages)})

    def _await_word(self, stage_index: int) -> Word | None:
        deadline = time.monotonic() + BOUNDARY_WAIT_SECONDS
        while True:
            word = self._words.read(self._stages)
            stages = merged(self._stages, word, stage_index)
            if word.ends(stage_index) or stage_index < word.may_enter < len(stages):
                return word
            if time.monotonic() > deadline:
                return None
            self.progress.alive()
            time.sleep(0.02)


def canonical_timing(step: int, timing: dict[str, Any]) -> bytes:
    """One line of the timings stream."""
    import json

    return json.dumps({"step": step, **timing}, separators=(",", ":")).encode() + b"\n"


def _on_devices(arrays: Any, shardings: Callable[..., Any]) -> dict[str, jax.Array]:
    import jax

    def one(path: str, leaf: Any) -> Any:
        if path.startswith(digests.PENDING):
            return leaf
        return jax.make_array_from_callback(leaf.shape, shardings(path, leaf.shape), lambda index: leaf[index])

    return {path: one(path, leaf) for path, leaf in arrays.items()}


def _spread(arrays: dict[str, Any]) -> bool:
    return any(not (getattr(a, "is_fully_addressable", True) or a.is_fully_replicated) for a in arrays.values())


def _nothing() -> None:
    return None


_ERRORS: dict[str, Any] = {kind.__name__: kind for kind in TrainerError.__subclasses__()}
__all__ = ["Job", "Runtime", "Saved", "Word", "canonical"]
