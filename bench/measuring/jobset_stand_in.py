"""What `bench/many_jobs.py --stand-in` has in place of the JobSet, Job and node controllers and of the scheduler.

With thousands of jobs these are most of the work of two processors, and what is to be measured waits for them. It
plays only what an operator sees of them: a JobSet gets its one pod, already bound, with the labels and the owner that
the controllers give it; when the JobSet goes, so does the pod. Nothing is restarted, nothing is garbage collected.
"""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from typing import Any

from ratchet_api.protocol import LABEL_JOBSET_UID
from ratchet_cluster import processes
from ratchet_cluster.api import Api, ApiError
from ratchet_cluster.cluster import Cluster

Raw = dict[str, Any]
JOBSETS = "/apis/jobset.x-k8s.io/v1alpha2/jobsets"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/{}webhookconfigurations"
PLAYED = ("jobset", "kube-controller-manager", "kube-scheduler")


async def end_the_real_ones(api: Api, cluster: Cluster, namespaces: list[str]) -> None:
    """Ends the controllers of the cluster, once they have made what every namespace has, and JobSet's webhooks."""
    for namespace in namespaces:
        while True:
            try:
                await api.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/default")
                break
            except ApiError as error:
                if error.status != 404:
                    raise
                await asyncio.sleep(0.2)
    for kind in ("mutating", "validating"):
        path = WEBHOOKS.format(kind)
        for it in (await api.get(path))["items"]:
            await api.delete(f"{path}/{it['metadata']['name']}")
    there = processes.running(cluster.folder)
    for name in PLAYED:
        if name in there:
            os.kill(there[name], signal.SIGTERM)


class StandIn:
    """Follows all JobSets. Use as an async context manager."""

    def __init__(self, api: Api, nodes: list[str]):
        self._api, self._nodes = api, nodes
        self._pods: dict[str, str] = {}  # uid of a JobSet -> path of its pod
        self._made = 0
        self._at_once = asyncio.Semaphore(16)
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> StandIn:
        self._spawn(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()

    async def _follow(self) -> None:
        async for kind, found in self._api.follow(JOBSETS):
            for jobset in found if kind == "SYNC" else [found]:
                uid = jobset["metadata"]["uid"]
                if kind == "DELETED":
                    if (path := self._pods.pop(uid, None)) is not None:
                        self._spawn(self._delete(path))
                elif uid not in self._pods:
                    self._pods[uid] = f"/api/v1/namespaces/{jobset['metadata']['namespace']}/pods/{_name(jobset)}"
                    self._spawn(self._create(jobset))

    async def _create(self, jobset: Raw) -> None:
        meta, (replicated,) = jobset["metadata"], jobset["spec"]["replicatedJobs"]
        template = replicated["template"]["spec"]["template"]
        job = f"{meta['name']}-{replicated['name']}-0"
        labels = {
            **template["metadata"]["labels"],
            LABEL_JOBSET_UID: meta["uid"],
            "jobset.sigs.k8s.io/jobset-name": meta["name"],
            "jobset.sigs.k8s.io/replicatedjob-name": replicated["name"],
            "jobset.sigs.k8s.io/job-index": "0",
            "batch.kubernetes.io/job-name": job,
            "batch.kubernetes.io/job-completion-index": "0",
        }
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": str(uuid.uuid4()), "controller": True}
        self._made += 1
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": _name(jobset), "labels": labels, "ownerReferences": [owner]},
            "spec": {**template["spec"], "nodeName": self._nodes[self._made % len(self._nodes)]},
        }
        async with self._at_once:
            await self._api.request("POST", f"/api/v1/namespaces/{meta['namespace']}/pods", body, timeout=60.0)

    async def _delete(self, path: str) -> None:
        async with self._at_once:
            await self._api.delete(path)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            raise error


def _name(jobset: Raw) -> str:
    return f"{jobset['metadata']['name']}-{jobset['spec']['replicatedJobs'][0]['name']}-0-0-0"
