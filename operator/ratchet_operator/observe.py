"""Reads one job and all that belongs to it.

Decides what is read live and what may come from memory. The job, its JobSets and its pods are listed live before
anything is done to them: fencing rests on them, and a watch may be behind. What a pass only shows may come from the
watches (`known`, docs/decisions/0036). Nodes come from the watch while their pods are well and are read live as soon as
one of their pods is not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ratchet_api import job as api
from ratchet_api.protocol import LABEL_JOB, REPLICATED_JOB
from ratchet_operator.decide import refusals
from ratchet_operator.decide.observed_job import ObservedJob
from ratchet_operator.decide.observed_node import ANNOTATIONS
from ratchet_operator.known import Known, Told
from ratchet_operator.kube import Kube, Refused
from ratchet_operator.queue import Key, Version
from ratchet_operator.snapshot import Snapshot

Raw = dict[str, Any]

NODE_LABEL = "cloud.google.com/gke-tpu-accelerator"
"""Nodes that are watched; any other node is read when a pod is bound to it."""


class WatchedState(NamedTuple):
    """One job and what belongs to it, as the API server has it or as the watches have told of it."""

    job: Raw
    jobsets: list[Raw]
    pods: list[Raw]
    nodes: dict[str, Raw | None]


async def observe(kube: Kube, nodes: Nodes, known: Known, key: Key) -> WatchedState | None:
    """The job and all that belongs to it, by name and whatever the uid, read live; None when there is no such job."""
    namespace, name = key
    selector = f"{LABEL_JOB}={name}"
    since = known.moment
    job, jobsets, pods = await asyncio.gather(
        kube.get(api.KIND, name, namespace),
        kube.list("JobSet", namespace, selector),
        kube.list("Pod", namespace, selector),
    )
    if job is None:
        nodes.leave(key)
        known.forget(key)
        return None
    known.complete(key, since, Told(job, jobsets, pods))
    return WatchedState(job, jobsets, pods, await nodes.of(kube, key, pods))


async def recall(kube: Kube, nodes: Nodes, known: Known, key: Key) -> WatchedState | None:
    """The same as the watches have told of it, with nothing asked but nodes; None where that is not all of it."""
    told = known.of(key)
    return None if told is None else WatchedState(*told, await nodes.of(kube, key, told.pods))


class Troubles:
    """What events say about attempts whose pods are missing or do not start.

    Read on demand, for an attempt that takes longer than it should, because no event is watched. The API server finds
    them by looking through all events of the namespace: with thousands of jobs, of which many wait at once, that must
    not become its work. So one question is under way at a time, and each is followed by a pause ten times as long.
    """

    def __init__(self, kube: Kube):
        self._kube = kube
        self._told: dict[Key, tuple[str, tuple[str, ...]]] = {}  # uid of the JobSet, and what was said of it last
        self._again_at = 0.0
        self._asking = False

    async def of(self, key: Key, job: Raw, jobsets: list[Raw], pods: list[Raw], now: str) -> tuple[str, ...]:
        """In words, oldest first; empty while nothing seems wrong. Who may not read events sees none."""
        present = (job.get("status") or {}).get("attempt") or {}
        about: list[tuple[str, str]] = []
        if "jobSetUID" in present and "runningTime" not in present and "endedTime" not in present:
            about = _in_trouble(job, jobsets, pods, now)  # else there is no need to read the whole job once more
        if not about:
            self._told.pop(key, None)
            return ()
        uid, said = self._told.get(key, ("", ()))
        said = said if uid == present["jobSetUID"] else ()
        if self._asking or time.monotonic() < self._again_at:
            return said
        began, self._asking = time.monotonic(), True
        try:
            said = await self._ask(key[0], about)
        finally:
            ended, self._asking = time.monotonic(), False
            self._again_at = ended + 10 * (ended - began)
        self._told[key] = (present["jobSetUID"], said)
        return said

    def forget(self, key: Key) -> None:
        """The job is gone."""
        self._told.pop(key, None)

    async def _ask(self, namespace: str, about: list[tuple[str, str]]) -> tuple[str, ...]:
        found: list[Raw] = []
        for kind, name in about:
            fields = f"type=Warning,involvedObject.kind={kind},involvedObject.name={name}"
            try:
                found += await self._kube.list("Event", namespace, fields=fields)
            except Refused as refused:
                if refused.status != 403:
                    raise
            if found:
                break
        found.sort(key=lambda event: int(event["metadata"]["resourceVersion"]))
        by = ((event.get("source") or {}).get("component") or event.get("reportingComponent") or "" for event in found)
        words = (f"{who}: {event.get('message', '')}" for who, event in zip(by, found, strict=True))
        return tuple(text.removeprefix(": ") for text in words)


def _in_trouble(job: Raw, jobsets: list[Raw], pods: list[Raw], now: str) -> list[tuple[str, str]]:
    """Kind and name of what events may tell of, the likeliest first; nothing while nothing seems wrong."""
    try:
        observed = ObservedJob.read(Snapshot(now=now, job=job, jobsets=jobsets, pods=pods))
    except ValueError:
        return []
    attempt = observed.status.attempt
    if attempt is None or (since := refusals.look_at(observed, attempt)) is None or not observed.passed(since):
        return []
    own = observed.own_pods(attempt.number)
    if len(own) < attempt.pods_total:
        jobset = attempt.job_set or ""
        return [("Job", f"{jobset}-{REPLICATED_JOB}-0"), ("JobSet", jobset)]
    return [("Pod", pod.name) for pod in own if refusals.silent(pod)][:1]


class Nodes:
    """Nodes as the watch last told of them, trimmed, and which jobs have pods on them."""

    def __init__(self, enqueue: Callable[[Key], None], *, watched: bool = True):
        self._enqueue = enqueue
        self._watched = watched
        self._known: dict[str, Raw] = {}
        self._last: dict[str, Raw] = {}  # of nodes with a job on them: the last state, for when they are gone
        self._before: dict[str, Raw] = {}  # the last state of another machine that had the name
        self._jobs: dict[str, set[Key]] = {}  # node -> jobs
        self._places: dict[Key, frozenset[str]] = {}

    def hear(self, node: Raw, *, gone: bool) -> None:
        """A watch event: remembers the node and wakes the jobs on it when something that matters changed."""
        name = node["metadata"]["name"]
        before = self._known.pop(name, None)
        if not gone:
            self._known[name] = trim(node)
        if name in self._jobs and "status" in node:  # the event of a deletion, too, carries what the node said last
            self._note(name, trim(node))
        if self._known.get(name) != before:
            for key in tuple(self._jobs.get(name, ())):
                self._enqueue(key)

    def replace(self, nodes: Iterable[Raw]) -> None:
        """A complete list, from the periodic resync."""
        listed = {node["metadata"]["name"]: node for node in nodes}
        for name in [name for name in self._known if name not in listed]:
            self.hear({"metadata": {"name": name}}, gone=True)
        for node in listed.values():
            self.hear(node, gone=False)

    async def of(self, kube: Kube, key: Key, pods: list[Raw]) -> dict[str, Raw | None]:
        """Every node that `pods` are bound to. That one is absent is always read live; what it said last, and what
        another of its name said before it, stands in its value. One that cannot be read is left out.
        """
        bound: dict[str, bool] = {}
        for pod in pods:
            if name := pod["spec"].get("nodeName"):
                bound[name] = bound.get(name, False) or not _well(pod)
        self._place(key, frozenset(bound))
        if not self._watched:
            return {}
        live = [name for name, unwell in bound.items() if unwell or name not in self._known]
        nodes: dict[str, Raw | None] = {name: self._known[name] for name in bound if name not in live}
        for name, node in nodes.items():
            if node is not None:
                self._note(name, node)
        heard = {name: self._last.get(name) for name in live}
        answers = await asyncio.gather(*(kube.get("Node", name) for name in live), return_exceptions=True)
        for name, answer in zip(live, answers, strict=True):
            if isinstance(answer, Refused) and answer.status == 403:
                continue
            if isinstance(answer, BaseException):
                raise answer
            nodes[name] = state = None if answer is None else trim(answer)
            # What the watch has heard meanwhile may be newer than this answer.
            if state is not None and self._last.get(name) is heard[name]:
                self._note(name, state)
        return {name: self._with_last_words(name, node) for name, node in nodes.items()}

    def _note(self, name: str, state: Raw) -> None:
        """Remembers the state of a node, and of another machine that had its name the last one."""
        last = self._last.get(name)
        if last is not None and last["metadata"].get("uid") != state["metadata"].get("uid"):
            self._before[name] = last
        self._last[name] = state

    def _with_last_words(self, name: str, node: Raw | None) -> Raw | None:
        if node is None and (last := self._last.get(name)) is not None:
            node = last | {"absent": True}
        return node | {"before": self._before[name]} if node is not None and name in self._before else node

    def leave(self, key: Key) -> None:
        """The job is gone."""
        self._place(key, frozenset())

    def _place(self, key: Key, now: frozenset[str]) -> None:
        before = self._places.pop(key, frozenset())
        for name in before - now:
            self._jobs[name].discard(key)
            if not self._jobs[name]:
                del self._jobs[name]
                self._last.pop(name, None)
                self._before.pop(name, None)
        for name in now - before:
            self._jobs.setdefault(name, set()).add(key)
        if now:
            self._places[key] = now


def trim(node: Raw) -> Raw:
    """The part of a Node that can matter to a job; heartbeats are not in it, so that equality means no news."""
    meta, spec, status = node["metadata"], node.get("spec", {}), node.get("status", {})
    kept = ("name", "uid", "creationTimestamp", "deletionTimestamp", "labels")
    said = {key: value for key, value in (meta.get("annotations") or {}).items() if key in ANNOTATIONS}
    return {
        "metadata": {key: meta[key] for key in kept if key in meta} | ({"annotations": said} if said else {}),
        "spec": {key: spec[key] for key in ("taints", "unschedulable", "providerID") if key in spec},
        "status": {
            "conditions": [
                {
                    key: condition[key]
                    for key in ("type", "status", "reason", "message", "lastTransitionTime")
                    if key in condition
                }
                for condition in status.get("conditions", ())
            ]
        },
    }


def _well(pod: Raw) -> bool:
    """Whether nothing about the pod asks why: it is Running or being started, and neither ending nor disrupted."""
    status = pod.get("status", {})
    if "deletionTimestamp" in pod["metadata"] or status.get("phase") not in ("Pending", "Running"):
        return False
    if any("terminated" in container.get("state", {}) for container in status.get("containerStatuses", ())):
        return False
    return not any(c["type"] == "DisruptionTarget" and c["status"] == "True" for c in status.get("conditions", ()))


def fingerprint(job: Raw, jobsets: Iterable[Raw], pods: Iterable[Raw]) -> frozenset[Version]:
    """uid and resourceVersion of everything: equal means that nothing has happened in between."""
    return frozenset((o["metadata"]["uid"], o["metadata"]["resourceVersion"]) for o in (job, *jobsets, *pods))
