"""What stands between a training loop and everything that may befall it.

`run.py` is written against this interface: agreeing with the other processes, saving, restoring, being told to go,
waiting at the stage gate. Decides none of these itself: each has a file of its own (`agreement`, `checkpoint`,
`shutdown`, `progress`, `stage_gate`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ratchet_api.base import read_tolerantly
from ratchet_api.job import Spec
from ratchet_api.protocol import BOUNDARY_WAIT_SECONDS
from ratchet_trainer.errors import DRAINED, Drain
from ratchet_trainer.process.agreement import Peers
from ratchet_trainer.process.durable_state import DurableState, Job, Saved
from ratchet_trainer.process.environment import Environment
from ratchet_trainer.process.progress import Progress
from ratchet_trainer.process.shutdown import Watchdog
from ratchet_trainer.process.stage_gate import Gate, GateFile, merged
from ratchet_trainer.rollout.rollout_journal import RolloutJournal

if TYPE_CHECKING:
    import jax

log = logging.getLogger(__name__)

WITHOUT_COLLECTIVES = ("start", "restore", "compile", "boundary")
"""Phases in which nothing is uncommitted and no safe point comes: here the watchdog may leave on its own."""

GATE_SECONDS = 1.0
"""How often the gate is looked at within a stage, for a request to checkpoint."""


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
        self.commit_requested = False  # a checkpoint was asked for by the gate; agreed on at safe points
        self._peers, self._watchdog = peers, watchdog
        self.durable = DurableState(self.job, environment, self.mesh, peers, watchdog, progress)
        if spec.model.dtype != "auto":
            self.compute_in(spec.model.dtype or "float32")
        self.directory, self.data_cache = self.durable.directory, self.durable.directory / "data-index"
        self.local = self.durable.local
        self.rollouts = RolloutJournal(
            self.directory,
            self.process,
            self.processes,
            self.gather,
            self.local.folder,
            spec.checkpoint.journal_seconds,
        )
        names = {dataset.name for dataset in spec.datasets}
        self._gate_file = GateFile(
            environment.stage_gate_file, environment.uid, environment.attempt, job["mayEnter"], names
        )
        self._stages = list(job["spec"]["stages"])  # as admitted: the hashes in the gate are of these
        self._honoured = 0  # the last checkpointRequest of the gate that was answered
        self._gate_read = 0.0
        self._until_reached = False  # the step is made after which this attempt ends
        watchdog.on_request = lambda: progress.update(draining=True)
        watchdog.silence = progress.silence
        self.enter("start")

    @property
    def name_of_run(self) -> list[Any]:
        """What tells this run's programs and trajectory from every other's, as plain JSON."""
        return self.durable.name_of_run

    @property
    def dtype(self) -> str | None:
        """The number format that the model is computed in; None until it is known."""
        return self.durable.dtype

    def compute_in(self, dtype: str) -> None:
        """Decides the number format for the job's life."""
        self.durable.compute_in(dtype)

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

    def alive(self) -> None:
        """A sign of life in the middle of something long."""
        self.progress.alive()

    def spend(self, category: str) -> None:
        """What comes now is of this category of the ledger, within the same phase."""
        self.progress.ledger.enter(category)

    def safe_point(self) -> None:
        """A place where leaving is cheap. *Collective.* Raises Drain on all processes or on none."""
        self.progress.alive()
        told = self._watchdog.requested or self._until_reached
        mine = [told, self._checkpoint_asked() if self.process == 0 else 0, self.rollouts.due]
        flags: list[list[Any]] = self.gather(mine) if self.processes > 1 else [mine]
        if flags[0][1] > self._honoured:
            self._honoured, self.commit_requested = flags[0][1], True
        self.rollouts.asked = flags[0][2]  # by one clock: what is kept of a call must be as much on every process
        if any(drain for drain, *_ in flags):
            log.info("a safe point in phase %s: all leave", self.progress.document["phase"])
            self.enter("drain")
            raise Drain

    @property
    def grace(self) -> float:
        """Seconds from being told to go to the end by force."""
        return self._watchdog.grace

    def seconds_to_finish(self) -> float:
        """How long a step that was begun may still take once the process was told to go."""
        return self._watchdog.seconds_to_finish()

    def _checkpoint_asked(self) -> int:
        if time.monotonic() - self._gate_read > GATE_SECONDS:
            self._gate_read = time.monotonic()
            return self._gate_file.read(self._stages).checkpoint_request
        return self._gate_file.gate.checkpoint_request

    # Saving: see `DurableState`, which says what each raises.

    def restore(
        self,
        shardings: Callable[[str, tuple[int, ...]], jax.sharding.Sharding],
        lacks: Callable[[dict[str, Any]], str | None] = lambda control: None,
    ) -> Saved | None:
        """Claims the directory and returns the newest state whose digests hold and which `lacks` nothing, None to begin
        at step 0. *Collective.*"""
        self.enter("restore")
        return self.durable.restore(shardings, lacks)

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this process's bits (`checkpoints.identity`), as plain JSON."""
        return self.durable.identity

    @property
    def lineage(self) -> int:
        """Counts rewinds, from 1; known once the directory is claimed."""
        return self.durable.lineage

    def commit(self, saved: Saved, boundary: dict[str, Any] | None = None, wait: bool = False) -> None:
        """Saves a state in the background; on return its arrays may be donated. *Collective.*"""
        self.commit_requested = False
        self.durable.commit(saved, boundary, wait)

    def wait_for_commits(self) -> None:
        """Returns once no save is in flight."""
        self.durable.wait_for_commits()

    def weights(self, step: int, shardings: Callable[..., Any]) -> dict[str, Any]:
        """The arrays of the policy of an earlier step, on the devices. *Collective.*"""
        return self.durable.weights(step, shardings)

    def ended_stages(self) -> list[dict[str, Any]]:
        """The boundaries of the newest lineage, {stage, step, rule}. *Collective.*"""
        return self.durable.ended_stages()

    def pin(self, steps: set[int]) -> None:
        """Steps whose checkpoints are kept besides the newest ones, from the next commit on."""
        self.durable.pin(steps)

    # Telling and being told

    def tell(self, **shown: Any) -> None:
        """Shows entries of /progress."""
        self.progress.update(**shown)

    def tell_work(self, parameters: int, peak_flops: float) -> None:
        """Says how large the policy is, and what its devices could do in a second; 0: nobody knows."""
        self.progress.totals.parameters, self.progress.totals.peak_flops = parameters, peak_flops

    def step_done(
        self, step: int, target_step: int, stage: dict[str, Any], record: dict[str, Any], timing: dict[str, Any]
    ) -> None:
        """Reports a complete step: `stage` as `State.stage_shown`, the step's metrics, and what the clock said."""
        parts = self.progress.first_step_done()
        self.progress.record = record
        self.progress.totals.add(timing)
        self.progress.ledger.step_done(step, timing.get("generatedTokens", timing.get("trainedTokens", 0)))
        if self.process == 0:
            self.durable.timings.append(canonical_timing(step, timing))
        changes: dict[str, Any] = {
            "step": step,
            "targetStep": target_step,
            "stage": stage,
            "reward": record.get("train/reward"),
            "accuracy": record.get("train/accuracy", record.get("curate/accuracy")),
            "tokensPerSecond": timing.get("tokensPerSecond"),
            "boundary": None,
        }
        self.progress.update(**changes | ({"parts": parts} if parts else {}))
        # The next safe point is in the step after: what stands there is this step. Nobody ends the process by force, so
        # it takes the time that its last save needs.
        self._until_reached = step == self.environment.until_step

    def last_words(self, stage: dict[str, Any] | None, reason: str = DRAINED, text: str = "") -> None:
        """Has the termination message tell of the stage, as `State.stage_shown`, and of a reason of the run's own if
        the process is told to go before it leaves by itself."""
        standing = self._watchdog.standing
        standing.stage, standing.reason, standing.text = stage, reason, text

    def at_last(self, act: Callable[[int], None]) -> None:
        """Has something done with the exit code just before the end, whichever thread ends the process. It may take a
        few seconds. For a process that restores no state: of one that does, the ledger is closed then."""
        self._watchdog.last_act = act

    def boundary(self, stage_index: int, step: int, rule: str, needs_approval: bool = False) -> Gate:
        """Reports the end of a stage, which must be committed, and waits until the next may begin or all is finished.
        Whether an approval is needed first, and there, is the operator's matter: here it is only told.

        *Collective.* Raises Drain when the gate stays shut for a minute; the termination message has the boundary then.
        """
        self.wait_for_commits()
        if self._until_reached:
            self._watchdog.request()
        shown = {"stage": stage_index, "step": step, "rule": rule}
        shown |= {"needsApproval": True} if needs_approval else {}
        self._watchdog.standing.boundary = shown
        self.enter("boundary")
        self.progress.update(boundary=shown)
        gate = self._await_gate(stage_index) if self.process == 0 else None
        told = self.broadcast(gate.plain() if gate else None)
        if told is None:
            raise Drain(f"the stage gate stayed shut for {BOUNDARY_WAIT_SECONDS} s after stage {stage_index}", shown)
        gate = Gate.from_plain(told)
        self._stages = merged(self._stages, gate, stage_index)
        self.job.spec = read_tolerantly(Spec, self.job.spec.manifest() | {"stages": self._stages})
        self.job.may_enter = gate.may_enter
        self._watchdog.standing.boundary = None
        self.last_words(None)
        if gate.ends(stage_index):
            self.enter("done")
            spent = self.progress.ledger.seconds.items()
            log.info("seconds by category: %s", "  ".join(f"{name} {s:.1f}" for name, s in spent if s >= 0.05))
        return replace(gate, stages={i: self._stages[i] for i in gate.stages if i < len(self._stages)})

    def _await_gate(self, stage_index: int) -> Gate | None:
        deadline = time.monotonic() + BOUNDARY_WAIT_SECONDS
        while True:
            gate = self._gate_file.read(self._stages)
            stages = merged(self._stages, gate, stage_index)
            if gate.ends(stage_index) or stage_index < gate.may_enter < len(stages):
                return gate
            if time.monotonic() > deadline:
                return None
            self.progress.alive()
            time.sleep(0.02)


def canonical_timing(step: int, timing: dict[str, Any]) -> bytes:
    """One line of the timings stream."""
    import json

    return json.dumps({"step": step, **timing}, separators=(",", ":")).encode() + b"\n"


__all__ = ["Gate", "Job", "Runtime", "Saved"]
