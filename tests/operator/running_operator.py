"""The operator as a process of its own, with the chart's rights, on a real control plane, behind the fault proxy."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import yaml
from faultproxy import FaultProxy
from scripted_kubelet import WORLD, Kubelet

from ratchet_cluster.api import Api, ApiError
from ratchet_cluster.ports import free_ports

Raw = dict[str, Any]

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


class Operator:
    """One replica: parent and worker, or (`supervised=False`) the worker alone."""

    def __init__(self, world: World, name: str = "operator", *, supervised: bool = True, **env: str):
        self.world, self.name, self.supervised = world, name, supervised
        (self.port,) = free_ports(1)
        self.log_path = world.folder / f"{name}.log"
        self.env = {
            **os.environ, "KUBECONFIG": str(world.kubeconfig), "RATCHET_OPERATOR_NAMESPACE": world.namespace,
            "RATCHET_WATCH_NAMESPACES": world.namespace, "RATCHET_METRICS_PORT": str(self.port),
            "RATCHET_POD_IP": "127.0.0.1", "RATCHET_POD_NAME": name, "RATCHET_TRAINER_IMAGE": "trainer:test", **env,
        }  # fmt: skip
        self.env.pop("KUBERNETES_SERVICE_HOST", None)
        if not supervised:
            self.env["RATCHET_IDENTITY"] = name
        self.process: asyncio.subprocess.Process | None = None

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
        body["spec"].update(spec)
        own = {"nodeSelector": {WORLD: self.namespace}}
        body["spec"]["placements"] = [placement | own for placement in body["spec"]["placements"]]
        return await self.api.create(self.path("rltrainingjobs"), body)

    async def edit(self, name: str = "sums", **spec: Any) -> None:
        """Changes the job's spec."""
        await self.api.patch(self.path("rltrainingjobs", name), {"spec": spec}, "application/merge-patch+json")

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
