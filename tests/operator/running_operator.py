"""The operator as a process of its own, with the chart's rights, on a real control plane, behind the fault proxy."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import sys
import urllib.request
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from api_verbs import Asked
from faultproxy import FaultProxy
from history import JOB as TRAINING
from history import JOBSET, NODE, POD, History, Look, Recorder, Resumed, Round, Seen
from invariants import every_change_is_looked_at
from scripted_kubelet import WORLD, Kubelet

from ratchet_api.protocol import LABEL_JOBSET_UID
from ratchet_cluster.api import MERGE, Api, ApiError
from ratchet_cluster.ports import free_ports

Raw = dict[str, Any]

_touches = itertools.count(1)
SEEN = re.compile(r"[^/ ]+/(?P<job>\S+): seen (?P<versions>[^,]*), heard (?P<heard>\d+)")
"""What the log says, at level DEBUG, of a pass over a job."""
PATIENCE = 120.0
"""What is waited for comes within a second or two; on a machine that is busy with other things it comes later."""


async def until(what: str, check: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """The first true answer of `check` (a function or a coroutine function); fails with `what` after a while."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        found = check()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        assert asyncio.get_running_loop().time() < deadline, f"not within {seconds:.0f} s: {what}"
        await asyncio.sleep(0.03)


def _time_of(line: str) -> float:
    """When a line of a log was written."""
    if line.startswith("{"):
        return datetime.fromisoformat(json.loads(line)["time"]).timestamp()
    return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").timestamp()


class Operator:
    """One replica: parent and worker, or (`supervised=False`) the worker alone."""

    def __init__(self, world: World, name: str = "operator", *, supervised: bool = True, **env: str):
        self.world, self.name, self.supervised = world, name, supervised
        (self.port,) = free_ports(1)
        self.log_path = world.folder / f"{name}.log"
        self.env = {
            **os.environ, "KUBECONFIG": str(world.kubeconfig), "RATCHET_OPERATOR_NAMESPACE": world.namespace,
            "RATCHET_WATCH_NAMESPACES": world.namespace, "RATCHET_METRICS_PORT": str(self.port),
            "RATCHET_POD_IP": "127.0.0.1", "RATCHET_POD_NAME": name, "RATCHET_TRAINER_IMAGE": "trainer:test",
            "RATCHET_LOG_LEVEL": "DEBUG", **env,
        }  # fmt: skip
        self.env.pop("KUBERNETES_SERVICE_HOST", None)
        if not supervised:
            self.env["RATCHET_IDENTITY"] = name
        self.process: asyncio.subprocess.Process | None = None
        self._looks: list[Seen] = []
        self._read = 0  # how far its log was read for these

    async def start(self) -> Operator:
        command = ["-m", "ratchet_cli.main", "operator"] if self.supervised else ["-m", "ratchet_operator.app"]
        with open(self.log_path, "ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, *command, env=self.env, stdout=log, stderr=log
            )
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def worker(self) -> int | None:
        """Pid of the worker."""
        if not self.supervised:
            return self.pid
        try:
            pids = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        except OSError:  # the parent has ended
            return None
        return int(pids[0]) if pids else None

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    @property
    def looks(self) -> list[Seen]:
        """What its passes have seen so far, which it logs."""
        with open(self.log_path) as log:
            log.seek(self._read)
            while (line := log.readline()).endswith("\n"):
                self._read = log.tell()
                if (said := SEEN.search(line)) is not None:
                    versions = dict(it.split("@") for it in said["versions"].split())
                    seen = {uid: int(version) for uid, version in versions.items()}
                    self._looks.append(Seen(said["job"], seen, int(said["heard"]), _time_of(line)))
        return self._looks

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of its own HTTP server; (0, "") when there is none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as found:
                return found.status, found.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""
        except OSError:
            return 0, ""

    def metric(self, name: str) -> float:
        """Sum of the samples whose name and labels begin with `name`; 0 when there are none."""
        lines = self.get("/metrics")[1].splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    async def leads(self) -> Operator:
        await until(f"{self.name} holds the Lease: {self.log[-2000:]}", lambda: self.metric("ratchet_leader ") == 1)
        return self

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends the signal and waits for the end; the exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)  # a killed parent's worker notices and ends by itself
        return await self.process.wait()


class World:
    """A namespace of its own with jobs, pods without machines, and any number of operators in front of a fault
    proxy.
    """

    def __init__(self, api: Api, proxy: FaultProxy, namespace: str, folder: Path):
        self.api, self.proxy, self.namespace, self.folder = api, proxy, namespace, folder
        self.kubelet = Kubelet(api, namespace)
        self.kubeconfig = folder / "kubeconfig"
        self.operators: list[Operator] = []
        self.lacks: set[Asked] = set()  # rights that the test takes away; any other that is refused fails it
        self.excused: dict[str, str] = {}  # invariants that the test breaks on purpose, and why
        space = {kind: (self.path(plural), {}) for kind, plural in
                 ((TRAINING, "rltrainingjobs"), (JOBSET, "jobsets"), (POD, "pods"))}  # fmt: skip
        nodes = {NODE: ("/api/v1/nodes", {"labelSelector": f"{WORLD}={namespace}"})}
        self.recorder = Recorder(api, space | nodes)

    async def operator(self, name: str = "operator", *, supervised: bool = True, **env: str) -> Operator:
        """A started replica."""
        it = Operator(self, name, supervised=supervised, **env)
        self.operators.append(it)
        return await it.start()

    # -- the API -------------------------------------------------------------------------------------------------------

    def path(self, plural: str, name: str = "") -> str:
        group = {"rltrainingjobs": "/apis/ratchet.dev/v1alpha1", "jobsets": "/apis/jobset.x-k8s.io/v1alpha2"}.get(
            plural, "/api/v1"
        )
        return f"{group}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    async def items(self, plural: str) -> list[Raw]:
        return (await self.api.get(self.path(plural)))["items"]

    async def apply(self, name: str = "sums", **spec: Any) -> Raw:
        """Creates a job of two short stages."""
        body = yaml.safe_load(JOB)
        body["metadata"]["name"] = name
        body["spec"]["checkpoint"]["directory"] = f"/checkpoints/{name}"  # one job a directory
        body["spec"].update(spec)
        own = {"nodeSelector": {WORLD: self.namespace}}
        body["spec"]["placements"] = [placement | own for placement in body["spec"]["placements"]]
        return await self.api.create(self.path("rltrainingjobs"), body)

    async def edit(self, name: str = "sums", **spec: Any) -> None:
        """Changes the job's spec."""
        await self.api.patch(self.path("rltrainingjobs", name), {"spec": spec}, MERGE)

    async def job(self, name: str = "sums") -> Raw:
        return await self.api.get(self.path("rltrainingjobs", name))

    async def status(self, name: str = "sums") -> Raw:
        return (await self.job(name)).get("status") or {}

    async def until(self, what: str, check: Callable[[Raw], Any], name: str = "sums", seconds: float = PATIENCE) -> Raw:
        """The first status of the job for which `check` holds."""

        async def look() -> Raw | None:
            status = await self.status(name)
            return status if check(status) else None

        try:
            return await until(what, look, seconds)
        except AssertionError as error:
            logs = "\n".join(it.log[-3000:] for it in self.operators)
            raise AssertionError(f"{error}\nstatus: {json.dumps(await self.status(name), indent=1)}\n{logs}") from None

    async def running(self, attempt: int = 1, step: int = 1, name: str = "sums") -> Raw:
        """The status once this attempt is Running and has made this step (status itself shows steps every 10 s)."""
        status = await self.until(
            f"attempt {attempt} is Running",
            lambda s: s.get("phase") == "Running" and s["attempt"]["number"] == attempt and "progress" in s,
            name,
        )
        gang = self.kubelet.gangs[status["attempt"]["jobSetUID"]]
        await until(f"attempt {attempt} makes step {step}", lambda: gang.step >= step)
        return status

    async def completed(self, name: str = "sums", seconds: float = PATIENCE) -> Raw:
        return await self.until("the job is Completed", lambda s: s.get("phase") == "Completed", name, seconds)

    async def events(self, name: str = "sums") -> list[tuple[str, str]]:
        """Reason and message of every event on the job, oldest first."""
        found = [e for e in await self.items("events") if e["involvedObject"]["name"] == name]
        return [
            (e["reason"], e.get("message", "")) for e in sorted(found, key=lambda e: e["metadata"]["resourceVersion"])
        ]

    async def gone(self, plural: str, name: str) -> bool:
        try:
            await self.api.get(self.path(plural, name))
        except ApiError as error:
            return error.status == 404
        return False

    # -- what happened -------------------------------------------------------------------------------------------------

    async def history(self) -> History:
        """All that happened, once nothing is left to happen: faults end; where every job is over and an operator leads,
        it looks at all of them once more, and has nothing to write."""
        for fault in self.proxy.faults:
            fault.times = 0
        self.proxy.lose_event = lambda event: False
        jobs = await self.items("rltrainingjobs")
        over = all((job.get("status") or {}).get("phase") in ("Completed", "Failed") for job in jobs)
        settled = over and any(it.metric("ratchet_leader ") for it in self.operators)
        acts = len(self.proxy.acts)
        if settled:  # a pass begins when the one before it has ended, with its events
            names = [job["metadata"]["name"] for job in jobs]
            await self._passes_over(names)
            if any(it.kind == JOB and it.change == "DELETED" for it in self.recorder.versions):
                await self._periodic_lists(1)  # a pass over a job that was just deleted ends with a 404
            acts = len(self.proxy.acts)
            await self._passes_over(names)
        if settled:  # Kubernetes collects the pods of a JobSet that is gone in its own time
            with contextlib.suppress(AssertionError):
                await until("no pod has outlived its JobSet", self._collected, 60)
        await until("the recorder has heard of everything", self.recorder.caught_up)

        def recorded() -> History:
            resumed = [Resumed(uid, gang.origin) for uid, gang in self.kubelet.gangs.items()]
            quiet = self.proxy.acts[acts:] if settled else []
            return History(self.recorder.versions, self.proxy.acts, self._reads(), resumed, quiet, settled)

        if settled:  # the watches of JobSets and pods may be behind that of jobs, whose passes were waited for
            with contextlib.suppress(AssertionError):
                await until("everything is looked at", lambda: not [*every_change_is_looked_at(recorded())], 60)
        return recorded()

    def _reads(self) -> list[Look | Seen | Round]:
        """What was read, and what passes have seen, in order."""
        found = [*self.proxy.reads, *(look for it in self.operators for look in it.looks)]
        return sorted(found, key=lambda read: read.at)

    async def _collected(self) -> bool:
        jobsets = {it["metadata"]["uid"] for it in await self.items("jobsets")}
        owned = [it for it in await self.items("pods") if it["metadata"].get("ownerReferences")]
        return all(it["metadata"].get("labels", {}).get(LABEL_JOBSET_UID) in jobsets for it in owned)

    async def touch(self, name: str = "sums") -> Raw:
        """Changes the job without any meaning; a watch tells of it. Returns the job."""
        number = str(next(_touches))
        body = {"metadata": {"annotations": {"touched": number}}}
        return await self.api.patch(self.path("rltrainingjobs", name), body, MERGE)

    async def at_rest(self, lists: int = 6) -> None:
        """Nothing is written during so many periodic lists, once things have settled."""
        before = -1
        while before != len(self.proxy.writes):
            before = len(self.proxy.writes)
            await self._periodic_lists(4)
        await self._periodic_lists(lists)
        assert self.proxy.writes[before:] == []

    async def _periodic_lists(self, count: int) -> None:
        """Waits for so many further ones."""
        before = sum(isinstance(it, Round) for it in self.proxy.reads)
        await until(
            "the periodic list", lambda: sum(isinstance(it, Round) for it in self.proxy.reads) >= before + count
        )

    async def _passes_over(self, jobs: list[str]) -> None:
        """Touches each job and waits until the operator has looked at it."""
        for name in jobs:
            meta = (await self.touch(name))["metadata"]
            version = meta["uid"], int(meta["resourceVersion"])
            await until(f"{name} is looked at", lambda version=version: self._has_seen(*version))

    def _has_seen(self, uid: str, revision: int) -> bool:
        return any(look.versions.get(uid, 0) >= revision for it in self.operators for look in it.looks)


JOB = """
apiVersion: ratchet.dev/v1alpha1
kind: RLTrainingJob
metadata: {}
spec:
  model: {preset: tiny}
  datasets:
  - {name: sums, reasoningGym: {task: chain_sum, size: 200}}
  stages:
  - {name: warm-up, sft: {dataset: sums}, advance: {steps: 10}}
  - name: reason
    rl: {dataset: sums, method: grpo}
    advance: {steps: 20}
  checkpoint: {directory: /checkpoints/sums, claimName: checkpoints}
  placements:
  - {name: spot, accelerator: tpu-v6e-slice, topology: 2x4, chipsPerNode: 4, capacity: Spot}
"""
