"""Nodes and pods as a kubelet would write them, without any machine: the test decides when what dies.

A pool is a set of Node objects that look like GKE TPU nodes; a pod that the scheduler binds to one of them gets an
address on loopback and becomes a member of its attempt's scripted gang.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kubelet_writes import container_status, now, renew_lease
from scripted_trainer import Gang, Pace, Storage, Worker

from ratchet_api.protocol import LABEL_JOB, LABEL_JOBSET_UID, LABEL_WORKER, Exit
from ratchet_cluster.api import MERGE, Api, ApiError

Raw = dict[str, Any]
INDEX = "batch.kubernetes.io/job-completion-index"
WORLD = "test.ratchet.dev/world"
"""Label of the nodes that are one test's own: real node agents may be on the same control plane."""


@dataclass
class Running:
    """A pod that has been started."""

    pod: Raw
    gang: Gang | Worker
    task: asyncio.Task[None]


class Kubelet:
    """Runs the pods of one namespace. `storage` and `pace` belong to the jobs of the test, by name."""

    _addresses = itertools.count(1)

    def __init__(self, api: Api, namespace: str):
        self.api, self.namespace = api, namespace
        self.storage: dict[str, Storage] = {}
        self.pace: dict[str, Pace] = {}
        self.gangs: dict[str, Gang] = {}  # JobSet uid -> gang
        self.workers: dict[int, Worker] = {}  # number of a worker -> the one that was last started
        self.running: dict[str, Running] = {}  # pod uid -> pod
        self.nodes: dict[str, str] = {}  # name -> uid
        self.hold_start = asyncio.Event()  # set: bound pods start
        self.hold_start.set()
        self.frozen: set[str] = set()  # nodes that answer nobody
        self.overlaps: list[str] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._pods: dict[str, Raw] = {}
        self._over: set[str] = set()  # uids of pods whose end has been written
        self.on_pod: Callable[[str, Raw], None] = lambda kind, pod: None

    async def __aenter__(self) -> Kubelet:
        self._spawn(self._follow())
        self._spawn(self._renew())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in [*self._tasks, *(it.task for it in self.running.values())]:
            task.cancel()
        for gang in self.gangs.values():
            await gang.vanish()
        for name in list(self.nodes):
            await self.remove_node(name)

    # -- nodes ---------------------------------------------------------------------------------------------------------

    async def add_pool(self, pool: str, hosts: int = 2, topology: str = "2x4", spot: bool = True) -> list[str]:
        """Nodes of one pool; returns their names."""
        names = [f"{self.namespace}-{pool}-{i}" for i in range(hosts)]
        for name in names:
            labels = {
                "kubernetes.io/hostname": name,
                "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
                "cloud.google.com/gke-tpu-topology": topology,
                "cloud.google.com/gke-accelerator-count": "4",
                "cloud.google.com/gke-nodepool": f"{self.namespace}-{pool}",
                WORLD: self.namespace,
            } | ({"cloud.google.com/gke-spot": "true"} if spot else {})
            taints = [{"key": "google.com/tpu", "value": "present", "effect": "NoSchedule"}]
            if spot:
                taints.append({"key": "cloud.google.com/gke-spot", "value": "true", "effect": "NoSchedule"})
            body = {
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
                "spec": {"taints": taints, "providerID": f"gce://test/zone/{name}"},
            }  # fmt: skip
            node = await self.api.create("/api/v1/nodes", body)
            self.nodes[name] = node["metadata"]["uid"]
            await renew_lease(self.api, name)
            amounts = {"cpu": "64", "memory": "256Gi", "pods": "110", "google.com/tpu": "4", "ephemeral-storage": "1Ti"}
            await self._condition(
                name, "True", "KubeletReady", "kubelet is ready", capacity=amounts, allocatable=amounts
            )
        return names

    async def _condition(self, name: str, status: str, reason: str, message: str, **more: Any) -> None:
        condition = {
            "type": "Ready",
            "status": status,
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": now(),
            "lastTransitionTime": now(),
        }
        await self.api.patch(f"/api/v1/nodes/{name}/status", {"status": {"conditions": [condition], **more}})

    async def remove_node(self, name: str, *, lives_on: bool = False) -> None:
        """The machine is gone and so is the Node: nothing is said about the pods on it. `lives_on`: only the network to
        it is gone, and its trainer goes on until its storage refuses it."""
        self.nodes.pop(name, None)
        for it in [r for r in self.running.values() if r.pod["spec"].get("nodeName") == name]:
            it.task.cancel()
            self.running.pop(it.pod["metadata"]["uid"], None)
            if not lives_on:
                await it.gang.vanish()
        await self.api.delete(f"/api/v1/nodes/{name}")

    async def freeze(self, name: str) -> None:
        """The machine answers nobody any more: what runs on it may go on, and nothing asked of it is done."""
        self.frozen.add(name)
        await self._condition(name, "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.")

    async def put_out_of_service(self, name: str) -> None:
        """Somebody has seen to it that the machine is off, and taints the Node."""
        for it in [r for r in self.running.values() if r.pod["spec"].get("nodeName") == name]:
            it.task.cancel()
            self.running.pop(it.pod["metadata"]["uid"], None)
            await it.gang.vanish()
        path = f"/api/v1/nodes/{name}"
        taints = (await self.api.get(path))["spec"]["taints"]
        off = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}
        await self.api.patch(path, {"spec": {"taints": [*taints, off]}}, MERGE)

    async def announce(self, name: str) -> None:
        """The node says that it is shutting down."""
        await self._condition(name, "False", "KubeletNotReady", "node is shutting down")

    async def shut_down(self, name: str) -> None:
        """GKE's graceful preemption: the node says that it is shutting down, its pods get SIGTERM, then it is gone."""
        await self.announce(name)
        there = [r for r in self.running.values() if r.pod["spec"].get("nodeName") == name]
        for it in there:
            await it.gang.sigterm()
            code, message = await it.gang.ended
            it.task.cancel()
            self.running.pop(it.pod["metadata"]["uid"], None)
            disrupted = {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "TerminationByKubelet",
                "message": "Pod was terminated in response to imminent node shutdown.",
                "lastTransitionTime": now(),
            }
            await self._ended(it.pod, code, message, conditions=[disrupted], reason="Terminated")
        self.nodes.pop(name, None)
        await self.api.delete(f"/api/v1/nodes/{name}")

    async def label(self, name: str, **labels: str) -> None:
        """Sets labels of GKE's domain on a node; `_` stands for `-`."""
        named = {f"cloud.google.com/{key.replace('_', '-')}": value for key, value in labels.items()}
        await self.api.patch(f"/api/v1/nodes/{name}", {"metadata": {"labels": named}}, MERGE)

    async def maintain(self, name: str) -> None:
        """Maintenance of a node begins, as GKE says so; its handler then deletes pods with the grace that they have."""
        await self.label(name, active_node_maintenance="ONGOING")
        path = f"/api/v1/nodes/{name}"
        taints = (await self.api.get(path))["spec"]["taints"]
        going = {"key": "cloud.google.com/impending-node-termination", "effect": "NoSchedule"}
        await self.api.patch(path, {"spec": {"taints": [*taints, going]}}, MERGE)

    async def restart_machine(self, name: str) -> None:
        """The machine starts anew under its name: the Node stays and is Ready, its containers are not found again."""
        for it in [r for r in self.running.values() if r.pod["spec"].get("nodeName") == name]:
            it.task.cancel()
            self.running.pop(it.pod["metadata"]["uid"], None)
            await self._ended(it.pod, 137, {}, why="ContainerStatusUnknown")

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(2)
            for name in self.nodes.keys() - self.frozen:
                await renew_lease(self.api, name)

    # -- pods ----------------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        async for kind, found in self.api.follow(f"/api/v1/namespaces/{self.namespace}/pods"):
            for pod in found if kind == "SYNC" else [found]:
                self._hear("ADDED" if kind == "SYNC" else kind, pod)

    def _hear(self, kind: str, pod: Raw) -> None:
        uid = pod["metadata"]["uid"]
        self.on_pod(kind, pod)
        if kind == "DELETED":
            self._pods.pop(uid, None)
            return
        known = self._pods.get(uid)
        self._pods[uid] = pod
        it = self.running.get(uid)
        if it:
            it.pod = pod
            if _leads(pod):
                it.gang.hear(pod)
            if "deletionTimestamp" in pod["metadata"] and "deletionTimestamp" not in (known or pod)["metadata"]:
                self._spawn(self._stop(it))
        elif uid in self._over and "deletionTimestamp" in pod["metadata"]:
            self._spawn(self.api.delete(self._path(pod), uid=uid, grace=0))
        elif (
            pod["spec"].get("nodeName") in self.nodes
            and pod["status"].get("phase") == "Pending"
            and known_unbound(known)
        ):
            self._spawn(self._start(pod))

    async def _start(self, pod: Raw) -> None:
        await self.hold_start.wait()
        if pod["spec"]["nodeName"] not in self.nodes:
            return  # the machine went before it came to the pod
        job_file = None
        while job_file is None:  # a kubelet, too, waits for a ConfigMap that is not there
            meta = self._pods.get(pod["metadata"]["uid"], pod)["metadata"]
            if "deletionTimestamp" in meta:  # never ran: the kubelet only confirms
                await self.api.delete(self._path(pod), uid=meta["uid"], grace=0)
                return
            job_file = await self._job_file(pod)
        name, jobset = meta["labels"][LABEL_JOB], meta["labels"][LABEL_JOBSET_UID]
        number = next(self._addresses)
        address = f"127.{64 + os.getpid() % 128}.{number // 250}.{number % 250 + 1}"  # not that of another run's pods
        if LABEL_WORKER in meta["labels"]:
            worker = self.workers[int(meta["labels"][LABEL_WORKER])] = Worker()
            self.running[meta["uid"]] = Running(pod, worker, asyncio.create_task(self._run(pod, worker, address)))
            return
        others = {
            r.pod["metadata"]["labels"][LABEL_JOBSET_UID]
            for r in self.running.values()
            if r.pod["metadata"]["labels"][LABEL_JOB] == name and LABEL_WORKER not in r.pod["metadata"]["labels"]
        }
        if others - {jobset}:
            self.overlaps.append(f"{meta['name']} started beside {others - {jobset}}")
        if jobset not in self.gangs:
            storage, pace = self.storage.setdefault(name, Storage()), self.pace.setdefault(name, Pace())
            self.gangs[jobset] = Gang(pod, job_file, storage, pace, last_step(pod))
        gang = self.gangs[jobset]
        if _leads(pod):
            gang.hear(pod)
            await gang.lead(address)
        self.running[meta["uid"]] = Running(pod, gang, asyncio.create_task(self._run(pod, gang, address)))

    async def _job_file(self, pod: Raw) -> Raw | None:
        name = next(v["configMap"]["name"] for v in pod["spec"]["volumes"] if "configMap" in v)
        try:
            found = await self.api.get(f"/api/v1/namespaces/{self.namespace}/configmaps/{name}")
        except ApiError as error:
            if error.status != 404:
                raise
            await asyncio.sleep(0.1)
            return None
        return json.loads(found["data"]["job.json"])

    async def _run(self, pod: Raw, gang: Gang | Worker, address: str) -> None:
        """From the start to an end of its own. Whoever ends it otherwise cancels this first, so that nobody writes that
        a container runs that has ended, which the API server refuses.
        """
        ready = [
            {"type": kind, "status": "True", "lastTransitionTime": now()}
            for kind in ("Ready", "ContainersReady", "Initialized")
        ]
        state = {"running": {"startedAt": now()}}
        status = {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "hostIP": "127.0.0.1",
            "startTime": now(),
            "conditions": ready,
            "containerStatuses": [container_status(pod, state, ready=True)],
        }
        await self._status(pod, status)
        code, message = await asyncio.shield(gang.ended)
        self.running.pop(pod["metadata"]["uid"], None)
        await self._ended(pod, code, message)
        await gang.vanish()

    async def _stop(self, it: Running) -> None:
        """A deletion: SIGTERM, at the end of the grace SIGKILL, and the pod is gone."""
        if it.pod["spec"]["nodeName"] in self.frozen:
            return
        it.task.cancel()
        uid = it.pod["metadata"]["uid"]
        grace = it.pod["metadata"].get("deletionGracePeriodSeconds", 30)
        try:
            async with asyncio.timeout(grace):
                await it.gang.sigterm()
                code, message = await asyncio.shield(it.gang.ended)
        except TimeoutError:
            code, message = 137, {}
        self.running.pop(uid, None)
        await self._ended(it.pod, code, message)
        await it.gang.vanish()
        await self.api.delete(self._path(it.pod), uid=uid, grace=0)

    async def kill(self, pod: Raw, code: int = 137, message: Raw | None = None) -> None:
        """One process ends by itself, the others go on."""
        it = self.running.pop(pod["metadata"]["uid"])
        it.task.cancel()
        await self._ended(pod, code, message or {})

    async def _ended(
        self,
        pod: Raw,
        code: int,
        message: Raw,
        conditions: list[Raw] | None = None,
        reason: str | None = None,
        why: str | None = None,
    ) -> None:
        """Writes the end of a pod; `reason` is the pod's, `why` the container's."""
        text = json.dumps(message) if message else ""
        ended = {
            "exitCode": code,
            "reason": why or ("Completed" if code == 0 else "Error"),
            "message": text,
            "startedAt": now(),
            "finishedAt": now(),
        }
        not_ready = {"type": "Ready", "status": "False", "reason": "PodFailed", "lastTransitionTime": now()}
        status: Raw = {
            "phase": "Succeeded" if code == Exit.DONE else "Failed",
            "conditions": [not_ready, *(conditions or ())],
            "containerStatuses": [container_status(pod, {"terminated": ended}, ready=False)],
        }
        await self._status(pod, status | ({"reason": reason} if reason else {}))
        uid = pod["metadata"]["uid"]
        self._over.add(uid)
        if "deletionTimestamp" in self._pods.get(uid, pod)["metadata"]:  # asked for in between
            await self.api.delete(self._path(pod), uid=uid, grace=0)

    async def _status(self, pod: Raw, status: Raw) -> None:
        try:
            await self.api.patch(self._path(pod) + "/status", {"status": status})
        except ApiError as error:
            if error.status != 404:
                raise

    def _path(self, pod: Raw) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}"

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def known_unbound(known: Raw | None) -> bool:
    """Whether the pod was not seen bound before: it is started once."""
    return known is None or not known["spec"].get("nodeName")


def last_step(pod: Raw) -> int:
    """The step that its environment says is known to be committed."""
    environment = pod["spec"]["containers"][0]["env"]
    return int(next(it["value"] for it in environment if it["name"] == "RATCHET_LAST_STEP"))


def _leads(pod: Raw) -> bool:
    labels = pod["metadata"].get("labels", {})
    return (labels.get(INDEX), labels.get("jobset.sigs.k8s.io/job-index")) == ("0", "0")
