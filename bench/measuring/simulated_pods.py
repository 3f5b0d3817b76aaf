"""Nodes and pods without machines, thousands of them: what `bench/many_jobs.py` has in place of kubelets and trainers.

A few Nodes with the labels of a TPU pool hold any number of pods. A pod that is bound is Running at once, with an
address on loopback of its own at which a trainer answers `/progress`; it makes a step now and then. A pod that is
deleted is gone at once. All of it is one task of one process, and all else (API server, scheduler, JobSet and Job
controllers) is real.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Any

from aiohttp import web
from kubelet_writes import container_status, now, renew_lease

from ratchet_api.protocol import LABEL_ATTEMPT, LABEL_JOB, LABEL_JOB_UID, LABEL_JOBSET_UID, PORT
from ratchet_cluster.api import Api, ApiError

Raw = dict[str, Any]
NODES = 20
HOLD_SECONDS = 50.0


class Trainer:
    """Answers as the leader of one attempt. It makes its first steps at once, then one every `step_seconds`."""

    def __init__(self, pod: Raw, step_seconds: float):
        labels = pod["metadata"]["labels"]
        self.identity = {
            "jobUID": labels[LABEL_JOB_UID],
            "attempt": int(labels[LABEL_ATTEMPT]),
            "jobSetUID": labels[LABEL_JOBSET_UID],
        }
        self.born = asyncio.get_running_loop().time()
        self.step_seconds = step_seconds

    def step(self) -> int:
        return 3 + int((asyncio.get_running_loop().time() - self.born) / self.step_seconds)

    async def answer(self, request: web.Request) -> web.Response:
        if request.query.get("after") == str(self.step()):
            old = asyncio.get_running_loop().time() - self.born
            await asyncio.sleep(min(HOLD_SECONDS, self.step_seconds - old % self.step_seconds + 0.01))
        step = self.step()
        return web.json_response(
            {
                "v": 1, **self.identity, "revision": str(step), "phase": "generate", "startStep": 0, "step": step,
                "stage": {"name": "reason", "index": 0, "startStep": 0}, "targetStep": 1_000_000, "reward": 0.5,
                "accuracy": 0.25, "tokensPerSecond": 1000.0, "boundary": None, "draining": False,
                "checkpoint": {"step": step - 1, "path": f"steps/{step - 1}", "time": None},
                "parts": {"start": 0.1, "restore": 0.1, "compile": 0.1, "step": 0.1}, "lastSafePointAgeSeconds": 0.0,
            }
        )  # fmt: skip


class Pods:
    """All pods of the cluster that are bound to its nodes. Use as an async context manager."""

    def __init__(self, api: Api, step_seconds: float):
        self.api, self.step_seconds = api, step_seconds
        self.running: dict[tuple[str, str], Raw] = {}  # (namespace, job) -> the pod that runs, as it was started
        self._seen: set[str] = set()
        self._free: list[str] = []
        self._addresses = itertools.count(1)
        self._sites: dict[str, web.TCPSite] = {}
        self._trainers: dict[str, Trainer] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._at_once = asyncio.Semaphore(32)

    async def __aenter__(self) -> Pods:
        app = web.Application()
        app.router.add_get("/progress", self._progress)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        self.nodes = [f"many-{i}" for i in range(NODES)]
        await asyncio.gather(*map(self._node, self.nodes))
        self._spawn(self._renew())
        self._spawn(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await self._runner.cleanup()

    async def preempt(self, namespace: str, job: str) -> None:
        """The machine's end, as kubelet tells it: the pod has Failed, with the reason."""
        pod = self.running.pop((namespace, job))
        disrupted = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet",
                     "message": "Pod was terminated in response to imminent node shutdown."}  # fmt: skip
        await self._end(pod, {"reason": "Terminated", "conditions": [disrupted | {"lastTransitionTime": now()}]})

    # -- nodes ---------------------------------------------------------------------------------------------------------

    async def _node(self, name: str) -> None:
        labels = {
            "kubernetes.io/hostname": name,
            "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
            "cloud.google.com/gke-tpu-topology": "2x2",
            "cloud.google.com/gke-accelerator-count": "4",
            "cloud.google.com/gke-nodepool": "many",
        }
        taints = [{"key": "google.com/tpu", "value": "present", "effect": "NoSchedule"}]
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
                "spec": {"taints": taints, "providerID": f"gce://bench/zone/{name}"}}  # fmt: skip
        await self.api.create("/api/v1/nodes", body)
        await renew_lease(self.api, name)
        much = {"cpu": "100k", "memory": "1Pi", "pods": "100k", "google.com/tpu": "100k", "ephemeral-storage": "1Pi"}
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is ready",
                 "lastHeartbeatTime": now(), "lastTransitionTime": now()}  # fmt: skip
        status = {"conditions": [ready], "capacity": much, "allocatable": much}
        await self.api.patch(f"/api/v1/nodes/{name}/status", {"status": status})

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(2)
            for i in range(NODES):
                await renew_lease(self.api, f"many-{i}")

    # -- pods ----------------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        async for kind, found in self.api.follow("/api/v1/pods"):
            for pod in found if kind == "SYNC" else [found]:
                self._hear(kind, pod)

    def _hear(self, kind: str, pod: Raw) -> None:
        meta = pod["metadata"]
        if not str(pod["spec"].get("nodeName", "")).startswith("many-"):
            return
        if kind == "DELETED":
            self._release(meta["uid"])
        elif "deletionTimestamp" in meta:
            if f"{meta['uid']}-" not in self._seen:
                self._seen.add(f"{meta['uid']}-")
                self._spawn(self._delete(pod))
        elif meta["uid"] not in self._seen:
            self._seen.add(meta["uid"])
            self._spawn(self._start(pod))

    async def _start(self, pod: Raw) -> None:
        async with self._at_once:
            address = self._free.pop() if self._free else self._next_address()
            self._trainers[address] = Trainer(pod, self.step_seconds)
            if address not in self._sites:
                self._sites[address] = site = web.TCPSite(self._runner, address, PORT)
                await site.start()
            pod["_address"] = address
            kinds = ("Ready", "ContainersReady", "Initialized")
            status = {
                "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "hostIP": "127.0.0.1",
                "startTime": now(),
                "conditions": [{"type": k, "status": "True", "lastTransitionTime": now()} for k in kinds],
                "containerStatuses": [container_status(pod, {"running": {"startedAt": now()}}, ready=True)],
            }  # fmt: skip
            await self._status(pod, status)
            self.running[pod["metadata"]["namespace"], pod["metadata"]["labels"][LABEL_JOB]] = pod

    async def _end(self, pod: Raw, more: Raw) -> None:
        ended = {"exitCode": 143, "reason": "Error", "startedAt": now(), "finishedAt": now()}
        conditions = [{"type": "Ready", "status": "False", "reason": "PodFailed", "lastTransitionTime": now()}]
        status = {"phase": "Failed", "containerStatuses": [container_status(pod, {"terminated": ended}, ready=False)]}
        await self._status(pod, status | more | {"conditions": conditions + more.get("conditions", [])})

    async def _delete(self, pod: Raw) -> None:
        async with self._at_once:
            meta = pod["metadata"]
            job = (meta["namespace"], meta["labels"].get(LABEL_JOB, ""))
            if (here := self.running.get(job)) is not None and here["metadata"]["uid"] == meta["uid"]:
                del self.running[job]
                await self._end(pod, {})
            await self.api.delete(f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}", meta["uid"], 0)

    def _release(self, uid: str) -> None:
        self._seen -= {uid, f"{uid}-"}

    def _next_address(self) -> str:
        number = next(self._addresses)
        return f"127.{80 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"

    async def _status(self, pod: Raw, status: Raw) -> None:
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}/status"
        for _ in range(5):
            try:
                await self.api.patch(path, {"status": status})
                return
            except ApiError as error:
                if error.status == 404:
                    return
            except TimeoutError:
                pass

    async def _progress(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        return await self._trainers[request.transport.get_extra_info("sockname")[0]].answer(request)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        with contextlib.suppress(asyncio.CancelledError):
            if error := task.exception():
                raise error
