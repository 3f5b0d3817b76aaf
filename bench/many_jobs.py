"""The operator with a thousand jobs and more, beside a client that only makes the same writes: time, memory, calls.

    python bench/many_jobs.py [--jobs N] [--preempt N] [--idle SECONDS] [--stand-in] [--json FILE]

The control plane is the real one: API server, scheduler, Job and JobSet controllers; with `--stand-in` the API server
and etcd alone, and a simulation plays the others (`measuring/jobset_stand_in.py`), for the operator and for the client
alike. Machines and trainers are simulated (`measuring/simulated_pods.py`), one pod a job. In one run:

1. one job goes through the tests' fault proxy, is preempted once and comes back; what the operator writes is recorded;
2. created: N jobs are created, until the JobSet of the last one is recorded in status, and until all run;
3. idle: nothing happens, but for trainers' steps;
4. preempted: a hundred pods at once, until the last JobSet that replaces one is recorded, and until all run again;
5. the client: N other jobs in a namespace that no operator watches, and for each the writes recorded in 1, the same
   number at once, first those of the creation, then for a hundred of them those of the preemption.

`ratio` is the operator's time over the client's, up to the last write. Processor seconds and memory are read from
/proc. Times of day are this machine's: compare within a run only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/operator"))

from faultproxy import FaultProxy
from measuring.jobset_stand_in import StandIn, end_the_real_ones
from measuring.recorded_writes import Recorder, Replayed, Write, replay
from measuring.simulated_pods import Pods

from ratchet_cluster import processes
from ratchet_cluster.api import Api, ApiError
from ratchet_cluster.cluster import Cluster
from ratchet_cluster.ports import free_ports

Raw = dict[str, Any]
WATCHED, CLIENT = "bench", "client"
WORKERS = 16
"""Passes that the operator has under way at most, and jobs that the client writes for at once."""
PATIENCE = 7200.0
PROCESSES = ("kube-apiserver", "etcd", "jobset", "kube-controller-manager", "kube-scheduler")
JOBS = "/apis/ratchet.dev/v1alpha1/namespaces/{}/rltrainingjobs"
JOB = """
apiVersion: ratchet.dev/v1alpha1
kind: RLTrainingJob
metadata: {}
spec:
  model: {preset: tiny}
  datasets:
  - {name: sums, reasoningGym: {task: chain_sum, size: 200}}
  stages:
  - name: reason
    rl: {dataset: sums, method: grpo}
    advance: {steps: 1000000}
  checkpoint: {directory: /checkpoints/sums, claimName: checkpoints}
  restart: {failureLimit: 3}
  placements:
  - {name: spot, accelerator: tpu-v6e-slice, topology: 2x2, capacity: OnDemand}
"""


class Operator:
    """The worker of one replica as a process of its own."""

    def __init__(self, folder: Path, kubeconfig: Path):
        self.folder, self.kubeconfig = folder, kubeconfig
        (self.port,) = free_ports(1)
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        env = {
            **os.environ, "KUBECONFIG": str(self.kubeconfig), "RATCHET_OPERATOR_NAMESPACE": WATCHED,
            "RATCHET_WATCH_NAMESPACES": WATCHED, "RATCHET_METRICS_PORT": str(self.port), "RATCHET_POD_IP": "127.0.0.1",
            "RATCHET_POD_NAME": "bench", "RATCHET_IDENTITY": "bench", "RATCHET_TRAINER_IMAGE": "trainer:bench",
            "RATCHET_LEASE_SECONDS": "120",  # on a machine that is busy with other things, too
        }  # fmt: skip
        env.pop("KUBERNETES_SERVICE_HOST", None)
        with open(self.folder / "operator.log", "ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "ratchet_operator.app", env=env, stdout=log, stderr=log
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def metrics(self) -> dict[str, float]:
        import aiohttp

        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines if not x.startswith("#"))}

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()


def processor_seconds(pid: int) -> float:
    parts = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


class Bench:
    """What the parts of the story share."""

    def __init__(self, api: Api, pods: Pods, cluster: Cluster, folder: Path):
        self.api, self.pods, self.cluster, self.folder = api, pods, cluster, folder
        self.statuses: dict[str, Raw] = {}  # job of the watched namespace -> its status, as a watch has it
        self.recorded: dict[tuple[str, int], float] = {}  # (job, attempt) -> when its JobSet stood in status
        self.operator: Operator | None = None
        self.found: dict[str, Any] = {}

    async def follow(self) -> None:
        async for kind, found in self.api.follow(JOBS.format(WATCHED)):
            for job in found if kind == "SYNC" else [found]:
                name = job["metadata"]["name"]
                if kind == "DELETED":
                    self.statuses.pop(name, None)
                    continue
                self.statuses[name] = status = job.get("status") or {}
                attempt = status.get("attempt") or {}
                if attempt.get("jobSetUID"):
                    self.recorded.setdefault((name, attempt["number"]), time.monotonic())

    def at(self, name: str) -> tuple[int, str]:
        status = self.statuses.get(name) or {}
        return (status.get("attempt") or {}).get("number", 0), status.get("phase", "")

    async def until(self, what: str, check: Callable[[], bool]) -> float:
        began = time.monotonic()
        said = began
        while not check():
            await asyncio.sleep(0.05)
            if time.monotonic() - said > 30:
                said = time.monotonic()
                phases = Counter(status.get("phase", "New") for status in self.statuses.values())
                print(f"  waiting for: {what} ({dict(phases)}, {len(self.pods.running)} pods run)", flush=True)
            if time.monotonic() - began > PATIENCE:
                raise SystemExit(f"not within {PATIENCE:.0f} s: {what}; see {self.folder}")
        return time.monotonic()

    async def span(self, name: str, work: Callable[[], Awaitable[Raw]]) -> Raw:
        """Does it; what it returns, with processor seconds and memory of all processes and the operator's calls."""
        pids = {n: p for n, p in processes.running(self.cluster.folder).items() if n in PROCESSES}
        operator = self.operator
        if operator is not None:
            pids["operator"] = operator.pid
        before = {n: processor_seconds(p) for n, p in pids.items()}
        calls = await operator.metrics() if operator else {}
        began = time.monotonic()
        found = await work()
        found["seconds"] = time.monotonic() - began
        found["processorSeconds"] = {n: processor_seconds(p) - before[n] for n, p in pids.items()}
        found["residentMiB"] = {n: resident_mib(p) for n, p in pids.items()}
        if operator is not None:
            after = await operator.metrics()
            found["calls"] = {
                key.removeprefix("ratchet_api_requests_total"): after[key] - calls.get(key, 0.0)
                for key in after
                if key.startswith("ratchet_api_requests_total") and after[key] != calls.get(key, 0.0)
            }
            found["passes"] = {q: _quantile(calls, after, q) for q in (0.5, 0.95, 0.99)}
        self.found[name] = found
        print(f"{name}: {json.dumps(_rounded(found))}", flush=True)
        return found

    async def create(self, namespace: str, names: list[str]) -> None:
        """Applies jobs as users do, WORKERS at once."""
        todo = iter(names)

        async def some() -> None:
            for name in todo:
                body = yaml.safe_load(JOB)
                body["metadata"]["name"] = name
                body["spec"]["checkpoint"]["directory"] = f"/checkpoints/{name}"  # one job a directory
                await self.api.create(JOBS.format(namespace), body)

        await asyncio.gather(*(some() for _ in range(WORKERS)))

    # -- the story -----------------------------------------------------------------------------------------------------

    async def record(self) -> tuple[list[Write], list[Write], dict[str, str]]:
        """Writes of a creation, those of a preemption, and names and uids of the job that they were for."""
        tls = ssl.create_default_context(cafile=str(self.cluster.plane.pki / "ca.crt"))
        tls.load_cert_chain(*(self.cluster.plane.pki / f"admin.{end}" for end in ("crt", "key")))
        async with FaultProxy(self.cluster.plane.server, tls) as proxy:
            operator = Operator(self.folder, _kubeconfig(self.folder, proxy.url))
            await operator.start()
            recorder = Recorder(proxy)
            await self.create(WATCHED, ["recorded"])
            await self.until("the recorded job runs", lambda: self.at("recorded") == (1, "Running"))
            creation = _until_recorded(recorder.stop())
            recorder = Recorder(proxy)
            await self.pods.preempt(WATCHED, "recorded")
            await self.until("the recorded job runs again", lambda: self.at("recorded") == (2, "Running"))
            preemption = _until_recorded(recorder.stop())
            await operator.stop()
        uid = (await self.api.get(JOBS.format(WATCHED) + "/recorded"))["metadata"]["uid"]
        await self.api.delete(JOBS.format(WATCHED) + "/recorded")
        print(f"recorded: {_words(creation)}; of a preemption: {_words(preemption)}", flush=True)
        return creation, preemption, {"uid": uid}

    async def created(self, names: list[str]) -> Raw:
        began = time.monotonic()
        await self.create(WATCHED, names)
        applied = time.monotonic()
        await self.until("all JobSets are there", lambda: all((name, 1) in self.recorded for name in names))
        last = max(self.recorded[name, 1] for name in names)
        await self.until("all run", lambda: all(self.at(name) == (1, "Running") for name in names))
        return {"applied": applied - began, "written": last - began, "running": time.monotonic() - began}

    async def preempted(self, names: list[str]) -> Raw:
        began = time.monotonic()
        await asyncio.gather(*(self.pods.preempt(WATCHED, name) for name in names))
        told = time.monotonic()
        await self.until("all are replaced", lambda: all((name, 2) in self.recorded for name in names))
        last = max(self.recorded[name, 2] for name in names)
        await self.until("all run again", lambda: all(self.at(name) == (2, "Running") for name in names))
        return {"told": told - began, "written": last - began, "running": time.monotonic() - began}

    async def by_client(self, names: list[str], writes: list[Write], jobs: dict[str, Replayed], old: str) -> Raw:
        """The same writes by WORKERS tasks; where `jobs` lacks a job it is created first, as `created` has it."""
        began = time.monotonic()
        missing = [name for name in names if name not in jobs]
        creating = asyncio.create_task(self.create(CLIENT, missing))
        todo = iter(names)

        async def some() -> None:
            for name in todo:
                while name not in jobs:
                    try:
                        job = await self.api.get(JOBS.format(CLIENT) + f"/{name}")
                    except ApiError as error:
                        if error.status != 404:
                            raise
                        await asyncio.sleep(0.02)
                        continue
                    texts = {"recorded": name, f'"{WATCHED}"': f'"{CLIENT}"', f"/{WATCHED}/": f"/{CLIENT}/"}
                    jobs[name] = Replayed({**texts, old: job["metadata"]["uid"]})
                await replay(self.api, writes, jobs[name])

        await asyncio.gather(*(some() for _ in range(WORKERS)))
        await creating
        return {
            "written": time.monotonic() - began,
            "calls": sum(jobs[name].calls for name in names),
            "bytes": sum(jobs[name].bytes for name in names),
        }


def _until_recorded(writes: list[Write]) -> list[Write]:
    """Up to the first status that holds the new JobSet's uid; without what is written onto pods, which a client that
    waits for nobody may not find yet."""
    writes = [w for w in writes if "/pods/" not in w.path]
    made = next(i for i, w in enumerate(writes) if w.method == "POST" and w.path.endswith("/jobsets"))
    end = next(
        i for i, w in enumerate(writes) if i > made and w.path.endswith("/status") and writes[made].uid in w.body
    )
    return writes[: end + 1]


def _words(writes: list[Write]) -> str:
    return ", ".join(f"{w.method} {w.path.rsplit('/', 3)[-1 if w.method == 'POST' else -2]}" for w in writes)


def _quantile(before: dict[str, float], after: dict[str, float], q: float) -> float:
    """Upper bound of the bucket in which the quantile of the passes in between lies; seconds."""
    name = "ratchet_reconcile_duration_seconds_bucket"
    bounds = []
    for key in after:
        if key.startswith(name):
            bound = key.split('le="')[1].split('"')[0]
            bounds.append((float("inf") if bound == "+Inf" else float(bound), after[key] - before.get(key, 0.0)))
    bounds.sort()
    total = bounds[-1][1] if bounds else 0.0
    return next((bound for bound, count in bounds if total and count >= q * total), 0.0)


def _rounded(found: Any) -> Any:
    if isinstance(found, dict):
        return {str(key): _rounded(value) for key, value in found.items()}
    return round(found, 2) if isinstance(found, float) else found


def _kubeconfig(folder: Path, url: str) -> Path:
    file = folder / "recorded.kubeconfig"
    file.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1", "kind": "Config", "current-context": "bench",
                "clusters": [{"name": "bench", "cluster": {"server": url}}], "users": [{"name": "bench", "user": {}}],
                "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
            }
        )
    )  # fmt: skip
    return file


async def prepared(api: Api, namespace: str) -> None:
    """The namespace with a bound claim `checkpoints`."""
    await api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
    common = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    volume = {**common, "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/nowhere"},
              "claimRef": {"namespace": namespace, "name": "checkpoints"}}  # fmt: skip
    claim = {**common, "volumeName": namespace, "resources": {"requests": {"storage": "1Gi"}}}
    await api.create("/api/v1/persistentvolumes", {"metadata": {"name": namespace}, "spec": volume})
    path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
    await api.create(path, {"metadata": {"name": "checkpoints"}, "spec": claim})


async def story(cluster: Cluster, folder: Path, arguments: argparse.Namespace) -> Raw:
    names = [f"job-{i:05d}" for i in range(arguments.jobs)]
    some = names[:: max(1, len(names) // arguments.preempt)][: arguments.preempt]
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(cluster.plane.api())
        for namespace in (WATCHED, CLIENT):
            await prepared(api, namespace)
        pods = await stack.enter_async_context(Pods(api, arguments.step_seconds))
        if arguments.stand_in:
            await end_the_real_ones(api, cluster, [WATCHED, CLIENT])
            await stack.enter_async_context(StandIn(api, pods.nodes))
            print("the JobSet, Job and node controllers and the scheduler are played by a stand-in", flush=True)
        bench = Bench(api, pods, cluster, folder)
        following = asyncio.create_task(bench.follow())
        stack.callback(following.cancel)
        creation, preemption, old = await bench.record()
        bench.operator = Operator(folder, cluster.kubeconfig)
        await bench.operator.start()
        stack.push_async_callback(bench.operator.stop)

        async def leads() -> None:
            while True:
                try:
                    if (await bench.operator.metrics()).get("ratchet_leader") == 1:
                        return
                except OSError:
                    pass
                await asyncio.sleep(0.2)

        await asyncio.wait_for(leads(), 120)
        ours = await bench.span("created", lambda: bench.created(names))

        async def rest() -> Raw:
            await asyncio.sleep(arguments.idle)
            return {}

        await asyncio.sleep(15)  # what the creation still has to say
        await bench.span("idle", rest)
        again = await bench.span("preempted", lambda: bench.preempted(some))
        await bench.operator.stop()
        bench.operator = None
        jobs: dict[str, Replayed] = {}
        theirs = await bench.span("client created", lambda: bench.by_client(names, creation, jobs, old["uid"]))
        await bench.until("the client's pods run", lambda: all((CLIENT, name) in pods.running for name in some))
        after = await bench.span("client preempted", lambda: bench.by_client(some, preemption, jobs, old["uid"]))
        bench.found["ratio"] = {
            "created": ours["written"] / theirs["written"],
            "preempted": again["written"] / after["written"],
        }
        setting = {"jobs": len(names), "preemptedJobs": len(some), "standIn": arguments.stand_in}
        return bench.found | setting | {"load": [round(load, 1) for load in os.getloadavg()]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--preempt", type=int, default=100)
    parser.add_argument("--idle", type=float, default=60.0, help="seconds")
    parser.add_argument("--step-seconds", type=float, default=60.0, help="between two steps of a simulated trainer")
    parser.add_argument("--stand-in", action="store_true", help="play the controllers beside the operator")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ratchet-bench-") as folder:
        cluster = Cluster(Path(folder) / "cluster")
        cluster.up(nodes=False, progress=print, owner=os.getpid())
        cluster.kubectl("apply", "--server-side", "-f", str(ROOT / "crds/rltrainingjobs.ratchet.dev.yaml"))
        try:
            found = asyncio.run(story(cluster, Path(folder), arguments))
        finally:
            cluster.down(purge=True)
    print(f"ratio to a client that only writes: {json.dumps(_rounded(found['ratio']))}")
    if arguments.json:
        arguments.json.write_text(json.dumps(_rounded(found), indent=2) + "\n")


if __name__ == "__main__":
    main()
