"""One pass over one job: observe, decide, apply. Every trigger leads here.

Decides what a pass that failed means for the next one, and keeps the little that must outlive a pass and may be lost:
names found taken, the leader to ask, what was seen last. What to do is decided in `decide`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from ratchet_api import job as api
from ratchet_api.protocol import LABEL_JOB
from ratchet_operator import metrics
from ratchet_operator.apply import Outdated, Pruned, apply
from ratchet_operator.clock import Clock
from ratchet_operator.decide import decide
from ratchet_operator.decide.observed_pod import Pod
from ratchet_operator.decide.plan_builder import paced
from ratchet_operator.events import Events
from ratchet_operator.flush import Flush
from ratchet_operator.kube import Fenced, Kube, Refused, Unreachable
from ratchet_operator.observe import NODE_LABEL, Nodes, fingerprint, observe
from ratchet_operator.plan import Event
from ratchet_operator.progress import Leader, Progress
from ratchet_operator.queue import Again, Key, Version
from ratchet_operator.snapshot import Snapshot, Values

Raw = dict[str, Any]
log = logging.getLogger(__name__)

PRUNED_SECONDS = 60.0


class Reconciler:
    """`__call__` is one pass; `resync` finds what no watch told of."""

    def __init__(
        self,
        kube: Kube,
        clock: Clock,
        events: Events,
        nodes: Nodes,
        progress: Progress,
        values: Values,
        fence: Callable[[], int],
    ):
        self._kube, self._clock, self._events, self._nodes = kube, clock, events, nodes
        self._progress, self._values, self._fence = progress, values, fence
        self._flush = Flush()
        self._conflicts: dict[Key, tuple[str, ...]] = {}
        self._seen: dict[Key, frozenset[Version]] = {}

    async def __call__(self, key: Key) -> Again:
        started = time.monotonic()
        result, again = await self._guarded(key)
        if again.failed:
            self._seen.pop(key, None)
        metrics.RECONCILES.labels(result).inc()
        metrics.RECONCILE_SECONDS.observe(time.monotonic() - started)
        return again

    def is_news(self, key: Key, version: Version) -> bool:
        """Whether the last whole pass over the job has neither seen nor written this version."""
        return version not in self._seen.get(key, ())

    def progress_wait(self, key: Key) -> float:
        """Seconds until news of this job's progress is worth a pass."""
        return self._flush.wait(key)

    async def _guarded(self, key: Key) -> tuple[str, Again]:
        where = "/".join(key)
        try:
            return "done", await self._pass(key)
        except Outdated as outdated:
            log.info("%s: looking again: %s", where, outdated)
            return "conflict", Again(failed=True)
        except Pruned as pruned:
            log.error("%s: the API server dropped %s; the job is left alone", where, pruned)
            return "refused", Again(after=PRUNED_SECONDS, failed=True)
        except Refused as refused:
            log.warning("%s: %s", where, refused)
            if refused.status == 403:
                await self._forbidden(key, refused)
            return "refused", Again(after=refused.retry_after, failed=True)
        except Unreachable as problem:
            log.warning("%s: %s", where, problem)
            return "unreachable", Again(failed=True)
        except Fenced as fenced:
            log.warning("%s: %s", where, fenced)
            return "fenced", Again(failed=True)
        except Exception:  # a bug in one job's pass must not stop the others'
            log.exception("%s: this is a bug in the operator; the job is left alone and tried again later", where)
            return "bug", Again(failed=True)

    async def _pass(self, key: Key) -> Again:
        state = await observe(self._kube, self._nodes, key)
        if state is None:
            self.forget(key)
            return Again()
        job, jobsets, pods, nodes = state
        wait = self._flush.wait(key)
        snapshot = Snapshot(
            now=self._clock.now(), job=job, jobsets=jobsets, pods=pods, nodes=nodes,
            progress=self._progress.latest(key), flush_due=wait <= 0, fence=self._fence(),
            conflicts=self._conflicts.get(key, ()), values=self._values,
        )  # fmt: skip
        plan = decide(snapshot)
        before = job.get("status") or {}
        metrics.JOBS.say(*key, job)
        self._progress.follow(key, leader(job, pods))
        job, conflicts = await apply(self._kube, self._events, job, plan)
        metrics.JOBS.say(*key, job)
        if paced(job.get("status") or {}) != paced(before):
            self._flush.took(key)
        self._seen[key] = fingerprint(job, jobsets, pods)
        fresh_conflict = conflicts != self._conflicts.get(key, ())
        self._conflicts[key] = conflicts
        if not conflicts:
            del self._conflicts[key]
        if conflicts and not fresh_conflict:
            return Again(failed=True)  # nothing but time can help: back off
        if fresh_conflict:
            return Again(after=0.0)
        after = [] if plan.requeue_after is None else [plan.requeue_after]
        if wait > 0 and self._unflushed(job, snapshot.progress):
            after.append(wait)
        return Again(after=min(after, default=None))

    @staticmethod
    def _unflushed(job: Raw, progress: Raw | None) -> bool:
        written = ((job.get("status") or {}).get("progress") or {}).get("updatedAt") or ""
        return progress is not None and progress["receivedAt"] > written

    async def _forbidden(self, key: Key, refused: Refused) -> None:
        """Says on the job itself what the operator is not allowed to do."""
        try:
            if job := await self._kube.get(api.KIND, key[1], key[0]):
                message = f"the operator lacks a right: {refused.message[:500]} Compare its role with the chart's."
                await self._events.post(job, Event("Warning", "Forbidden", message))
        except (Refused, Unreachable) as problem:
            log.warning("%s/%s: %s", *key, problem)

    def forget(self, key: Key) -> None:
        """The job is gone, and with it everything that was kept of it."""
        self._progress.forget(key)
        self._flush.forget(key)
        self._conflicts.pop(key, None)
        self._seen.pop(key, None)
        metrics.JOBS.forget(*key)

    async def resync(self, namespaces: Iterable[str | None], *, nodes: bool) -> list[Key]:
        """Lists everything once, a page at a time, names and versions only; returns the jobs that changed unseen."""
        listed: dict[Key, set[Version]] = {}
        for namespace in namespaces:
            for kind, labels in ((api.KIND, ""), ("JobSet", LABEL_JOB), ("Pod", LABEL_JOB)):
                for item in await self._kube.list(kind, namespace, labels, metadata_only=True):
                    meta = item["metadata"]
                    name = meta["name"] if kind == api.KIND else meta["labels"][LABEL_JOB]
                    listed.setdefault((meta["namespace"], name), set()).add((meta["uid"], meta["resourceVersion"]))
        if nodes:
            self._nodes.replace(await self._kube.list("Node", labels=NODE_LABEL))
        return [key for key in {*listed, *self._seen} if frozenset(listed.get(key, ())) != self._seen.get(key)]


def leader(job: Raw, pods: list[Raw]) -> Leader | None:
    """The running pod that speaks for the present attempt: completion index 0 of job index 0."""
    attempt = (job.get("status") or {}).get("attempt") or {}
    if not attempt.get("jobSetUID"):
        return None
    for pod in map(Pod, pods):
        address = pod.status.get("podIP")
        if (
            pod.is_leader
            and pod.running
            and (pod.attempt, pod.jobset_uid) == (attempt.get("number"), attempt.get("jobSetUID"))
            and address
            and not pod.raw["spec"].get("hostNetwork")
        ):
            return Leader(address, job["metadata"]["uid"], attempt["number"], attempt["jobSetUID"])
    return None
