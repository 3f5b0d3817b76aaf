"""A trainer that trains nothing but speaks the whole protocol: progress, stage gate, exit codes, termination messages.

One `Gang` is one attempt: the pods of one JobSet. What a checkpoint would hold lies in a `Storage` that outlives
attempts.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from ratchet_api.protocol import ANNOTATION_STAGE_GATE, LABEL_ATTEMPT, LABEL_JOB_UID, LABEL_JOBSET_UID, PORT, Exit

Raw = dict[str, Any]


@dataclass
class Storage:
    """The checkpoints of one job: newest committed step, and the boundary that was committed with it.

    `weights` is a hash chained over all steps: it is another one when a step was left out, made twice, or made in
    another stage. `claim` is the job uid and attempt that has the journal; others can commit nothing.
    """

    step: int = 0
    stage: int = 0
    start_step: int = 0
    boundary: Raw | None = None
    weights: str = ""
    claim: tuple[str, int] = ("", 0)
    refused: int = 0
    """Commits of attempts that another one had taken the journal from."""
    ends: dict[int, tuple[int, str]] = field(default_factory=dict)  # stage -> last step, and the weights there
    rewinds: dict[str, int] = field(default_factory=dict)  # job uid -> number of the last order carried out

    def obey(self, job_uid: str, spec: Raw) -> None:
        """Goes back where `spec.rewind` says so, once for each order of a job."""
        order = spec.get("rewind")
        if order is None or self.rewinds.get(job_uid, 0) >= order["id"]:
            return
        self.rewinds[job_uid] = order["id"]
        index = [stage["name"] for stage in spec["stages"]].index(order["stage"])
        if index <= self.stage:
            self.step, self.weights = self.ends[index - 1] if index else (0, "")
            self.start_step = self.step
            self.stage, self.boundary = index, None


def trained(weights: str, stage: int, step: int) -> str:
    """The weights after one more step."""
    return hashlib.sha256(f"{weights} {stage} {step}".encode()).hexdigest()


@dataclass
class Pace:
    """How the scripted training behaves."""

    seconds_a_step: float = 0.02
    commit_every: int = 1
    """Steps between two commits; a boundary and a drain commit as well."""
    stop_at: int | None = None
    """Step at which it stands still until told otherwise."""
    drain_seconds: float = 0.05
    serve: bool = True
    """Whether /progress can be reached."""
    boundary_wait: float = 60.0
    fails: Callable[[Raw], int | None] = lambda stage: None
    """Exit code with which the trainer leaves in its first step of a stage, by the stage's spec; None: it goes on."""
    crash: tuple[int, int, str] | None = None
    """Step at which every process leaves with this code and these last words."""
    lie: Raw = field(default_factory=dict)
    """Fields of /progress that are said instead of the truth."""


class Gang:
    """The processes of one attempt; `ended` is their common exit code and termination message."""

    def __init__(self, pod: Raw, job_file: Raw, storage: Storage, pace: Pace, last_step: int = 0):
        labels = pod["metadata"]["labels"]
        self.identity = {
            "jobUID": labels[LABEL_JOB_UID],
            "attempt": int(labels[LABEL_ATTEMPT]),
            "jobSetUID": labels[LABEL_JOBSET_UID],
        }
        self.stages = list(job_file["spec"]["stages"])
        self.may_enter = job_file["mayEnter"]
        storage.obey(labels[LABEL_JOB_UID], job_file["spec"])
        self.finish = False
        self.storage, self.pace = storage, pace
        self._restore()
        self.last_step = last_step
        self.phase, self.draining = "start", False
        self.revision = 0
        self.steps_run: list[int] = []
        self.checkpoints_asked: list[int] = []
        self.ended: asyncio.Future[tuple[int, Raw]] = asyncio.get_running_loop().create_future()
        self.changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None

    # -- life ----------------------------------------------------------------------------------------------------------

    async def lead(self, address: str) -> None:
        """Starts the leader: it claims the journal, and its server and the training begin."""
        own, claimed = (self.identity["jobUID"], self.identity["attempt"]), self.storage.claim
        self.storage.claim = max(own, claimed) if own[0] == claimed[0] else own
        self._restore()
        if self.pace.serve:
            app = web.Application()
            app.router.add_get("/progress", self._answer)
            self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await self._runner.setup()
            await web.TCPSite(self._runner, address, PORT).start()
        self._tasks.append(asyncio.create_task(self._train()))

    async def sigterm(self) -> None:
        """Drains: commits the newest complete state and leaves with 75, the whole gang together."""
        if self.draining or self.ended.done():
            return
        self.draining = True
        self._told(phase="drain")
        await asyncio.sleep(self.pace.drain_seconds)
        if not self._commit():
            return
        self.end(Exit.DRAINED, "drained", boundary=self.boundary if self.phase == "boundary" else None)

    def end(self, code: int, reason: str, **more: Any) -> None:
        """Every process leaves with this code."""
        if not self.ended.done():
            message = {"v": 1, "reason": reason, "message": reason, "step": self.storage.step, **more}
            self.ended.set_result((int(code), {k: v for k, v in message.items() if v is not None}))

    def _restore(self) -> None:
        self.step, self.stage, self.weights = self.storage.step, self.storage.stage, self.storage.weights
        self.start_step, self.boundary = self.storage.start_step, self.storage.boundary
        self.origin = self.step

    def _commit(self) -> bool:
        """Commits where it is; leaves with 73 where a later attempt has claimed the journal."""
        if self.storage.claim != (self.identity["jobUID"], self.identity["attempt"]):
            self.storage.refused += 1
            owner = {"jobUID": self.storage.claim[0], "attempt": self.storage.claim[1]}
            self.end(Exit.FENCED, "fenced", owner=owner)
            return False
        self.storage.step, self.storage.stage, self.storage.start_step = self.step, self.stage, self.start_step
        self.storage.weights, self.storage.boundary = self.weights, self.boundary
        return True

    async def vanish(self) -> None:
        """The processes are gone; nothing is said."""
        for task in self._tasks:
            task.cancel()
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    def hear(self, pod: Raw) -> None:
        """The leader's annotations, as the downward API shows them."""
        text = (pod["metadata"].get("annotations") or {}).get(ANNOTATION_STAGE_GATE)
        if not text:
            return
        gate = json.loads(text)
        if (gate["jobUID"], gate["attempt"]) != (self.identity["jobUID"], self.identity["attempt"]):
            return
        for stage in gate.get("stages", ()):
            self.stages[stage["index"] :] = [stage["spec"]]
        self.may_enter, self.finish = gate["mayEnter"], gate["finish"]
        if gate["checkpointRequest"] > max(self.checkpoints_asked, default=0):
            self.checkpoints_asked.append(gate["checkpointRequest"])
        self.changed.set()

    # -- training ------------------------------------------------------------------------------------------------------

    async def _train(self) -> None:
        self._told(phase="restore")
        await asyncio.sleep(0)
        if self.last_step > 0 and self.origin == 0:
            self.end(Exit.CHECKPOINT_UNREADABLE, f"step {self.last_step} is known, and the directory is empty")
            return
        while not self.draining:
            if (code := self.pace.fails(self.stages[self.stage])) is not None:
                self.end(code, "as the test wants it")
                return
            limit = self.start_step + self.stages[self.stage]["advance"]["steps"]
            while self.step < limit and not self.draining:
                await asyncio.sleep(self.pace.seconds_a_step)
                if self.pace.crash is not None and self.step >= self.pace.crash[0]:
                    self.end(*self.pace.crash[1:])
                    return
                if self.pace.stop_at is not None and self.step >= self.pace.stop_at:
                    continue
                self.step += 1
                self.steps_run.append(self.step)
                self.weights = trained(self.weights, self.stage, self.step)
                if self.step % self.pace.commit_every == 0 and not self._commit():
                    return
                self._told(phase="generate")
            if self.draining:
                return
            self.storage.ends[self.stage] = self.step, self.weights
            self.boundary = {"stage": self.stage, "step": self.step, "rule": "steps"}
            if self.stages[self.stage]["advance"].get("approval") == "Manual":
                self.boundary["needsApproval"] = True
            if not self._commit():
                return
            self._told(phase="boundary")
            if not await self._allowed():
                self.end(Exit.DRAINED, "the stage gate stayed shut", boundary=self.boundary)
                return
            if self.finish and self.may_enter <= self.stage:
                self._told(phase="done")
                self.end(Exit.DONE, "done")
                return
            self.stage, self.start_step, self.boundary = self.stage + 1, self.step, None
            if not self._commit():
                return
            self._told(phase="generate")

    async def _allowed(self) -> bool:
        """Waits for the stage gate to let the next stage begin, or the run end."""
        try:
            async with asyncio.timeout(self.pace.boundary_wait):
                while self.may_enter <= self.stage and not self.finish:
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            return False
        return True

    # -- /progress -----------------------------------------------------------------------------------------------------

    def _told(self, phase: str) -> None:
        self.phase = phase
        self.revision += 1
        self.changed.set()

    async def _answer(self, request: web.Request) -> web.Response:
        after = request.query.get("after")
        if after == str(self.revision):
            try:
                async with asyncio.timeout(20):
                    while after == str(self.revision):
                        self.changed.clear()
                        await self.changed.wait()
            except TimeoutError:
                pass
        name = self.stages[self.stage]["name"]
        limit = self.start_step + self.stages[self.stage]["advance"]["steps"]
        return web.json_response(
            {
                "v": 1, **self.identity, "revision": str(self.revision), "phase": self.phase,
                "stage": {"name": name, "index": self.stage, "startStep": self.start_step},
                "startStep": self.origin, "step": self.step, "targetStep": limit,
                "reward": 0.5, "accuracy": 0.25, "tokensPerSecond": 1000.0,
                "checkpoint": {"step": self.storage.step, "path": f"steps/{self.storage.step}", "time": None},
                "boundary": self.boundary if self.phase == "boundary" else None, "draining": self.draining,
                "parts": {"start": 0.1, "restore": 0.1, "compile": 0.1, "step": 0.1}, "lastSafePointAgeSeconds": 0.0,
                **self.pace.lie,
            }
        )  # fmt: skip


class Worker:
    """One worker of the rollout fleet: it runs until somebody ends it."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[tuple[int, Raw]] = asyncio.get_running_loop().create_future()

    async def lead(self, address: str) -> None:
        """Nobody asks a worker for its progress."""

    def hear(self, pod: Raw) -> None:
        """No gate is written onto a worker."""

    async def sigterm(self) -> None:
        self.end(Exit.DRAINED, "drained")

    async def vanish(self) -> None:
        """Its machine is gone: nothing of it is heard."""

    def end(self, code: int, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result((int(code), {"v": 1, "reason": reason, "message": reason}))
