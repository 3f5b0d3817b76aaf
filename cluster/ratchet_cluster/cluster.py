"""The life of one local cluster: up, down, what it looks like, and where its files lie.

Decides what is kept and what goes, that starting twice changes nothing, and that a cluster which was killed half-way
is completed by the next `up`. The control plane is `plane.py`'s matter, nodes and pods `agent.py`'s, lost nodes
`faults.py`'s.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from ratchet_cluster import build, control, faults, plane, processes
from ratchet_cluster import kueue as queueing
from ratchet_cluster import pools as node_pools
from ratchet_cluster.api import Api, ApiError
from ratchet_cluster.objects import Object
from ratchet_cluster.ports import is_free

T = TypeVar("T")
KEPT = ("volumes", "logs")  # by `down`: what a training run wrote, and what explains a failure
STORAGE = "checkpoints"


class ClusterError(RuntimeError):
    """The cluster cannot do that; the message names the way out."""


def default_folder() -> Path:
    """`$XDG_STATE_HOME/ratchet/cluster`, by default `~/.local/state/ratchet/cluster`."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "ratchet" / "cluster"


class Cluster:
    """A handle on the cluster in one folder; making it does nothing. All methods block."""

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder or default_folder()).expanduser().resolve()

    # -- life ----------------------------------------------------------------------------------------------------------

    def up(
        self,
        pools: Sequence[node_pools.Pool] = node_pools.DEFAULT,
        progress: build.Progress = lambda line: None,
        *,
        nodes: bool = True,
        kueue: bool = False,
        replace_after: float = faults.UNTIL_REPLACED,
        owner: int | None = None,
    ) -> Cluster:
        """Brings everything up that is not up, and returns when the nodes are Ready.

        A running cluster keeps its pools. `nodes=False` leaves out the node agents: objects can be created, no pod
        runs. `kueue`: starts Kueue as well, compiled first if needed (minutes); a cluster that has it keeps it.
        `replace_after`: seconds until a preempted pool has machines again. `owner`: a process id; when that
        process has gone, the cluster goes down by itself.
        Raises `BuildError`, `PlaneError`, `PoolError` or `ClusterError`.
        """
        programs = build.ensure_binaries(progress)
        queues = build.ensure_binaries(progress, build.KUEUE) if kueue or self._has_kueue else None
        with self._locked():
            wanted = {"pools": [asdict(pool) for pool in pools], "replaceAfterSeconds": replace_after}
            node_pools.by_name(list(pools))
            _run(lambda: self._up(programs, queues, wanted, progress, nodes))
            if owner and "guard" not in processes.running(self.folder):
                command = [sys.executable, "-m", "ratchet_cluster.guard", str(self.folder), str(owner)]
                processes.start(self.folder, "guard", command)
        return self

    def down(self, purge: bool = False) -> None:
        """Ends every process, pods included, and forgets all objects; logs and checkpoints stay unless `purge`."""
        if not self.folder.exists():
            return
        with self._locked():
            mine = {processes.DIR: str(self.folder)}
            processes.end({**mine, processes.NAME: "agent"}, grace=5.0)
            processes.end(mine, grace=0.5)
            for entry in self.folder.iterdir():
                if entry.name != "lock" and (purge or entry.name not in KEPT):
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        if purge:
            shutil.rmtree(self.folder)

    def status(self) -> dict[str, Any]:
        """`{up, folder, server, processes: {name: pid}, missing: [name], nodes: [{name, pool, ready, pods}]}`, and
        `trouble` where the API server runs and does not answer. Asks whatever state the cluster is in."""
        expected = [*plane.ORDER, *([queueing.NAME] if self._has_kueue else []), "agent"]
        alive = processes.running(self.folder)
        missing = [name for name in expected if name not in alive]
        found = {"up": not missing, "folder": str(self.folder), "processes": alive, "missing": missing, "nodes": []}
        if not {"etcd", "kube-apiserver"} & set(missing):
            found["server"] = self.plane.server
            try:
                found["nodes"] = self.nodes()
            except ClusterError as error:  # it starts, ends or hangs
                found |= {"up": False, "trouble": str(error).splitlines()[0]}
        return found

    # -- access --------------------------------------------------------------------------------------------------------

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.folder / "kubeconfig"

    @property
    def bin(self) -> Path:
        """The folder with kubectl, helm and the programs of the control plane."""
        return Path(self._state["programs"])

    @property
    def plane(self) -> plane.Plane:
        """The control plane that this cluster was started with."""
        return plane.Plane(self.folder, self.bin, self._state["ports"])

    def env(self) -> dict[str, str]:
        """What a shell needs: KUBECONFIG, and a PATH that begins with our kubectl and helm."""
        return {
            "KUBECONFIG": str(self.kubeconfig),
            "PATH": os.pathsep.join([str(self.bin), os.environ.get("PATH", "")]),
        }

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Runs kubectl as administrator and returns what it printed. Raises `ClusterError` with its complaint."""
        return self._tool("kubectl", arguments, stdin, check)

    def helm(self, *arguments: str) -> str:
        """Runs helm as administrator and returns what it printed. Raises `ClusterError` with its complaint."""
        return self._tool("helm", arguments, None, True)

    def nodes(self) -> list[dict[str, Any]]:
        """`{name, uid, pool, ready, taints: [key], pods: [namespace/name]}` of every Node, sorted by name."""

        async def read() -> list[dict[str, Any]]:
            async with self.plane.api() as api:
                nodes, pods = await api.get("/api/v1/nodes"), await api.get("/api/v1/pods")
            return sorted((_node_row(node, pods["items"]) for node in nodes["items"]), key=lambda row: row["name"])

        return _run(read)

    def pod_log(self, namespace: str, pod: str, container: str | None = None) -> str:
        """What a pod printed so far, as kept by its node agent; also after the pod was deleted."""
        text: str = control.call(self.folder, "log", namespace=namespace, pod=pod, container=container)["text"]
        return text

    # -- faults --------------------------------------------------------------------------------------------------------

    def preempt(self, node: str, abrupt: bool = False) -> list[str]:
        """Takes the node and its whole pool away, as GKE does; returns the nodes' names once the machines are stopping.

        Graceful: SIGTERM with the notice window first. Abrupt: SIGKILL, and silence until the Node is missed.
        """
        nodes: list[str] = control.call(self.folder, "preempt", node=node, abrupt=abrupt)["nodes"]
        return nodes

    def notice(self, node: str, seconds: float = 3600.0) -> list[str]:
        """Announces maintenance of the node's pool in `seconds`; nothing else happens."""
        nodes: list[str] = control.call(self.folder, "notice", node=node, seconds=seconds)["nodes"]
        return nodes

    def drain(self, node: str) -> None:
        """Cordons the node and evicts its pods through the eviction API."""
        self.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s")

    # -- inside --------------------------------------------------------------------------------------------------------

    async def _up(
        self, programs: Path, queues: Path | None, wanted: dict[str, Any], progress: build.Progress, nodes: bool
    ) -> None:
        alive = processes.running(self.folder)
        if not (self._state_file.exists() and {"etcd", "kube-apiserver"} & alive.keys()):  # what pods rest on is gone
            await self._start_afresh(programs, wanted, progress)
        else:
            progress("the control plane is running; completing what is missing")
            if self._state["pools"] != wanted["pools"]:
                progress("it keeps the pools that it was started with; to change them: down, then up")
            await self._complete()
        async with self.plane.api() as api:
            await self._make_storage(api)
            if queues is not None:
                await self._start_kueue(queues, api, progress)
            if nodes:
                self._start_agent()
                await self._until_nodes_ready(api)
        progress(f"up: {self.plane.server}, state in {self.folder}")

    async def _start_afresh(self, programs: Path, wanted: dict[str, Any], progress: build.Progress) -> None:
        """A first start, or a restart on the objects that a killed cluster left."""
        mine = {processes.DIR: str(self.folder)}
        processes.end(mine, grace=1.0)  # halves of a cluster that was killed
        old = self._state if self._state_file.exists() else {}
        ports = old.get("ports", {})
        for attempt in range(3):
            if set(ports) != set(plane.PORTS) or not all(map(is_free, ports.values())):
                ports = plane.choose_ports()
            state = {**wanted, **old, "programs": str(programs), "ports": ports}
            self._state_file.write_text(json.dumps(state, indent=1))
            progress("starting the control plane")
            try:
                self.plane.prepare()
                await self.plane.start()
                return
            except plane.PlaneError as error:
                processes.end(mine, grace=0.5)
                if attempt == 2 or "address already in use" not in str(error):
                    raise
                progress("a port was taken meanwhile; trying others")
                ports = {}

    async def _complete(self) -> None:
        if "etcd" not in processes.running(self.folder):
            # An API server that has lost etcd for long tries again only after minutes; a new one asks at once.
            processes.kill({processes.DIR: str(self.folder), processes.NAME: "kube-apiserver"})
        try:
            await self.plane.start()
        except plane.PlaneError as error:
            raise ClusterError(f"{error}\nrun `ratchet cluster down`, then `up` again") from None

    async def _make_storage(self, api: Api) -> None:
        """The volume `checkpoints` and its claim in `default`."""
        place = self.folder / "volumes" / STORAGE
        place.mkdir(parents=True, exist_ok=True)
        common = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": STORAGE},
            "spec": {
                **common,
                "capacity": {"storage": "100Gi"},
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": str(place), "type": "DirectoryOrCreate"},
                "claimRef": {"namespace": "default", "name": STORAGE},
            },
        }
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": STORAGE, "namespace": "default"},
            "spec": {**common, "volumeName": STORAGE, "resources": {"requests": {"storage": "100Gi"}}},
        }
        for path, body in (
            ("/api/v1/persistentvolumes", volume),
            ("/api/v1/namespaces/default/persistentvolumeclaims", claim),
        ):
            try:
                await api.create(path, body)
            except ApiError as error:
                if error.status != 409:
                    raise

    async def _start_kueue(self, programs: Path, api: Api, progress: build.Progress) -> None:
        if queueing.NAME not in processes.running(self.folder):
            progress("starting Kueue")
        ports = queueing.ports_for(self.plane, self._state.get("kueue") or {})
        self._state_file.write_text(json.dumps({**self._state, "kueue": ports}, indent=1))
        await queueing.Kueue(self.plane, programs, ports).start(api)

    @property
    def _has_kueue(self) -> bool:
        return self._state_file.exists() and "kueue" in self._state

    def _start_agent(self) -> None:
        if "agent" not in processes.running(self.folder):
            processes.kill({processes.DIR: str(self.folder), processes.POD: None})  # pods of agents that were killed
            processes.start(self.folder, "agent", [sys.executable, "-m", "ratchet_cluster.agent", str(self.folder)])

    async def _until_nodes_ready(self, api: Api, timeout: float = 30.0) -> None:
        names = {name for pool in self.pools for name in pool.nodes} | {node_pools.SYSTEM}
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            found = (await api.get("/api/v1/nodes"))["items"]
            ready = {node["metadata"]["name"] for node in found if _is_ready(node) and not _not_ready_taint(node)}
            if names <= ready or (ready and names - ready and control.away(self.folder) >= names - ready):
                return
            if "agent" not in processes.running(self.folder):
                raise ClusterError(f"the node agents ended. Their last words:\n{self.plane.last_words('agent')}")
            if asyncio.get_running_loop().time() > deadline:
                raise ClusterError(
                    f"nodes {sorted(names - ready)} did not become Ready; see {self.folder / 'logs/agent.log'}"
                )
            await asyncio.sleep(0.05)

    @property
    def pools(self) -> list[node_pools.Pool]:
        """The pools that this cluster was started with."""
        return [node_pools.Pool(**entry) for entry in self._state["pools"]]

    @property
    def _state_file(self) -> Path:
        return self.folder / "cluster.json"

    @property
    def _state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads(self._state_file.read_text())
        except FileNotFoundError:
            raise ClusterError(f"there is no cluster in {self.folder}; start one with `ratchet cluster up`") from None
        return state

    def _tool(self, name: str, arguments: Sequence[str], stdin: str | None, check: bool) -> str:
        done = subprocess.run(
            [self.bin / name, *arguments], input=stdin, capture_output=True, text=True, env={**os.environ, **self.env()}
        )
        if check and done.returncode:
            raise ClusterError(f"{name} {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(self.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


async def _in_words(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    try:
        return await make()
    except (ApiError, aiohttp.ClientError, TimeoutError) as error:
        raise ClusterError(
            f"the API server could not be asked: {error or type(error).__name__}\n"
            f"`ratchet cluster status` says what runs; `up` again completes it, `down` ends it"
        ) from error


def _node_row(node: Object, pods: list[Object]) -> dict[str, Any]:
    name = node["metadata"]["name"]
    return {
        "name": name,
        "uid": node["metadata"]["uid"],
        "pool": node["metadata"]["labels"].get("cloud.google.com/gke-nodepool", ""),
        "ready": _is_ready(node),
        "taints": [taint["key"] for taint in node["spec"].get("taints") or []],
        "pods": [
            f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            for pod in pods
            if pod["spec"].get("nodeName") == name and pod["status"].get("phase") not in ("Succeeded", "Failed")
        ],
    }


def _is_ready(node: Object) -> bool:
    conditions = node.get("status", {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _not_ready_taint(node: Object) -> bool:
    return any(taint["key"] == "node.kubernetes.io/not-ready" for taint in node["spec"].get("taints") or [])


def _run(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs a coroutine to its end, also where the caller stands inside an event loop already.

    Raises `ClusterError` when the API server does not answer, or refuses.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_in_words(make))
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(asyncio.run(_in_words(make)))
        except BaseException as error:  # handed to the caller's thread below
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
