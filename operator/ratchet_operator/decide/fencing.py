"""Which pods of earlier attempts may still write, and what is done about them.

A new attempt is created only when every older pod, of this job or of a deleted one of the same name, can no longer
write into the checkpoint directory. (The journal would refuse it in any case; fencing is what keeps the slices
apart.) Capacity is no fence: the slice that is freed first would start while the other still writes.
"""

from __future__ import annotations

from collections.abc import Iterator

from ratchet_operator.decide.budget import FAILURES, TERMINAL
from ratchet_operator.decide.draft import Draft
from ratchet_operator.decide.views import JobSet, Node, Pod
from ratchet_operator.decide.world import World
from ratchet_operator.plan import Delete

LOSS_GRACE_SECONDS = 2


def harmless(pod: Pod, node: Node | None) -> bool:
    """Whether it is certain that nothing of this pod runs or will run."""
    if pod.ended:
        return True
    if node is None:
        return pod.deletion is not None  # never bound, never to be bound
    return node.absent or node.out_of_service


def older_pods(world: World, number: int) -> Iterator[Pod]:
    """Pods under this job's name that are not of its attempt `number`."""
    for pod in world.pods:
        if pod.attempt is not None and (pod.attempt, pod.job_uid) != (number, world.uid):
            yield pod


def older_jobsets(world: World, number: int) -> Iterator[JobSet]:
    for jobset in world.jobsets:
        if jobset.attempt is not None and not (jobset.attempt == number and jobset.owned_by(world.uid)):
            yield jobset


def blockers(world: World, number: int) -> list[str]:
    """What attempt `number` still waits for, in words; empty when it may be created."""
    found = []
    for pod in older_pods(world, number):
        node = world.node_of(pod)
        if not harmless(pod, node):
            found.append(f"pod {pod.name}" + (f" on node {node.name} (Ready={node.ready})" if node else ""))
    for jobset in older_jobsets(world, number):
        if not (jobset.finished or jobset.deleting):
            found.append(f"JobSet {jobset.name}")
    return found


def sweep(draft: Draft) -> None:
    """Asks for the end of what is left of earlier attempts. A pod that no Job made is waited for, not deleted."""
    world, attempt = draft.world, draft.attempt
    if attempt is None:
        return
    for pod in older_pods(world, attempt.number):
        if not pod.ended and pod.deletion is None and pod.made_by_job:
            grace = LOSS_GRACE_SECONDS if pod.job_uid == world.uid else None
            draft.delete.append(delete_pod(pod, grace))
    for jobset in older_jobsets(world, attempt.number):
        if not jobset.deleting and jobset.owned_by(world.uid) and not _kept_for_its_log(draft, jobset):
            draft.delete.append(delete_jobset(world, jobset))


def _kept_for_its_log(draft: Draft, jobset: JobSet) -> bool:
    """A failed attempt's pods stay readable until the attempt after it ends."""
    attempt, number = draft.attempt, jobset.attempt
    if attempt is None or attempt.ended_time is not None:
        return False
    before = [r for r in draft.status.attempts if r.number < attempt.number]
    if not before or before[-1].number != number or not by_failure(before[-1].verdict, before[-1].charged_to):
        return False
    return jobset.finished or all(pod.ended for pod in draft.world.own_pods(before[-1].number))


def by_failure(verdict: str, charged_to: str | None) -> bool:
    """Whether an attempt ended by its own fault, so that its log is wanted."""
    return charged_to == FAILURES or verdict in TERMINAL


def delete_pod(pod: Pod, grace: int | None) -> Delete:
    return Delete("v1", "Pod", pod.namespace, pod.name, pod.uid, grace)


def delete_jobset(world: World, jobset: JobSet) -> Delete:
    # Background: Foreground is slower, and its deletions of pods overlap with ours.
    return Delete(
        "jobset.x-k8s.io/v1alpha2", "JobSet", world.namespace, jobset.name, jobset.uid, propagation="Background"
    )
