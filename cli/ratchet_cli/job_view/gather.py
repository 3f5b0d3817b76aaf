"""Asks the cluster for everything about one job, and makes the document of it.

Decides what is asked, and that what may not be read costs a line, not the answer: only the job itself must be readable.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from ratchet_api.kind import KIND
from ratchet_api.protocol import LABEL_ATTEMPT, LABEL_JOB, LABEL_JOB_UID, LABEL_WORKER, PORT, PROGRESS_LIMIT
from ratchet_cli.job_view import cost, next_steps, read_job, read_pods, waiting
from ratchet_cli.job_view.curve_source import Curves, CurveSource
from ratchet_cli.job_view.document import JobView
from ratchet_cli.job_view.words import seconds_between
from ratchet_cli.kube import Kube, KubeError, Object, Refused, jobs
from ratchet_cli.kube.ask import together
from ratchet_cli.kube.errors import one_line
from ratchet_cli.kube.parts import at, moment, text, whole
from ratchet_cli.program import program

PROGRESS_SECONDS = 3.0
EVENTFUL_PODS = 5
"""Pods whose events are asked for: the leader and those that do not run."""


def gather(kube: Kube, name: str, curve: CurveSource | None = None) -> JobView:
    """The document of a job. Raises NotFound, KubeError."""
    job = jobs.get(kube, name)
    return of_job(kube, job, curve or CurveSource(kube, job))


def of_job(kube: Kube, job: Object, curve: CurveSource) -> JobView:
    """The document of a job that was just read. Raises nothing for what else cannot be read."""
    name = text(job, "metadata", "name") or "?"
    unread: list[str] = []
    pods_path = f"/api/v1/namespaces/{kube.namespace}/pods"
    selector = f"{LABEL_JOB}={name}"
    first = together(
        {
            "pods": lambda: kube.list(pods_path, labelSelector=selector),
            "curves": curve.read,
        }
    )
    pods = _read(first, "pods", unread)
    uid = text(job, "metadata", "uid")
    own = [p for p in pods if text(p, "metadata", "labels", LABEL_JOB_UID) in (None, uid)]
    own = [p for p in own if text(p, "metadata", "labels", LABEL_WORKER) is None]  # of workers, status has the sum
    leader = _leader(job, own)
    second = together(
        {
            "events": lambda: _events(kube, job, own),
            "progress": lambda: progress_of(kube, job, leader),
        }
    )
    events = _read(second, "events", unread)
    return view(job, own, events, second["progress"], first["curves"], datetime.now(UTC), unread)


def _read(answers: dict[str, Any], what: str, unread: list[str]) -> list[Object]:
    """An answer; nothing, and a line in `unread`, where it was refused."""
    answer = answers[what]
    if isinstance(answer, KubeError):
        refused = isinstance(answer, Refused) and answer.status == 403
        unread.append(f"{what}: " + ("no right to list them (403)" if refused else one_line(str(answer))))
        return []
    found: list[Object] = answer
    return found


def view(
    job: Object,
    pods: Iterable[Object],
    events: Iterable[Object],
    said: Object | None,
    curves: Curves,
    now: datetime,
    unread: Iterable[str] = (),
) -> JobView:
    """The document of what was read; pure."""
    name, namespace = text(job, "metadata", "name") or "?", text(job, "metadata", "namespace") or "?"
    stages, phase = read_job.stages(job), read_job.phase(job)
    seen = read_pods.pods(pods)
    current = whole(job, "status", "attempt", "number")
    shown = tuple(p for p in seen if current is None or p.attempt == current or p.phase in ("Pending", "Running"))
    waits = waiting.waits(job, shown, now, program())
    spent = cost.cost(job, now)
    steps = next_steps.next_steps(
        program(), f" -n {namespace}", name, phase, stages, waits, spent.attempts or (current or 0)
    )
    return JobView(
        namespace=namespace,
        name=name,
        phase=phase,
        age_seconds=seconds_between(moment(job, "metadata", "creationTimestamp"), now),
        suspend=at(job, "spec", "suspend") is True,
        stages=stages,
        stage=read_job.stage_index(job),
        progress=read_job.progress(job, said, now),
        attempt=read_job.attempt(job, now),
        place=read_job.place(job),
        pods=shown,
        learning=read_job.learning(job, said, curves),
        waits=waits,
        checkpoint=read_job.checkpoint(job, now),
        cost=spent,
        events=read_pods.events(events, now),
        next=steps,
        unread=tuple(unread),
    )


def _events(kube: Kube, job: Object, pods: list[Object]) -> list[Object]:
    """Events of the job, its JobSets and the pods that matter; those of a whole namespace may be thousands."""
    views = read_pods.pods(pods)
    troubled = [p.name for p in views if p.problem or p.ending] + [p.name for p in views if read_pods.is_leader(p)]
    names = [text(job, "metadata", "name") or "?", text(job, "status", "attempt", "jobSet")]
    path = f"/api/v1/namespaces/{kube.namespace}/events"
    asked = together(
        {
            name: lambda name=name: kube.list(path, fieldSelector=f"involvedObject.name={name}")  # type: ignore[misc]
            for name in dict.fromkeys(filter(None, [*names, *troubled[:EVENTFUL_PODS]]))
        }
    )
    found: list[Object] = []
    for answer in asked.values():
        if isinstance(answer, KubeError):
            raise answer
        found += answer
    uid = text(job, "metadata", "uid")
    return [e for e in found if text(e, "involvedObject", "kind") != KIND or text(e, "involvedObject", "uid") == uid]


def _leader(job: Object, pods: list[Object]) -> Object | None:
    number = whole(job, "status", "attempt", "number")
    for pod in pods:
        labels = at(pod, "metadata", "labels")
        mine = text(labels, LABEL_ATTEMPT) == str(number)
        if mine and text(labels, read_pods.SLICE) in (None, "0") and text(labels, read_pods.HOST) in (None, "0"):
            return pod if text(pod, "status", "phase") == "Running" else None
    return None


def progress_of(kube: Kube, job: Object, leader: Object | None) -> dict[str, Any] | None:
    """What the leader says of itself, through the API server's proxy; None where that is not allowed or not true.

    The pods of a local cluster are on loopback, which no API server connects to: they are asked directly.
    """
    if leader is None:
        return None
    address = text(leader, "status", "podIP") or ""
    try:
        if _is_loopback(address):
            body = _ask(address)
        else:
            name = text(leader, "metadata", "name")
            path = f"/api/v1/namespaces/{kube.namespace}/pods/{name}:{PORT}/proxy/progress"
            body = kube.text(path, seconds=PROGRESS_SECONDS)
        said = json.loads(body) if len(body) <= PROGRESS_LIMIT else None
    except (KubeError, OSError, http.client.HTTPException, ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or at(said, "jobUID") != at(job, "metadata", "uid"):
        return None
    return said if at(said, "attempt") == at(job, "status", "attempt", "number") else None


def _ask(address: str) -> str:
    connection = http.client.HTTPConnection(address, PORT, timeout=PROGRESS_SECONDS)
    try:
        connection.request("GET", "/progress")
        answer = connection.getresponse()
        return answer.read(PROGRESS_LIMIT + 1).decode(errors="replace") if answer.status == 200 else ""
    finally:
        connection.close()


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
