"""From a loss to training again: Ratchet and a bare JobSet with restarts, the same trainer on the same cluster.

    python bench/recovery.py [--times N] [--model FOLDER] [--json FILE]

On the local control plane (real API server, scheduler, Job and JobSet controllers; pods are processes of this machine)
one gang of two hosts trains on spot nodes, with a spare pool of the same shape beside it. N times its nodes are taken
away, in turns with notice and without: first Ratchet's job, then the same pods as a bare JobSet with
`maxRestarts` and `BlockingRecreate`, which is what users have without an operator.

Measured by watching the API server, from the first sign of the loss that it shows (a node of the gang that is not
Ready or tainted, or a pod of it that is ending) to the moment when

- `pods`: all pods of the new gang are Running;
- `step`: the leader has finished its first new step.

Of Ratchet's job the parts are printed, too, as status has them: detect, drain, fence, place, start, restore, compile,
step. `--model` trains SmolLM2 (`make model`) instead of the preset `tiny`; then what reading the newest checkpoint's
files once takes is said beside restore and compile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from ratchet_api.protocol import LABEL_JOB, PORT
from ratchet_cluster import operator_chart
from ratchet_cluster.api import Api
from ratchet_cluster.cluster import Cluster

Raw = dict[str, Any]
PATIENCE = 180.0
PODS, NODES = "/api/v1/namespaces/default/pods", "/api/v1/nodes"
JOBS = "/apis/ratchet.dev/v1alpha1/namespaces/default/rltrainingjobs"
JOBSETS = "/apis/jobset.x-k8s.io/v1alpha2/namespaces/default/jobsets"
PARTS = ("detect", "drain", "fence", "place", "start", "restore", "compile", "step", "total")
JOB = """
apiVersion: ratchet.dev/v1alpha1
kind: RLTrainingJob
metadata: {}
spec:
  model: {preset: tiny}
  datasets:
  - name: sums
    reasoningGym:
      task: basic_arithmetic
      size: 800
      config: {min_terms: 3, max_terms: 3, min_digits: 1, max_digits: 1, operators: ["+"], allow_parentheses: false}
  stages:
  - name: reason
    rl: {dataset: sums, method: grpo, promptsPerStep: 8, groupSize: 8, maxPromptTokens: 33, maxResponseTokens: 3}
    advance: {steps: 1000000}
  checkpoint: {claimName: checkpoints, everySteps: 5}
  placements:
  - {name: spot, accelerator: tpu-v6e-slice, topology: 2x4, chipsPerNode: 4, capacity: Spot}
"""


class Gang:
    """The pods of one job, as watches of the API server tell of them."""

    def __init__(self, api: Api, name: str):
        self.api, self.name = api, name
        self.pods: dict[str, Raw] = {}
        self.nodes: dict[str, Raw] = {}
        self.news = asyncio.Event()

    async def follow(self, path: str, known: dict[str, Raw], **query: str) -> None:
        async for kind, found in self.api.follow(path, **query):
            if kind == "SYNC":
                known.clear()
            for it in found if kind == "SYNC" else [found]:
                if kind == "DELETED":
                    known.pop(it["metadata"]["uid"], None)
                else:
                    known[it["metadata"]["uid"]] = it
            self.news.set()

    async def until(self, what: str, check: Callable[[], Any]) -> float:
        """When `check` holds, looked at with each piece of news."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not check():
                    self.news.clear()
                    await self.news.wait()
        except TimeoutError:
            raise SystemExit(f"{self.name}: not within {PATIENCE:.0f} s: {what}") from None
        return time.monotonic()

    def running(self, but: frozenset[str] = frozenset()) -> list[Raw]:
        return [
            pod for uid, pod in self.pods.items()
            if uid not in but and pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
        ]  # fmt: skip

    def shaken(self, uids: frozenset[str], hosts: frozenset[str]) -> bool:
        """Whether anything of the old gang, or of its nodes, tells of the loss."""
        if any(uid not in self.pods or _ends(self.pods[uid]) for uid in uids):
            return True
        there = {node["metadata"]["name"]: node for node in self.nodes.values()}
        return any(name not in there or _going(there[name]) for name in hosts)

    def there(self) -> list[Raw]:
        """The machines that can be given pods."""
        return [node for node in self.nodes.values() if not _going(node)]

    async def step(self, session: aiohttp.ClientSession) -> tuple[int, int] | None:
        """Step that the leader began with, and the last one it has finished; None while nobody answers."""
        for pod in self.running():
            labels = pod["metadata"]["labels"]
            if labels.get("batch.kubernetes.io/job-completion-index") != "0" or not pod["status"].get("podIP"):
                continue
            try:
                async with session.get(f"http://{pod['status']['podIP']}:{PORT}/progress") as answer:
                    found = await answer.json()
            except (aiohttp.ClientError, OSError, TimeoutError):
                return None
            if found.get("startStep") is not None and found.get("step") is not None:
                return found["startStep"], found["step"]
        return None

    async def trains(self, session: aiohttp.ClientSession, steps: int = 1) -> float:
        """When its leader has made so many steps of its own."""
        async with asyncio.timeout(PATIENCE):
            while (at := await self.step(session)) is None or at[1] < at[0] + steps:
                await asyncio.sleep(0.02)
        return time.monotonic()


def _ends(pod: Raw) -> bool:
    disrupted = any(c["type"] == "DisruptionTarget" for c in pod["status"].get("conditions") or ())
    return disrupted or "deletionTimestamp" in pod["metadata"] or pod["status"].get("phase") in ("Failed", "Succeeded")


def _going(node: Raw) -> bool:
    ready = next((c for c in node["status"].get("conditions") or () if c["type"] == "Ready"), {"status": "Unknown"})
    taints = {taint["key"] for taint in node["spec"].get("taints") or ()}
    return ready["status"] != "True" or "cloud.google.com/impending-node-termination" in taints


async def losses(cluster: Cluster, gang: Gang, times: int, machines: int) -> list[Raw]:
    """Takes the gang's machines away `times` times; the seconds of each. `machines`: all that there are."""
    found: list[Raw] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        for number in range(times):
            await gang.until("the gang runs", lambda: len(gang.running()) == 2)
            # A pool that was taken away is back after 10 s, which may be later than the gang; to lose the other one
            # before that would measure how long machines take.
            await gang.until("the spare pool is there", lambda: len(gang.there()) == machines)
            await gang.trains(session, 7)
            old = frozenset(pod["metadata"]["uid"] for pod in gang.running())
            hosts = frozenset(str(pod["spec"]["nodeName"]) for pod in gang.running())
            abrupt = number % 2 == 1
            acting = asyncio.create_task(asyncio.to_thread(cluster.preempt, min(hosts), abrupt))
            sign = await gang.until("a sign", lambda old=old, hosts=hosts: gang.shaken(old, hosts))
            pods = await gang.until("all pods run again", lambda old=old: len(gang.running(old)) == 2)
            step = await gang.trains(session)
            await acting
            found.append({"kind": "abrupt" if abrupt else "graceful", "pods": pods - sign, "step": step - sign})
            print(f"  {gang.name}: {found[-1]['kind']:8} {pods - sign:6.2f} s to pods, {step - sign:6.2f} s to a step")
            await asyncio.sleep(1)  # status has been written
    return found


def manifest(name: str, model: Path | None) -> Raw:
    job: Raw = yaml.safe_load(JOB)
    job["metadata"]["name"] = name
    job["spec"]["checkpoint"]["directory"] = f"/checkpoints/{name}"
    if model is not None:
        job["spec"]["model"] = {"path": "/checkpoints/model", "claimName": "checkpoints"}
        job["spec"]["stages"][0]["rl"] |= {"promptsPerStep": 2, "maxPromptTokens": 56, "maxResponseTokens": 16}
        job["spec"]["checkpoint"]["everySteps"] = 2
    return job


def bare(job: Raw, folder: Path) -> list[Raw]:
    """What Ratchet would make of the job, but the JobSet restarts by itself and belongs to nobody."""
    file = folder / "bare.yaml"
    file.write_text(yaml.safe_dump(job))
    command = [sys.executable, "-m", "ratchet_cli.main", "render", str(file)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    objects = [it for it in yaml.safe_load_all(text) if it]
    for it in objects:
        it["metadata"].pop("ownerReferences", None)
        if it["kind"] == "JobSet":
            it["spec"]["failurePolicy"] = {"maxRestarts": 1000, "restartStrategy": "BlockingRecreate"}
    return objects


def read_once(directory: Path) -> float:
    """Seconds that all files of the newest checkpoint take to be read."""
    newest = max((directory / "steps").iterdir(), key=lambda folder: folder.stat().st_mtime)
    began = time.monotonic()
    for file in newest.rglob("*"):
        if file.is_file():
            file.read_bytes()
    return time.monotonic() - began


async def story(cluster: Cluster, folder: Path, times: int, model: Path | None) -> Raw:
    result: Raw = {}
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(cluster.plane.api())
        machines = len((await api.get(NODES))["items"])
        for name in ("ratchet", "bare"):
            gang, job = Gang(api, name), manifest(name, model)
            following = [
                asyncio.create_task(gang.follow(PODS, gang.pods, labelSelector=f"{LABEL_JOB}={name}")),
                asyncio.create_task(gang.follow(NODES, gang.nodes)),
            ]
            if name == "ratchet":
                await api.create(JOBS, job)
            else:
                for it in await asyncio.to_thread(bare, job, folder):
                    path = JOBSETS if it["kind"] == "JobSet" else f"/api/v1/namespaces/default/{it['kind'].lower()}s"
                    await api.create(path, it)
            result[name] = await losses(cluster, gang, times, machines)
            if name == "ratchet":
                status = (await api.get(f"{JOBS}/{name}"))["status"]
                result["recoveries"] = [it["recovery"] for it in status["attempts"] if it.get("recovery")]
                result["kinds"] = [it["kind"] for it in result[name]]
                if model is not None:
                    result["readSeconds"] = read_once(cluster.folder / "volumes/checkpoints" / name)
                await api.delete(f"{JOBS}/{name}")
                await gang.until("the pods are gone", lambda gang=gang: not gang.pods)
            for task in following:
                task.cancel()
    return result


def median(rows: list[Raw], key: str, kind: str | None = None) -> float:
    values = [float(row[key]) for row in rows if kind in (None, row.get("kind")) and key in row]
    return statistics.median(values) if values else float("nan")


def show(found: Raw) -> None:
    for what in ("pods", "step"):
        ours, theirs = median(found["ratchet"], what), median(found["bare"], what)
        print(f"first sign to {what}: Ratchet {ours:.2f} s, bare JobSet {theirs:.2f} s, ratio {ours / theirs:.2f}")
    for kind in ("graceful", "abrupt"):
        rows = [it for it, its in zip(found["recoveries"], found["kinds"], strict=False) if its == kind]
        print(f"{kind}: " + ", ".join(f"{part} {median(rows, part):.2f}" for part in PARTS))
    if "readSeconds" in found:
        both = [float(it.get("restore", 0)) + float(it.get("compile", 0)) for it in found["recoveries"]]
        read = found["readSeconds"]
        print(f"restore + compile {statistics.median(both):.2f} s, the checkpoint read once {read:.2f} s")


@contextmanager
def operated(model: Path | None = None) -> Iterator[tuple[Cluster, Path]]:
    """A cluster with the operator, and a folder; `model` is copied beside the checkpoints."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as in an image: there is bytecode, and no start compiles sources
    with tempfile.TemporaryDirectory(prefix="ratchet-bench-") as folder:
        cluster = Cluster(Path(folder) / "cluster")
        cluster.up(progress=print, owner=os.getpid())
        try:
            if model:
                shutil.copytree(model, cluster.folder / "volumes/checkpoints/model")
            operator_chart.install(cluster, "replicaCount=1")
            yield cluster, Path(folder)
        finally:
            cluster.down(purge=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--model", type=Path, help="a folder with SmolLM2, as `make model` leaves it")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with operated(arguments.model) as (cluster, folder):
        found = asyncio.run(story(cluster, folder, arguments.times, arguments.model))
    show(found)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
