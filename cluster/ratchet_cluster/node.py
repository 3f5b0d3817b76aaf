"""One machine: its Node object, its lease, and the stages in which it comes and goes.

Decides what a node shows to the cluster while it is up, while it shuts down and once it is dead. Pods are told by
`agent.py`, which order a preemption has by `faults.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import UTC, datetime

from ratchet_cluster.api import MERGE, UNREACHABLE, Api, ApiError
from ratchet_cluster.container import timestamp
from ratchet_cluster.objects import Object
from ratchet_cluster.pools import Pool, capacity, node_object

log = logging.getLogger(__name__)

RENEW = 2.0
UP, STOPPING, DEAD = "up", "stopping", "dead"
SHUTTING_DOWN = "node is shutting down"
KUBELET_PORT = 10250


class Node:
    """The machine called `name` in `pool`, at a loopback `address` of its own."""

    def __init__(self, api: Api, pool: Pool, name: str, address: str) -> None:
        self.api, self.pool, self.name, self.address = api, pool, name, address
        self.state = DEAD
        self.uid = ""
        self._lease: asyncio.Task[None] | None = None

    @property
    def path(self) -> str:
        return f"/api/v1/nodes/{self.name}"

    async def register(self) -> None:
        """Makes the Node, Ready from its first status on, and begins to renew its lease.

        A Node of that name that is still there (the agents were restarted) is taken over and cleaned of old trouble.
        """
        wanted = node_object(self.pool, self.name)
        try:
            found = await self.api.create("/api/v1/nodes", wanted)
        except ApiError as error:
            if error.status != 409:
                raise
            body = {
                "metadata": {"labels": wanted["metadata"]["labels"]},
                "spec": {"taints": wanted["spec"]["taints"], "unschedulable": None},
            }
            found = await self.api.patch(self.path, body, MERGE)
        self.uid = found["metadata"]["uid"]
        self.state = UP
        await self._renew_once()
        await self.api.patch(f"{self.path}/status", {"status": self._status()}, MERGE)
        self._lease = asyncio.create_task(self._renew())

    async def shut_down(self) -> None:
        """The first sign of a stop with notice: no longer Ready, and the taint that GKE sets. The lease goes on."""
        self.state = STOPPING
        taint = {"key": "cloud.google.com/impending-node-termination", "effect": "NoSchedule"}
        await asyncio.gather(
            self.api.patch(
                f"{self.path}/status",
                {"status": {"conditions": [self._ready("False", "KubeletNotReady", SHUTTING_DOWN)]}},
            ),
            self._taint(taint),
        )

    def die(self) -> None:
        """Nothing is heard of the machine from now on."""
        self.state = DEAD
        if self._lease:
            self._lease.cancel()

    async def remove(self) -> None:
        """The cloud controller finds the machine gone and deletes the Node."""
        await self.api.delete(self.path, uid=self.uid)
        await self.api.delete(self._lease_path)

    async def is_ready(self) -> bool:
        """What the API server says; False when there is no such Node."""
        try:
            found = await self.api.get(self.path)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        conditions = found["status"].get("conditions") or []
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    async def label(self, key: str, value: str) -> None:
        """Sets a label."""
        await self.api.patch(self.path, {"metadata": {"labels": {key: value}}}, MERGE)

    async def _taint(self, taint: Object) -> None:
        """Adds to a list that the node controller writes as well: read, add, and again when somebody was faster."""
        while True:
            found = await self.api.get(self.path)
            taints = [one for one in found["spec"].get("taints") or [] if one["key"] != taint["key"]]
            version = found["metadata"]["resourceVersion"]
            body = {"metadata": {"resourceVersion": version}, "spec": {"taints": [*taints, taint]}}
            try:
                await self.api.patch(self.path, body, MERGE)
                return
            except ApiError as error:
                if error.status != 409:
                    raise

    # -- status and lease ----------------------------------------------------------------------------------------------

    def _status(self) -> Object:
        held = capacity(self.pool)
        conditions = [
            {"type": kind, "status": "False", "reason": f"KubeletHas{good}", "message": f"kubelet has {text}"}
            for kind, good, text in (
                ("MemoryPressure", "SufficientMemory", "sufficient memory available"),
                ("DiskPressure", "NoDiskPressure", "no disk pressure"),
                ("PIDPressure", "SufficientPID", "sufficient PID available"),
            )
        ]
        stamps = {"lastHeartbeatTime": timestamp(), "lastTransitionTime": timestamp()}
        return {
            "capacity": held,
            "allocatable": held,
            "conditions": [
                *({**one, **stamps} for one in conditions),
                self._ready("True", "KubeletReady", "kubelet is posting ready status"),
            ],
            "addresses": [{"type": "InternalIP", "address": self.address}, {"type": "Hostname", "address": self.name}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": KUBELET_PORT}},
            "nodeInfo": {
                "machineID": self.name, "systemUUID": self.name, "bootID": self.uid, "kernelVersion": "local",
                "osImage": "this machine", "containerRuntimeVersion": "ratchet://0.1.0", "kubeletVersion": "v1.36.3",
                "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64",
            },
        }  # fmt: skip

    @staticmethod
    def _ready(status: str, reason: str, message: str) -> Object:
        now = timestamp()
        return {
            "type": "Ready",
            "status": status,
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }

    @property
    def _lease_path(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{self.name}"

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW)
            try:
                await self._renew_once()
                await self._say_again()
            except (ApiError, *UNREACHABLE) as error:
                log.warning("lease of %s: %s", self.name, error)

    async def _say_again(self) -> None:
        """Posts the status again where the node controller gave the machine up, as a kubelet does after an outage."""
        found = await self.api.get(self.path)
        given_up = any(one["status"] == "Unknown" for one in found["status"].get("conditions") or [])
        if given_up and self.state == UP and found["metadata"]["uid"] == self.uid:
            await self.api.patch(f"{self.path}/status", {"status": self._status()}, MERGE)

    async def _renew_once(self) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        body = {"spec": {"renewTime": now, "holderIdentity": self.name, "leaseDurationSeconds": 40}}
        try:
            await self.api.patch(self._lease_path, body, MERGE)
        except ApiError as error:
            if error.status != 404:
                raise
            owner = {"apiVersion": "v1", "kind": "Node", "name": self.name, "uid": self.uid}
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self.name, "ownerReferences": [owner]},
            }
            with contextlib.suppress(ApiError):
                await self.api.create(self._lease_path.rsplit("/", 1)[0], lease | body)
