"""The node agents: one process that plays every node of the cluster and runs the pods bound to them.

Decides which pod belongs to which machine and what a restarted agent makes of what it finds. Run as
`python -m ratchet_cluster.agent FOLDER` by `cluster.py`. The pods' own lives: `pod.py`; the nodes': `node.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import shutil
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from aiohttp import web

from ratchet_cluster import addresses, control, faults, kubelet, pools, sandbox
from ratchet_cluster.api import UNREACHABLE, ApiError, insist
from ratchet_cluster.node import DEAD, KUBELET_PORT, STOPPING, UP, Node
from ratchet_cluster.objects import Object
from ratchet_cluster.plane import Plane
from ratchet_cluster.pod import Pod, Surroundings

log = logging.getLogger(__name__)

SHUTDOWN_REJECTION = {
    "phase": "Failed",
    "reason": "NodeShutdown",
    "message": "Pod was rejected as the node is shutting down.",
}


class Agent:
    """All nodes of the cluster in `folder`, whose control plane answers."""

    def __init__(self, folder: Path) -> None:
        state = json.loads((folder / "cluster.json").read_text())
        self.folder = folder
        self.plane = Plane(folder, Path(state["programs"]), state["ports"])
        self.replace_after: float = state["replaceAfterSeconds"]
        self.pools = [pools.Pool(pools.SYSTEM), *(pools.Pool(**entry) for entry in state["pools"])]
        self.nodes: dict[str, Node] = {}
        self.pods: dict[str, Pod] = {}
        self._tasks: set[asyncio.Task[object]] = set()

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT; then ends the pods without telling the API server, as a power cut would."""
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        shutil.rmtree(self.folder / "pods", ignore_errors=True)
        async with self.plane.api("agent") as self.api:
            names = [(pool, name) for pool in self.pools for name in pool.nodes]
            self.addresses, served = await self._claim_block(len(names))
            self.around = Surroundings(
                self.api, self.folder, sandbox.ability(), self.plane.ports["api"], self.addresses, self._names_changed
            )
            for index, (pool, name) in enumerate(names):
                self.nodes[name] = Node(self.api, pool, name, self.addresses.node(index))
            handlers: dict[str, control.Handler] = {
                "preempt": self._preempt,
                "notice": self._notice,
                "log": self._log,
                "away": self._away,
            }
            server = await control.serve(self.folder, handlers)
            following = asyncio.create_task(self._follow_pods())
            await asyncio.gather(*map(self._join, self.nodes.values()))
            log.info("%d nodes, pods separated by: %s", len(self.nodes), self.around.way)
            await ended.wait()
            server.close()
            following.cancel()
            for task in self._tasks:
                task.cancel()
            for node in self.nodes.values():
                node.die()
            for pod in list(self.pods.values()):
                pod.abandon()
                await pod.close()
            await served.cleanup()

    async def _claim_block(self, count: int) -> tuple[addresses.Addresses, web.AppRunner]:
        """The block of loopback addresses whose kubelet ports we get; another cluster on this machine holds its own."""
        wanted = int.from_bytes(hashlib.sha256(str(self.folder).encode()).digest()[:4])
        blocks = addresses.LAST_BLOCK - addresses.FIRST_BLOCK + 1
        for offset in range(blocks):
            block = addresses.Addresses(addresses.FIRST_BLOCK + (wanted + offset) % blocks)
            hosts = [block.node(index) for index in range(count)]
            try:
                return block, await kubelet.serve(self.plane.pki, hosts, self._log_files, self._is_running)
            except OSError as error:
                log.info("block %d of loopback addresses: %s", block.block, error)
        raise RuntimeError(f"port {KUBELET_PORT} is taken in every loopback block; are {blocks} clusters running?")

    # -- pods ----------------------------------------------------------------------------------------------------------

    async def _join(self, node: Node) -> None:
        """A machine starts. Pods that the API server already binds to its name are taken up, or said to have ended."""
        await insist(node.register)
        found = await insist(lambda: self.api.get("/api/v1/pods", fieldSelector=f"spec.nodeName={node.name}"))
        for pod in found["items"]:
            self._seen(pod)

    async def _follow_pods(self) -> None:
        async for kind, found in self.api.follow("/api/v1/pods"):
            if kind == "SYNC":
                present = {pod["metadata"]["uid"] for pod in found}
                for uid in set(self.pods) - present:
                    self._gone(self.pods[uid].object)
                for pod in found:
                    self._seen(pod)
            elif kind == "DELETED":
                self._gone(found)
            else:
                self._seen(found)

    def _seen(self, found: Object) -> None:
        node = self.nodes.get(found["spec"].get("nodeName", ""))
        uid, metadata = found["metadata"]["uid"], found["metadata"]
        if node is None:
            return
        if pod := self.pods.get(uid):
            pod.update(found)
            return
        ended = found.get("status", {}).get("phase") in ("Succeeded", "Failed")
        if node.state == DEAD or (ended and not metadata.get("deletionTimestamp")):
            return
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        if metadata.get("deletionTimestamp"):
            self._spawn(self.api.delete(path, uid=uid, grace=0))
        elif node.state == STOPPING:
            self._spawn(self.api.patch(f"{path}/status", {"metadata": {"uid": uid}, "status": SHUTDOWN_REJECTION}))
        else:
            begun = bool(found.get("status", {}).get("startTime"))
            pod = self.pods[uid] = Pod(self.around, found, node.address, lost=begun)
            pod.begin()

    def _gone(self, found: Object) -> None:
        """The API server knows the pod no more. One that still runs was deleted by force."""
        pod = self.pods.get(found["metadata"]["uid"])
        if pod is not None:
            if not pod.finished.is_set():
                pod.terminate(max(1.0, float(found["metadata"].get("deletionGracePeriodSeconds") or 0)))
            self._spawn(self._forget_when_finished(pod))

    async def _forget_when_finished(self, pod: Pod) -> None:
        await pod.finished.wait()
        await self._forget(pod)

    async def _forget(self, pod: Pod) -> None:
        await pod.close()
        self.pods.pop(pod.uid, None)

    def _names_changed(self, found: Object) -> None:
        """Writes the hosts files of a pod and of all that share its headless service."""
        subdomain, namespace = found["spec"].get("subdomain"), found["metadata"]["namespace"]
        gang = [
            pod
            for pod in self.pods.values()
            if pod.uid == found["metadata"]["uid"]
            or (subdomain and pod.namespace == namespace and pod.object["spec"].get("subdomain") == subdomain)
        ]
        known = [(pod.object, pod.address) for pod in gang]
        for pod in gang:
            if pod.folder.exists():
                addresses.overwrite(pod.hosts, addresses.hosts_file(pod.object, pod.address, known))

    # -- logs ----------------------------------------------------------------------------------------------------------

    def _log_files(self, namespace: str, pod: str, container: str | None) -> list[Path]:
        """Logs of the newest pod of that name, oldest start first."""
        folders = sorted(
            (self.folder / "logs/pods").glob(f"{namespace}_{pod}_*"), key=lambda path: path.stat().st_ctime
        )
        if not folders:
            return []
        files = folders[-1].glob(f"{container or '*'}/*.log")
        return sorted(files, key=lambda path: (path.parent.name, int(path.stem)))

    def _is_running(self, namespace: str, name: str) -> bool:
        return any(
            pod.namespace == namespace and pod.name == name and not pod.finished.is_set() for pod in self.pods.values()
        )

    # -- requests ------------------------------------------------------------------------------------------------------

    async def _log(self, namespace: str, pod: str, container: str | None = None) -> control.Answer:
        files = self._log_files(namespace, pod, container)
        if not files:
            raise control.Refused(f"no log of a pod {namespace}/{pod} is kept here")
        return {"text": files[-1].read_text(errors="replace")}

    async def _away(self) -> control.Answer:
        return {"nodes": [name for name, node in self.nodes.items() if node.state != UP]}

    def _pool_of(self, name: str) -> list[Node]:
        if name not in self.nodes:
            raise control.Refused(f"there is no node {name}; there are {', '.join(self.nodes)}")
        pool = self.nodes[name].pool
        if pool.name == pools.SYSTEM:
            raise control.Refused("the system node stays: the operator runs there")
        return [node for node in self.nodes.values() if node.pool == pool]

    async def _preempt(self, node: str, abrupt: bool = False) -> control.Answer:
        nodes = self._pool_of(node)
        if not faults.strikable(nodes):
            raise control.Refused(f"the pool of {node} is being preempted already")
        site = faults.Site(self._pods_on, self._forget, self._join, self.replace_after)
        self._spawn((faults.abrupt if abrupt else faults.graceful)(site, nodes))
        await asyncio.sleep(0)  # the first signs are on their way when we answer
        return {"nodes": [one.name for one in nodes]}

    async def _notice(self, node: str, seconds: float) -> control.Answer:
        nodes = self._pool_of(node)
        await faults.announce(nodes, seconds)
        return {"nodes": [one.name for one in nodes]}

    def _pods_on(self, node: Node) -> list[Pod]:
        return [pod for pod in self.pods.values() if pod.object["spec"].get("nodeName") == node.name]

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            expected = isinstance(error, (ApiError, *UNREACHABLE))
            log.log(logging.WARNING if expected else logging.ERROR, "%r", error, exc_info=None if expected else error)


def main() -> None:
    """Entry point of the process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    asyncio.run(Agent(Path(sys.argv[1])).run())


if __name__ == "__main__":
    main()
