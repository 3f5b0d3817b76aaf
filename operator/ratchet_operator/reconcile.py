"""One pass over one job: observe, decide, apply. Every trigger leads here.

Decides what a pass that failed means for the next one, and keeps the little that must outlive a pass and may be lost:
names found taken, the leader to ask, what was seen last. What to do is decided in `decide`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from ratchet_api import job as api
from ratchet_api.job import parse_spec
from ratchet_api.protocol import LABEL_JOB
from ratchet_operator import log_context, metrics
from ratchet_operator.apply import CreateRefused, Outdated, Pruned, apply
from ratchet_operator.build.configmap import KEY
from ratchet_operator.build.names import config_map_name
from ratchet_operator.clock import Clock
from ratchet_operator.decide import decide, stamps, strangers
from ratchet_operator.decide.observed_pod import Pod
from ratchet_operator.decide.plan_builder import paced
from ratchet_operator.directories import Directories
from ratchet_operator.events import Events
from ratchet_operator.flush import Flush
from ratchet_operator.gone_pods import GonePods
from ratchet_operator.known import Known
from ratchet_operator.kube import Fenced, Kube, Refused, Unreachable
from ratchet_operator.observe import NODE_LABEL, Nodes, Troubles, WatchedState, fingerprint, observe, recall
from ratchet_operator.plan import Event, Plan
from ratchet_operator.progress import Leader, Progress
from ratchet_operator.queue import Again, Key, Version
from ratchet_operator.snapshot import Snapshot, Values
from ratchet_operator.surroundings import Namespaces

Raw = dict[str, Any]
log = logging.getLogger(__name__)

PRUNED_SECONDS = 60.0
CHANGING_SECONDS = 20.0
"""A job that is being placed, or whose attempt is ending, is looked at again so soon whatever the watches say: one of
them may be dead without a word, and the periodic list is minutes away."""
CHANGING_AT_MOST = 300.0
"""What takes longer waits for capacity or for somebody; the periodic list is enough for that."""

WORDS_SECONDS = 2.0
"""A status in which nothing but conditions changes is not written sooner after the last one."""

AT_ONCE = 0.0
"""In the place of the time from when on a pass reads live: whatever the job is at."""

SHOWN = ("conditions", "phase", "observedGeneration", "progress", "checkpoint")
SHOWN_OF_ATTEMPT = ("jobSetUID", "createdTime", "podsReady", "runningTime")
"""What a pass may write of a picture that is out of the watches alone: it shows something, and authorizes nothing."""


class Look(NamedTuple):
    """What a pass saw and what it wants done."""

    snapshot: Snapshot
    pods: list[Raw]
    """Those that are there."""
    plan: Plan
    bug: bool
    wait: float
    """Seconds until progress may be written."""

    @property
    def job(self) -> Raw:
        return self.snapshot.job


class Reconciler:
    """`__call__` is one pass; `resync` finds what no watch told of."""

    def __init__(
        self,
        kube: Kube,
        clock: Clock,
        events: Events,
        nodes: Nodes,
        gone: GonePods,
        progress: Progress,
        values: Values,
        fence: Callable[[], int],
        directories: Directories,
        known: Known,
    ):
        self._kube, self._clock, self._events, self._nodes, self._gone = kube, clock, events, nodes, gone
        self._progress, self._values, self._fence, self._directories = progress, values, fence, directories
        self._known, self._namespaces, self._troubles = known, Namespaces(kube), Troubles(kube)
        self._flush = Flush()
        self._conflicts: dict[Key, tuple[str, ...]] = {}
        self._refused: dict[Key, str] = {}
        self._told: dict[Key, tuple[str, ...]] = {}
        self._seen: dict[Key, frozenset[Version]] = {}
        self._written_at: dict[Key, float] = {}  # monotonic: when a status was written last
        self._ask_at: dict[Key, float] = {}  # monotonic: from then on a pass reads live, whatever the watches say

    async def __call__(self, key: Key) -> Again:
        started = time.monotonic()
        log_context.about(*key)
        result, again = await self._guarded(key)
        if again.failed:
            self._seen.pop(key, None)
            self._ask_at[key] = AT_ONCE
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
            return await self._pass(key)
        except Outdated as outdated:
            log.info("%s: looking again: %s", where, outdated)
            return "conflict", Again(failed=True)
        except Pruned as pruned:
            log.error("%s: the API server dropped %s; the job is left alone", where, pruned)
            return "refused", Again(after=PRUNED_SECONDS, failed=True)
        except CreateRefused as refused:
            log.warning("%s: %s", where, refused.what)
            if _right_is_missing(refused):
                await self._forbidden(key, refused)
            fresh, self._refused[key] = key not in self._refused, refused.what
            if fresh and refused.retry_after is None:
                return "refused", Again(after=0.0)  # for the condition to say so
            return "refused", Again(failed=True, not_before=refused.retry_after or 0.0)
        except Refused as refused:
            log.warning("%s: %s", where, refused)
            if refused.status == 403:
                await self._forbidden(key, refused)
            return "refused", Again(failed=True, not_before=refused.retry_after or 0.0)
        except Unreachable as problem:
            log.warning("%s: %s", where, problem)
            return "unreachable", Again(failed=True)
        except Fenced as fenced:
            log.warning("%s: %s", where, fenced)
            return "fenced", Again(failed=True)
        except Exception:  # a bug in one job's pass must not stop the others'
            log.exception("%s: this is a bug in the operator; the job is left alone and tried again later", where)
            return "bug", Again(failed=True)

    async def _pass(self, key: Key) -> tuple[str, Again]:
        heard = self._known.revision
        recalled = await self._recalled(key)
        look = None if recalled is None else await self._look(key, recalled)
        if look is None or not await self._may_carry_out(look):
            state = await observe(self._kube, self._nodes, self._known, key)
            if state is None:
                self.forget(key)
                return "done", Again()
            look = await self._look(key, state)
            self._ask_at[key] = time.monotonic() + CHANGING_SECONDS
        seen = fingerprint(look.job, look.snapshot.jobsets, look.pods)
        log.debug("%s/%s: seen %s, heard %d", *key, " ".join(sorted(map("@".join, seen))), heard)
        return await self._carry_out(key, look)

    async def _may_carry_out(self, look: Look) -> bool:
        """Whether what was seen is good enough for the plan, though it is out of the watches. The stage gate follows
        from the job alone and names the version of the pod: the job must be the newest."""
        if not shows_only(look.job.get("status") or {}, look.plan):
            return False
        if not look.plan.patch:
            return True
        meta = look.job["metadata"]
        there = await self._kube.get(api.KIND, meta["name"], meta["namespace"])
        return there is not None and there["metadata"]["resourceVersion"] == meta["resourceVersion"]

    async def _recalled(self, key: Key) -> WatchedState | None:
        """What the watches have told of a job; None where that is not enough to go by."""
        told, now = self._known.of(key), time.monotonic()
        if told is None:
            return None
        ask_at = self._ask_at.setdefault(key, now + CHANGING_SECONDS)
        if ask_at <= now and (ask_at == AT_ONCE or _changes(told.job, self._clock.now())):
            return None
        return await recall(self._kube, self._nodes, self._known, key)

    async def _look(self, key: Key, state: WatchedState) -> Look:
        """The plan for what was seen."""
        job, jobsets, pods, nodes = state
        log_context.about(*key, ((job.get("status") or {}).get("attempt") or {}).get("number"))
        wait, now = self._flush.wait(key), self._clock.now()
        self._directories.hear(job)
        snapshot = Snapshot(
            now=now, job=job, jobsets=jobsets, pods=self._gone.beside(key, pods), nodes=nodes,
            progress=self._progress.latest(key), silent_since=self._progress.silent_since(key),
            flush_due=wait <= 0, fence=self._fence(), conflicts=self._conflicts.get(key, ()),
            told=self._told.get(key, ()), refused=self._refused.get(key),
            troubles=await self._troubles.of(key, job, jobsets, pods, now),
            directory_owner=self._directories.owner(job), values=self._values,
        )  # fmt: skip
        plan, bug = await self._decide(snapshot)
        return Look(snapshot, pods, plan, bug, wait)

    async def _carry_out(self, key: Key, look: Look) -> tuple[str, Again]:
        snapshot, pods, plan, bug, wait = look
        job, jobsets, now = snapshot.job, snapshot.jobsets, snapshot.now
        if (spec := spec_to_run(plan)) is not None:
            around = await self._namespaces.of(key[0], parse_spec(spec))
            plan, bug = await self._decide(replace(snapshot, surroundings=around))
        before, held = job.get("status") or {}, 0.0
        if only_words(before, plan):
            held = max(0.0, self._written_at.get(key, -WORDS_SECONDS) + WORDS_SECONDS - time.monotonic())
            plan = replace(plan, status=None) if held else plan
        metrics.JOBS.say(*key, job)
        self._progress.follow(key, leader(job, pods))
        job, conflicts = await apply(self._kube, self._events, job, plan)
        self._known.hear(api.KIND, job)
        if plan.status is not None:
            self._written_at[key] = time.monotonic()
        self._refused.pop(key, None)
        if foreign := strangers.uids(pods, jobsets):
            self._told[key] = foreign
        metrics.JOBS.say(*key, job)
        if paced(job.get("status") or {}) != paced(before):
            self._flush.took(key)
        self._seen[key] = fingerprint(job, jobsets, pods)
        fresh_conflict = conflicts != self._conflicts.get(key, ())
        self._conflicts[key] = conflicts
        if not conflicts:
            del self._conflicts[key]
        if conflicts and not fresh_conflict:
            return "done", Again(failed=True)  # nothing but time can help: back off
        if fresh_conflict:
            return "done", Again(after=0.0)
        after = [] if plan.requeue_after is None else [plan.requeue_after]
        if wait > 0 and self._unflushed(job, snapshot.progress):
            after.append(wait)
        if held:
            after.append(held)
        if _changes(job, now):
            after.append(CHANGING_SECONDS)
        return ("bug", Again(failed=True)) if bug else ("done", Again(after=min(after, default=None)))

    async def _decide(self, snapshot: Snapshot) -> tuple[Plan, bool]:
        """The plan, and whether the job's own spec is more than the operator can work with.

        A spec that cannot be read, or that makes a pass fail, must not keep the job from recovering: what its last
        attempt was made from goes on in its place.
        """
        where = f"{snapshot.job['metadata']['namespace']}/{snapshot.job['metadata']['name']}"
        plan: Plan | None = None
        try:
            plan = decide(snapshot)
            if plan.unreadable is None:
                return plan, False
            bug, instead = False, ("Invalid", plan.unreadable)
        except Exception as error:  # a bug in one job's pass must not stop the others'
            log.exception("%s: this is a bug in the operator; the job goes on as it was admitted before", where)
            words = f"a pass over the job failed, which is a bug: {type(error).__name__}: {str(error)[:500]}"
            bug, instead = True, ("InternalError", f"{words}; change the spec back, or report it")
        try:
            if (spec := await admitted_spec(self._kube, snapshot.job)) is not None:
                return decide(replace(snapshot, job={**snapshot.job, "spec": spec}, instead=instead)), bug
        except (Refused, Unreachable, Fenced):
            raise
        except Exception:
            log.exception("%s: nor can it be worked with as it was admitted before", where)
            bug = True
        return plan or Plan(status=not_accepted(snapshot, *instead)), bug

    @staticmethod
    def _unflushed(job: Raw, progress: Raw | None) -> bool:
        written = ((job.get("status") or {}).get("progress") or {}).get("updatedAt") or ""
        return progress is not None and progress["receivedAt"] > written

    async def _forbidden(self, key: Key, refused: Refused) -> None:
        """Says on the job itself what the operator is not allowed to do, or what else the API server refuses."""
        try:
            if job := await self._kube.get(api.KIND, key[1], key[0]):
                message = f"the API server refuses: {refused.message[:500]}"
                if _right_is_missing(refused):
                    message = f"the operator lacks a right: {refused.message[:500]} Compare its role with the chart's."
                await self._events.post(job, Event("Warning", "Forbidden", message))
        except (Refused, Unreachable) as problem:
            log.warning("%s/%s: %s", *key, problem)

    def forget(self, key: Key) -> None:
        """The job is gone, and with it everything that was kept of it."""
        self._progress.forget(key)
        self._directories.forget(key)
        self._gone.forget(key)
        self._flush.forget(key)
        self._conflicts.pop(key, None)
        self._refused.pop(key, None)
        self._told.pop(key, None)
        self._seen.pop(key, None)
        self._ask_at.pop(key, None)
        self._written_at.pop(key, None)
        self._troubles.forget(key)
        self._known.forget(key)
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
        for key in {*listed, *self._seen}:
            if frozenset(listed.get(key, ())) != self._known.versions(key):
                metrics.RESYNC_FOUND.inc()
                self._known.forget(key)
        return [key for key in {*listed, *self._seen} if frozenset(listed.get(key, ())) != self._seen.get(key)]

    async def know_all(self, namespaces: Iterable[str | None]) -> None:
        """Lists everything once, whole, before the watches begin: then no job need be asked for by itself."""
        for namespace in namespaces:
            for kind, labels in ((api.KIND, ""), ("JobSet", LABEL_JOB), ("Pod", LABEL_JOB)):
                async for page in self._kube.pages(kind, namespace, labels):
                    for it in page:
                        self._known.hear(kind, it)
                        if kind == api.KIND:
                            self._directories.hear(it)
        self._known.all_is_told()


def shows_only(before: Raw, plan: Plan) -> bool:
    """Whether a plan does nothing that a picture out of the watches is too old for: it writes at most what is shown,
    which the next event corrects, onto the version of the job that it was made from, and the stage gate."""
    acts = plan.create or plan.create_last or plan.status_first or plan.unreadable is not None
    if acts or any(it.kind != "ConfigMap" for it in plan.delete):
        return False
    return plan.status is None or _lasting(before) == _lasting(plan.status)


def only_words(before: Raw, plan: Plan) -> bool:
    """Whether a plan writes nothing but conditions that say something else: pods on their way change them several
    times a second, and whoever reads them is not that quick."""
    if plan.status is None or plan.status_first or plan.create or plan.delete or plan.patch or plan.events:
        return False
    return {**before, "conditions": None} == {**plan.status, "conditions": None}


def _lasting(status: Raw) -> Raw:
    """What status remembers, without what it shows."""
    attempt = {key: value for key, value in (status.get("attempt") or {}).items() if key not in SHOWN_OF_ATTEMPT}
    records = [{key: value for key, value in it.items() if key != "recovery"} for it in status.get("attempts") or ()]
    rest = {key: value for key, value in status.items() if key not in SHOWN}
    return {**rest, "attempt": attempt, "attempts": records}


def spec_to_run(plan: Plan) -> Raw | None:
    """The spec that the plan creates an attempt from, out of its ConfigMap; None if it creates none."""
    file = next((body for body in plan.create if body["kind"] == "ConfigMap"), None)
    spec: Raw | None = json.loads(file["data"][KEY])["spec"] if file is not None else None
    return spec


def _changes(job: Raw, now: str) -> bool:
    """Whether an attempt of the job has lately begun, or is ending, and is not yet where it goes."""
    status = job.get("status") or {}
    attempt = status.get("attempt") or {}
    ended = attempt.get("endedTime")
    since = ended or (None if "runningTime" in attempt else attempt.get("startTime"))
    final = any(it.get("number") == attempt.get("number") and "finalTime" in it for it in status.get("attempts") or ())
    return since is not None and not (ended and final) and stamps.between(since, now) < CHANGING_AT_MOST


async def admitted_spec(kube: Kube, job: Raw) -> Raw | None:
    """The spec that the last attempt was made from, out of its ConfigMap; None if there is none."""
    meta, number = job["metadata"], ((job.get("status") or {}).get("attempt") or {}).get("number", 0)
    for attempt in (number, number - 1):
        if attempt < 1:
            break
        found = await kube.get("ConfigMap", config_map_name(meta["name"], attempt), meta["namespace"])
        if found is not None and any(o["uid"] == meta["uid"] for o in found["metadata"].get("ownerReferences", ())):
            spec: Raw = json.loads(found["data"][KEY])["spec"]
            return spec | {"suspend": bool(job["spec"].get("suspend"))}
    return None


def not_accepted(snapshot: Snapshot, reason: str, message: str) -> Raw | None:
    """The status with nothing changed but the condition Accepted, without looking into anything; None if it says so."""
    status = snapshot.job.get("status") or {}
    others = [c for c in status.get("conditions", ()) if c["type"] != "Accepted"]
    before: Raw = next((c for c in status.get("conditions", ()) if c["type"] == "Accepted"), {})
    if (before.get("status"), before.get("reason"), before.get("message")) == ("False", reason, message):
        return None
    since = before["lastTransitionTime"] if before.get("status") == "False" else snapshot.now[:19] + "Z"
    said = {"type": "Accepted", "status": "False", "reason": reason, "message": message, "lastTransitionTime": since}
    return {"phase": "Pending", **status, "conditions": [said, *others]}


def _right_is_missing(refused: Refused) -> bool:
    """Whether RBAC refused. A quota, pod security and a namespace that is going are 403, too, and no right helps."""
    return refused.status == 403 and "User " in refused.message and " cannot " in refused.message


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
