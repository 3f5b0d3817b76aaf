"""Parts of the document that follow from pods and events.

Decides why a pod does not run, in the API server's own words, and which events are worth a line.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from ratchet_api.protocol import LABEL_ATTEMPT
from ratchet_cli.job_view.document import EventView, PodView
from ratchet_cli.job_view.words import seconds_between
from ratchet_cli.kube.parts import at, each, moment, text, whole

Object = dict[str, Any]
SLICE = "jobset.sigs.k8s.io/job-index"
HOST = "batch.kubernetes.io/job-completion-index"
EVENTS = 8


def pods(found: Iterable[Object]) -> tuple[PodView, ...]:
    """Pods in the order of attempts, slices and hosts; the first of an attempt is its leader."""
    views = [_pod(pod) for pod in found]
    return tuple(sorted(views, key=lambda p: (p.attempt or 0, p.slice or 0, p.host or 0, p.name)))


def is_leader(pod: PodView) -> bool:
    """Whether it is process 0 of its attempt."""
    return (pod.slice or 0, pod.host or 0) == (0, 0)


def _pod(pod: Object) -> PodView:
    labels = at(pod, "metadata", "labels")
    phase = text(pod, "status", "phase") or "Unknown"
    ready = any(text(c, "type") == "Ready" and text(c, "status") == "True" for c in each(pod, "status", "conditions"))
    return PodView(
        name=text(pod, "metadata", "name") or "?",
        attempt=_int(text(labels, LABEL_ATTEMPT)),
        slice=_int(text(labels, SLICE)),
        host=_int(text(labels, HOST)),
        node=text(pod, "spec", "nodeName"),
        phase=phase,
        ready=ready,
        ending=at(pod, "metadata", "deletionTimestamp") is not None,
        problem=_problem(pod, phase),
    )


def _problem(pod: Object, phase: str) -> str | None:
    for c in each(pod, "status", "conditions"):
        if text(c, "type") == "DisruptionTarget" and text(c, "status") == "True":
            return _said(text(c, "reason"), text(c, "message"))
    for container in [*each(pod, "status", "initContainerStatuses"), *each(pod, "status", "containerStatuses")]:
        if (code := whole(container, "state", "terminated", "exitCode")) is not None and code != 0:
            reason = text(container, "state", "terminated", "reason")
            return _said(reason, f"exit code {code}")
        reason = text(container, "state", "waiting", "reason")
        if reason not in (None, "ContainerCreating", "PodInitializing"):
            return _said(reason, text(container, "state", "waiting", "message"))
    if phase == "Pending":
        for c in each(pod, "status", "conditions"):
            if text(c, "type") == "PodScheduled" and text(c, "status") == "False":
                return _said(text(c, "reason"), text(c, "message"))
    if phase == "Failed":
        return _said(text(pod, "status", "reason"), text(pod, "status", "message")) or "failed"
    return None


def _said(reason: str | None, message: str | None) -> str | None:
    return ": ".join(part for part in (reason, message) if part) or None


def events(found: Iterable[Object], now: datetime, most: int = EVENTS) -> tuple[EventView, ...]:
    """The latest events, oldest first. Where two objects tell the same at the same time, one line is enough."""
    dated = sorted(((_when(event), event) for event in found), key=lambda pair: (pair[0] is not None, pair[0] or now))
    views: dict[tuple[str | None, str], EventView] = {}
    for when, event in dated:
        kind, name = text(event, "involvedObject", "kind") or "?", text(event, "involvedObject", "name") or "?"
        reason, message = text(event, "reason") or "?", text(event, "message") or ""
        key = (reason, message) if kind != "Pod" else (reason, name)
        views.pop(key, None)
        views[key] = EventView(
            type=text(event, "type") or "Normal",
            reason=reason,
            about=f"{kind}/{name}",
            message=message,
            count=max(1, whole(event, "count") or whole(event, "series", "count") or 1),
            age_seconds=seconds_between(when, now),
        )
    return tuple(list(views.values())[-most:])


def _when(event: Object) -> datetime | None:
    for path in (("series", "lastObservedTime"), ("lastTimestamp",), ("eventTime",), ("metadata", "creationTimestamp")):
        if (found := moment(event, *path)) is not None:
            return found
    return None


def _int(value: str | None) -> int | None:
    return int(value) if value is not None and value.isascii() and value.isdigit() and len(value) < 12 else None
