"""What keeps the objects of an attempt from being made or its pods from running, in the words of whoever said it.

A quota, a namespace's pod security, a webhook, a LimitRange, a claim that is not there: each says no to somebody else
(the JobSet or Job controller, the scheduler, a kubelet), and there it stays unless it is copied. Decides which of these
words belong to an attempt; `observe` has fetched them, `conditions` shows them.
"""

from __future__ import annotations

import re

from ratchet_api.status import AttemptStatus
from ratchet_operator.decide import queue_wait, stamps
from ratchet_operator.decide.observed_job import ObservedJob
from ratchet_operator.decide.observed_object import condition
from ratchet_operator.decide.observed_pod import Pod

LOOK_AFTER_SECONDS = 5.0
"""How long pods may take to be made before it is asked what is in their way."""
SHOWN = 1000


def creation(observed: ObservedJob) -> tuple[str, str] | None:
    """Reason and message when the API server refuses an object that the attempt needs."""
    refused = observed.snapshot.refused
    return None if refused is None or of_worker(observed) is not None else ("CreateRefused", refused[:SHOWN])


def of_worker(observed: ObservedJob) -> str | None:
    """What the API server said when it refused an object of a worker; None if it did not, the last time."""
    refused = observed.snapshot.refused or ""
    named = re.match(rf"(JobSet|ConfigMap) {re.escape(observed.name)}-w[0-9]+-a[0-9]+(-job)? ", refused)
    return None if named is None else refused[:SHOWN]


def look_at(observed: ObservedJob, attempt: AttemptStatus) -> str | None:
    """When to ask what is in the way of the attempt's pods; None while nothing seems to be."""
    if attempt.ended_time is not None or attempt.running_time is not None or attempt.job_set_uid is None:
        return None
    since = queue_wait.looks_for_nodes_since(attempt)
    pods = observed.own_pods(attempt.number)
    waits = len(pods) < attempt.pods_total or any(map(silent, pods))
    return stamps.after(since, LOOK_AFTER_SECONDS) if since is not None and waits else None


def silent(pod: Pod) -> bool:
    """Whether it has a node, does not run, and does not say why itself."""
    reason = pod.waiting.get("reason")
    return pod.node is not None and pod.phase == "Pending" and reason in (None, "ContainerCreating", "PodInitializing")


def of_pods(observed: ObservedJob, attempt: AttemptStatus) -> tuple[str, str] | None:
    """Reason and message of Placed when somebody refuses to make the attempt's pods; None while they come."""
    made = len(observed.own_pods(attempt.number))
    if made >= attempt.pods_total or not observed.snapshot.troubles:
        return None
    words = observed.snapshot.troubles[-1][:SHOWN]
    return "PodsRefused", f"{made} of {attempt.pods_total} pods of attempt {attempt.number} could be made: {words}"


def of_scheduling(pods: tuple[Pod, ...]) -> str:
    """What the scheduler says of a pod without a node; empty if it says nothing."""
    for pod in pods:
        said = condition(pod.raw, "PodScheduled") or {}
        if pod.node is None and said.get("status") == "False" and said.get("message"):
            return f"; the scheduler says of pod {pod.name}: {str(said['message'])[:SHOWN]}"
    return ""


def of_start(observed: ObservedJob, pods: tuple[Pod, ...]) -> str:
    """Why a pod that has a node does not run yet; empty if nobody says."""
    for pod in pods:
        reason, message = pod.waiting.get("reason"), pod.waiting.get("message")
        if silent(pod) and observed.snapshot.troubles:
            return f"pod {pod.name} waits: {observed.snapshot.troubles[-1][:SHOWN]}"
        if pod.node is not None and pod.phase == "Pending" and reason is not None and not silent(pod):
            return f"pod {pod.name} waits: {reason}" + (f": {message[:SHOWN]}" if message else "")
    return ""
