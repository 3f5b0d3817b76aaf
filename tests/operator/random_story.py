"""A life of one job by dice: faults of the API, spec edits, losses of every kind, in any order.

The trainers make a step only when they are let, so that what happens between two steps is the story's to say. In the
end everything is mended, approved and resumed, and the job must complete with the weights of an undisturbed run: a
hash chained over all steps (`scripted_trainer.trained`). The invariants on the history are the fixture's. A seed makes
a story; it is not shrunk when it fails, as each try takes minutes, but all its acts are said.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
from typing import Any

from faultproxy import answer, cut, done_but_cut, error_event
from running_operator import World, until
from scripted_trainer import Pace, trained

from ratchet_cluster.api import ApiError

Raw = dict[str, Any]
FAULTS = {
    # name -> method, path, what happens
    "a status is refused by a conflict": ("PUT", "/status$", answer(409, "Conflict")),
    "a status is written and its answer lost": ("PUT", "/status$", done_but_cut()),
    "a status is lost on the way": ("PUT", "/status$", cut),
    "lists fail": ("GET", "/(jobsets|pods)$", answer(500, "InternalError")),
    "a read is cut": ("GET", "/(pods|jobsets|rltrainingjobs/[^/]*)$", cut),
    "the server is busy": ("GET|POST|PUT|DELETE", "/(pods|jobsets)", answer(429, "TooManyRequests", Retry_After="1")),
    "a creation is lost on the way": ("POST", "/(configmaps|jobsets)$", cut),
    "a creation is done and its answer lost": ("POST", "/(configmaps|jobsets)$", done_but_cut()),
    "a webhook refuses": ("POST", "/jobsets$", answer(403, "Forbidden", "admission webhook denied the request")),
    "a deletion is done and its answer lost": ("DELETE", "/(pods|jobsets)/", done_but_cut()),
    "a deletion fails": ("DELETE", "/(pods|jobsets)/", answer(500, "InternalError")),
    "the stage gate is written and its answer lost": ("PATCH", "/pods/", done_but_cut()),
    "events are refused": ("POST", "/events$", answer(500, "InternalError")),
}
STAGE_STEPS = 12
MOST_STAGES = 8
MOST_LOSSES = 2
"""Disturbances without a new step in between: after the third the operator waits half a minute, as it should."""


class Story:
    """One life. What is random is drawn from `dice`; `acts` tells what was done."""

    def __init__(self, world: World, seed: int):
        self.world, self.dice = world, random.Random(seed)
        self.name = "random"
        self.pools = itertools.count(1)
        self.losses = 0
        self.acts: list[str] = []

    async def told(self, acts: int) -> Raw:
        """The story from its beginning to its end; the last status."""
        await self._begin()
        for _ in range(acts):
            await self._act()
            assert self.world.kubelet.overlaps == []
        return await self._end()

    async def _begin(self) -> None:
        await (await self.world.operator(RATCHET_RESYNC_SECONDS="1", RATCHET_LEASE_SECONDS="3")).leads()
        self.world.kubelet.pace[self.name] = self.pace = Pace(stop_at=2, commit_every=3, seconds_a_step=0.01)
        stages = [self._stage("warm-up", "Manual"), self._stage("reason", "None")]
        await self.world.apply(self.name, stages=stages, restart={"failureLimit": 100})
        await until(f"{self.name} runs", self._running)

    async def _act(self) -> None:
        losses = [
            lambda: self._machines_vanish(lives_on=self.dice.random() < 0.5),
            self._preempted,
            lambda: self._process_ends(self.dice.choice([1, 69, 70, 71, 74, 137, 139]), self.dice.random() < 0.5),
            lambda: self._somebody_deletes(self.dice.choice(["pods", "jobsets"])),
            lambda: self._suspend(True),
        ]
        others = [
            lambda: self._steps(self.dice.randint(1, 4)),
            lambda: self._steps(self.dice.randint(1, 4)),
            lambda: self._suspend(False),
            self._approve,
            self._append,
            lambda: self._edit_last(self.dice.randint(1, 9)),
            lambda: self._api_fails(self.dice.choice(sorted(FAULTS)), self.dice.randint(1, 3)),
            lambda: self._events_are_lost(self.dice.randint(1, 20)),
            lambda: self._watch_expires(self.dice.choice(["pods", "jobsets", "rltrainingjobs"])),
            self._operator_killed,
            self._worker_killed,
            self._worker_stands_still,
        ]
        act = self.dice.choice(losses + others)
        if act in losses:
            if self.losses >= MOST_LOSSES:
                act = others[0]
            else:
                self.losses += 1
                with contextlib.suppress(TimeoutError):  # what is lost should be there; suspended, it never is
                    async with asyncio.timeout(3):
                        while not self._running():
                            await asyncio.sleep(0.02)
        self.acts.append(await act())

    # -- what a trainer does -------------------------------------------------------------------------------------------

    async def _steps(self, steps: int) -> str:
        """Lets it make steps; it may be that nothing runs, that it waits for an approval, or that it is over."""
        before = self.world.kubelet.storage[self.name].step
        self.pace.stop_at = max(self.pace.stop_at or 0, before) + steps
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3):
                while not any(gang.step >= self.pace.stop_at for gang in self._gangs()):
                    await asyncio.sleep(0.02)
        after = self.world.kubelet.storage[self.name].step
        if after > before:
            self.losses = 0
        return f"steps up to {self.pace.stop_at}: {after} is committed"

    # -- losses --------------------------------------------------------------------------------------------------------

    async def _machines_vanish(self, lives_on: bool) -> str:
        for node in list(self.world.kubelet.nodes):
            await self.world.kubelet.remove_node(node, lives_on=lives_on)
        await self._machines()
        return "the machines vanish" + (", and the trainer goes on out there" if lives_on else "")

    async def _preempted(self) -> str:
        await asyncio.gather(*(self.world.kubelet.shut_down(node) for node in list(self.world.kubelet.nodes)))
        await self._machines()
        return "the machines are preempted"

    async def _process_ends(self, code: int, leader: bool) -> str:
        pods = [it.pod for it in self._running()]
        if pods:
            pods.sort(key=lambda pod: pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"])
            await self.world.kubelet.kill(pods[0 if leader else -1], code)
        return f"the {'first' if leader else 'last'} of {len(pods)} processes ends with {code}"

    async def _somebody_deletes(self, plural: str) -> str:
        ours = [it for it in await self.world.items(plural) if self.name in it["metadata"]["name"]]
        if ours:
            meta = ours[-1]["metadata"]
            await self.world.api.delete(self.world.path(plural, meta["name"]), meta["uid"])
        return f"somebody deletes one of {len(ours)} {plural}"

    # -- edits ---------------------------------------------------------------------------------------------------------

    async def _suspend(self, suspend: bool) -> str:
        await self.world.edit(self.name, suspend=suspend)
        return "suspended" if suspend else "resumed"

    async def _approve(self) -> str:
        await self.world.edit(self.name, approvals=[{"stage": "warm-up"}])
        return "approved"

    async def _append(self) -> str:
        job = await self.world.job(self.name)
        stages = job["spec"]["stages"]
        if len(stages) >= MOST_STAGES or job["status"].get("phase") in ("Completed", "Failed"):
            return "no stage is appended any more"
        return await self._edited(stages=[*stages, self._stage(f"more-{len(stages)}", "None")])

    async def _edit_last(self, steps: int) -> str:
        stages = (await self.world.job(self.name))["spec"]["stages"]
        stages[-1]["advance"]["steps"] = steps
        return await self._edited(stages=stages)

    async def _edited(self, **spec: Any) -> str:
        """An edit; the API server refuses one of a stage that has begun."""
        last = spec["stages"][-1]
        try:
            await self.world.edit(self.name, **spec)
        except ApiError as error:
            if error.status != 422:
                raise
            return f"the edit of stage {last['name']} is refused"
        return f"stage {last['name']} is to take {last['advance']['steps']} steps"

    # -- the operator and its way to the API ---------------------------------------------------------------------------

    async def _api_fails(self, what: str, times: int) -> str:
        self.world.proxy.fault(*FAULTS[what], times=times)
        return f"{what}, {times} times"

    async def _events_are_lost(self, count: int) -> str:
        left = itertools.count(count, -1)
        self.world.proxy.lose_event = lambda event: event["type"] != "BOOKMARK" and next(left) > 0
        return f"{count} watch events are lost"

    async def _watch_expires(self, plural: str) -> str:
        self.world.proxy.say_in_watch(plural, error_event(410, "Expired"))
        return f"the watch of {plural} expires"

    async def _operator_killed(self) -> str:
        (operator,) = self.world.operators
        await operator.stop(signal.SIGKILL)
        await operator.start()
        return "the operator is killed"

    async def _worker_killed(self) -> str:
        if pid := self.world.operators[0].worker:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return "the worker is killed"

    async def _worker_stands_still(self) -> str:
        if pid := self.world.operators[0].worker:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                await asyncio.sleep(3.5)
                os.kill(pid, signal.SIGCONT)
        return "the worker stands still for longer than its Lease"

    # -- the end -------------------------------------------------------------------------------------------------------

    async def _end(self) -> Raw:
        """Everything is mended; the job completes with the weights of an undisturbed run."""
        self.world.proxy.faults.clear()
        self.world.proxy.lose_event = lambda event: False
        await self.world.edit(self.name, suspend=False, approvals=[{"stage": "warm-up"}])
        self.pace.stop_at = None
        status = await self.world.completed(self.name, seconds=240)
        weights, ends = "", [stage["endStep"] for stage in status["stages"]]
        for stage, (start, end) in enumerate(itertools.pairwise([0, *ends])):
            for step in range(start + 1, end + 1):
                weights = trained(weights, stage, step)
        storage = self.world.kubelet.storage[self.name]
        assert (storage.step, storage.weights) == (ends[-1], weights)
        spec = (await self.world.job(self.name))["spec"]
        assert ends == list(itertools.accumulate(stage["advance"]["steps"] for stage in spec["stages"]))
        assert self.world.kubelet.overlaps == []
        for operator in self.world.operators:
            assert "this is a bug" not in operator.log
        return status

    # -- parts ---------------------------------------------------------------------------------------------------------

    async def _machines(self) -> None:
        if not self.world.kubelet.nodes:
            await self.world.kubelet.add_pool(f"{self.name}-{next(self.pools)}")

    def _running(self) -> list[Any]:
        return [
            it for it in self.world.kubelet.running.values()
            if it.pod["metadata"]["labels"]["ratchet.dev/job-name"] == self.name
        ]  # fmt: skip

    def _gangs(self) -> list[Any]:
        return [it.gang for it in self._running()]

    @staticmethod
    def _stage(name: str, approval: str) -> Raw:
        rl = {"dataset": "sums", "method": "grpo"}
        return {"name": name, "rl": rl, "advance": {"steps": STAGE_STEPS, "approval": approval}}
