"""A trainer that trains nothing but speaks the whole protocol: progress, stage gate, exit codes, termination messages.

One `Gang` is one attempt: the pods of one JobSet. What a checkpoint would hold lies in a `Storage` that outlives
attempts.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from ratchet_api.protocol import ANNOTATION_STAGE_GATE, LABEL_ATTEMPT, LABEL_JOB_UID, LABEL_JOBSET_UID, PORT, Exit

Raw = dict[str, Any]


@dataclass
class Storage:
    """The checkpoints of one job: newest committed step, and the boundary that was committed with it."""

    step: int = 0
    stage: int = 0
    start_step: int = 0
    boundary: Raw | None = None


@dataclass
class Pace:
    """How the scripted training behaves."""

    seconds_a_step: float = 0.02
    stop_at: int | None = None
    """Step at which it stands still until told otherwise."""
    drain_seconds: float = 0.05
    serve: bool = True
    """Whether /progress can be reached."""
    boundary_wait: float = 60.0
    lie: Raw = field(default_factory=dict)
    """Fields of /progress that are said instead of the truth."""


class Gang:
    """The processes of one attempt; `ended` is their common exit code and termination message."""

    def __init__(self, pod: Raw, job_file: Raw, storage: Storage, pace: Pace):
        labels = pod["metadata"]["labels"]
        self.identity = {
            "jobUID": labels[LABEL_JOB_UID],
            "attempt": int(labels[LABEL_ATTEMPT]),
            "jobSetUID": labels[LABEL_JOBSET_UID],
        }
        self.stages = list(job_file["spec"]["stages"])
        self.may_enter = job_file["mayEnter"]
        self.finish = False
        self.storage, self.pace = storage, pace
        self.step, self.stage = storage.step, storage.stage
        self.start_step = storage.start_step
        self.origin = storage.step
        self.phase, self.boundary, self.draining = "start", storage.boundary, False
        self.revision = 0
        self.steps_run: list[int] = []
        self.checkpoints_asked: list[int] = []
        self.ended: asyncio.Future[tuple[int, Raw]] = asyncio.get_running_loop().create_future()
        self.changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None

    # -- life ----------------------------------------------------------------------------------------------------------

    async def lead(self, address: str) -> None:
        """Starts the leader: its server and the training."""
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
        self.storage.step, self.storage.stage = max(self.storage.step, self.step), self.stage
        self.end(Exit.DRAINED, "drained", boundary=self.boundary if self.phase == "boundary" else None)

    def end(self, code: int, reason: str, **more: Any) -> None:
        """Every process leaves with this code."""
        if not self.ended.done():
            message = {"v": 1, "reason": reason, "message": reason, "step": self.storage.step, **more}
            self.ended.set_result((int(code), {k: v for k, v in message.items() if v is not None}))

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
        while not self.draining:
            limit = self.start_step + self.stages[self.stage]["advance"]["steps"]
            while self.step < limit and not self.draining:
                await asyncio.sleep(self.pace.seconds_a_step)
                if self.pace.stop_at is not None and self.step >= self.pace.stop_at:
                    continue
                self.step += 1
                self.steps_run.append(self.step)
                self.storage.step, self.storage.stage = self.step, self.stage
                self._told(phase="generate")
            if self.draining:
                return
            self.boundary = self.storage.boundary = {"stage": self.stage, "step": self.step, "rule": "steps"}
            if self.stages[self.stage]["advance"].get("approval") == "Manual":
                self.boundary["needsApproval"] = True
            self._told(phase="boundary")
            if not await self._allowed():
                self.end(Exit.DRAINED, "the stage gate stayed shut", boundary=self.boundary)
                return
            if self.finish and self.may_enter <= self.stage:
                self._told(phase="done")
                self.end(Exit.DONE, "done")
                return
            self.storage.stage = self.stage = self.stage + 1
            self.storage.start_step = self.start_step = self.step
            self.storage.boundary = self.boundary = None
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
