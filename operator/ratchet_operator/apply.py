"""Carries out a Plan, in the order that makes a crash between any two writes harmless.

Decides the order of writes and what their answers mean: status first where it authorizes, creations, deletions,
patches, status otherwise, events, and objects of workers last. Every write names the object that was seen (uid,
resourceVersion); an answer that says that the world is another than the one decided on ends the pass, and the next one
looks afresh.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ratchet_operator import metrics
from ratchet_operator.events import Events
from ratchet_operator.kube import Kube, Refused
from ratchet_operator.plan import Delete, Event, Patch, Plan

Raw = dict[str, Any]


class Outdated(Exception):
    """The world has changed since it was observed; nothing is wrong, but the pass is over."""


class CreateRefused(Refused):
    """The API server did not take an object that an attempt needs; `what` says which, and what it said."""

    def __init__(self, what: str, refused: Refused):
        super().__init__(refused.status, refused.reason, refused.message, refused.retry_after)
        self.what = what


class Pruned(Exception):
    """A status write came back without a field that was sent: it authorizes nothing."""


async def apply(kube: Kube, events: Events, job: Raw, plan: Plan) -> tuple[Raw, tuple[str, ...]]:
    """Does what `plan` says for `job` (as observed).

    Returns the job as it is afterwards, and `kind/name` of every object that could not be created because a foreign one
    has its name. Raises Outdated, Pruned, and what `Kube` raises.
    """
    if plan.status is not None and plan.status_first:
        job = await _write_status(kube, events, job, plan.status)
    conflicts: tuple[str, ...] = ()
    for body in plan.create:
        if taken := await _create(kube, events, job, body):
            conflicts = (taken,)
            break  # what comes later in the list needs what comes before it
    await _all(_delete(kube, job, deletion) for deletion in plan.delete)
    await _all(_patch(kube, patch) for patch in plan.patch)
    if plan.status is not None and not plan.status_first:
        job = await _write_status(kube, events, job, plan.status)
    for event in plan.events:
        await events.post(job, event)
    for body in plan.create_last:
        if taken := await _create(kube, events, job, body):
            return job, (*conflicts, taken)
    return job, conflicts


async def _write_status(kube: Kube, events: Events, job: Raw, status: Raw) -> Raw:
    meta = {key: job["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")}
    body = {"apiVersion": job["apiVersion"], "kind": job["kind"], "metadata": meta, "status": status}
    try:
        written = await kube.replace(body, status=True)
    except Refused as refused:
        if refused.status in (404, 409):
            raise Outdated(f"status: {refused}") from None
        if refused.status == 422:
            message = f"the API server refuses the status: {refused.message[:500]} Is the CRD of another version?"
            await events.post(job, Event("Warning", "StatusRefused", message))
        raise
    lost = missing(status, written.get("status"), "status")
    if lost:
        metrics.STATUS_PRUNED.inc()
        message = f"the API server drops {lost}: the CRD is older than the operator; install the CRD of this version"
        await events.post(job, Event("Warning", "StatusPruned", message))
        raise Pruned(lost)
    return written


def missing(sent: Any, got: Any, path: str) -> str | None:
    """Path of the first part of `sent` that `got` lacks or has changed; None when all of it is there."""
    if isinstance(sent, dict):
        if not isinstance(got, dict):
            return path if sent else None
        return next((lost for key in sent if (lost := missing(sent[key], got.get(key), f"{path}.{key}"))), None)
    if isinstance(sent, list):
        if not isinstance(got, list) or len(got) != len(sent):
            return path if sent or got else None
        return next(
            (lost for i, pair in enumerate(zip(sent, got, strict=True)) if (lost := missing(*pair, f"{path}[{i}]"))),
            None,
        )
    return None if sent == got else path


async def _create(kube: Kube, events: Events, job: Raw, body: Raw) -> str | None:
    """Creates the object or adopts ours of the same name; returns its name when a foreign object has it."""
    kind, meta = body["kind"], body["metadata"]
    try:
        await kube.create(body)
        return None
    except Refused as refused:
        if refused.status == 404:  # the namespace is going, and the job with it
            raise Outdated(f"{kind} {meta['name']}: {refused}") from None
        if refused.status != 409 or refused.reason != "AlreadyExists":
            what = f"{kind} {meta['name']} could not be created: {refused.message[:500]}"
            await events.post(job, Event("Warning", "CreateRefused", what))
            raise CreateRefused(what, refused) from None
    there = await kube.get(kind, meta["name"], meta["namespace"])
    if there is None:
        raise Outdated(f"{kind} {meta['name']} was there and has gone")
    if _owned(there, job):
        if "deletionTimestamp" in there["metadata"]:
            raise Outdated(f"{kind} {meta['name']} is being deleted")
        if kind == "ConfigMap" and there.get("data") != body.get("data"):
            # Of a pass that did not come to the JobSet, before the spec was edited. No pod has read it.
            await kube.delete(kind, meta["namespace"], meta["name"], there["metadata"]["uid"])
            raise Outdated(f"{kind} {meta['name']} is of an older spec")
        return None
    return f"{kind}/{meta['name']}"


def _owned(there: Raw, job: Raw) -> bool:
    return any(owner["uid"] == job["metadata"]["uid"] for owner in there["metadata"].get("ownerReferences", ()))


async def _delete(kube: Kube, job: Raw, it: Delete) -> None:
    uid = it.uid
    if uid is None:  # nobody has seen it: only what is the job's own is deleted
        there = await kube.get(it.kind, it.name, it.namespace)
        if there is None or not _owned(there, job):
            return
        uid = there["metadata"]["uid"]
    try:
        await kube.delete(it.kind, it.namespace, it.name, uid, it.grace_seconds, it.propagation)
    except Refused as refused:
        if refused.status == 409:
            raise Outdated(f"{it.kind} {it.name}: {refused}") from None
        if refused.status != 404:  # gone already: that is what was wanted
            raise


async def _patch(kube: Kube, it: Patch) -> None:
    meta = {**it.body.get("metadata", {}), "uid": it.uid, "resourceVersion": it.resource_version}
    try:
        await kube.patch(it.kind, it.namespace, it.name, {**it.body, "metadata": meta})
    except Refused as refused:
        if refused.status in (404, 409):
            raise Outdated(f"{it.kind} {it.name}: {refused}") from None
        raise


async def _all(writes: Any) -> None:
    """Does all of them at once, each whether or not another fails; then raises the first failure."""
    for result in await asyncio.gather(*writes, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
