"""Which pods of earlier attempts may still write, and what is done about them.

A new attempt is created only when every older pod, of this job or of a deleted one of the same name, can no longer
write into the checkpoint directory. (The journal would refuse it in any case; fencing is what keeps the slices
apart.) Capacity is no fence: the slice that is freed first would start while the other still writes.
"""

from __future__ import annotations

from collections.abc import Iterator

from ratchet_api.status import AttemptStatus
from ratchet_operator.decide.observed_job import ObservedJob
from ratchet_operator.decide.observed_jobset import JobSet
from ratchet_operator.decide.observed_node import Node
from ratchet_operator.decide.observed_pod import Pod
from ratchet_operator.decide.plan_builder import PlanBuilder
from ratchet_operator.decide.verdict import ended_by_own_fault
from ratchet_operator.plan import Delete

LOSS_GRACE_SECONDS = 2


def harmless(pod: Pod, node: Node | None) -> bool:
    """Whether it is certain that nothing of this pod runs or will run."""
    if pod.ended:
        return True
    if node is None:
        return pod.deletion is not None  # never bound, never to be bound
    return node.absent or node.out_of_service


def older_pods(observed: ObservedJob, number: int) -> Iterator[Pod]:
    """Pods under this job's name that are not of its attempt `number`."""
    for pod in observed.pods:
        if pod.attempt is not None and (pod.attempt, pod.job_uid) != (number, observed.uid):
            yield pod


def older_jobsets(observed: ObservedJob, number: int) -> Iterator[JobSet]:
    for jobset in observed.jobsets:
        if jobset.attempt is not None and not (jobset.attempt == number and jobset.owned_by(observed.uid)):
            yield jobset


def blockers(observed: ObservedJob, number: int) -> list[str]:
    """What attempt `number` still waits for, in words; empty when it may be created."""
    found = []
    for pod in older_pods(observed, number):
        node = observed.node_of(pod)
        if not harmless(pod, node):
            found.append(f"pod {pod.name}" + (f" on node {node.name} (Ready={node.ready})" if node else ""))
    for jobset in older_jobsets(observed, number):
        if not (jobset.finished or jobset.deleting):
            found.append(f"JobSet {jobset.name}")
    return found


def on_silent_nodes(observed: ObservedJob, number: int) -> bool:
    """Whether one of the pods that attempt `number` waits for is on a node that does not answer."""
    pairs = ((pod, observed.node_of(pod)) for pod in older_pods(observed, number))
    return any(node is not None and node.ready != "True" and not harmless(pod, node) for pod, node in pairs)


def sweep(builder: PlanBuilder) -> None:
    """Asks for the end of what is left of earlier attempts. A pod that no Job made is waited for, not deleted."""
    observed, attempt = builder.observed, builder.attempt
    if attempt is None:
        return
    for pod in older_pods(observed, attempt.number):
        if not pod.ended and pod.deletion is None and pod.made_by_job:
            grace = LOSS_GRACE_SECONDS if pod.job_uid == observed.uid else None
            builder.delete.append(delete_pod(pod, grace))
    for jobset in older_jobsets(observed, attempt.number):
        if not jobset.deleting and jobset.owned_by(observed.uid) and not _kept_for_its_log(builder, attempt, jobset):
            builder.delete.append(delete_jobset(observed, jobset))


def _kept_for_its_log(builder: PlanBuilder, attempt: AttemptStatus, jobset: JobSet) -> bool:
    """A failed attempt's pods stay readable until the attempt after it ends."""
    if attempt.ended_time is not None:
        return False
    before = [r for r in builder.status.attempts if r.number < attempt.number]
    if not before or before[-1].number != jobset.attempt:
        return False
    if not ended_by_own_fault(before[-1].verdict, before[-1].charged_to):
        return False
    return jobset.finished or all(pod.ended for pod in builder.observed.own_pods(before[-1].number))


def delete_pod(pod: Pod, grace: int | None) -> Delete:
    return Delete("v1", "Pod", pod.namespace, pod.name, pod.uid, grace)


def delete_jobset(observed: ObservedJob, jobset: JobSet) -> Delete:
    # Background: Foreground is slower, and its deletions of pods overlap with ours.
    return Delete(
        "jobset.x-k8s.io/v1alpha2", "JobSet", observed.namespace, jobset.name, jobset.uid, propagation="Background"
    )
