"""How the rest of a gang is ended once one member is ending.

With notice, all members get what is left of the window, so that they can commit one common last step. After a loss
nothing can be committed any more, and two seconds are enough. The JobSet goes in parallel; only that of a failed
attempt stays, so that its log can be read.

Deleting the JobSet cannot cut a drain short: garbage collection deletes pods with their own grace, a deletion with a
longer grace does not extend an earlier one, and no window here is longer than that.
"""

from __future__ import annotations

import math

from ratchet_api.status import AttemptRecord, AttemptStatus
from ratchet_operator.decide import stamps
from ratchet_operator.decide.end_signs import OVERDUE_SECONDS
from ratchet_operator.decide.fencing import LOSS_GRACE_SECONDS, delete_jobset, delete_pod, harmless
from ratchet_operator.decide.observed_node import Node
from ratchet_operator.decide.plan_builder import PlanBuilder
from ratchet_operator.decide.sign import Sign
from ratchet_operator.decide.verdict import Verdict, ended_by_own_fault


def window(signs: list[Sign], grace: float) -> float:
    """Seconds that the gang gets: the shortest notice, at most the `grace` of its pods, or what a loss leaves."""
    if lost(signs):
        return float(LOSS_GRACE_SECONDS)
    return min([grace, *(sign.window for sign in signs if sign.window is not None)])


def lost(signs: list[Sign]) -> bool:
    """Whether a member ended uncommitted, so that nothing more can be committed."""
    return any(sign.window is None for sign in signs)


def end(builder: PlanBuilder, attempt: AttemptStatus, record: AttemptRecord, deadline: str) -> None:
    """Asks for the end of every member that still runs; `deadline`: when the window of the gang ends."""
    observed = builder.observed
    if record.verdict == Verdict.COMPLETED and not observed.passed(deadline):
        builder.wake_at(deadline)  # the others are leaving by themselves
        return
    left = stamps.seconds(deadline) - stamps.seconds(observed.now)
    grace = max(LOSS_GRACE_SECONDS, math.ceil(left))
    for pod in observed.own_pods(attempt.number):
        node = observed.node_of(pod)
        if harmless(pod, node):
            continue
        builder.wake_at(stamps.after(pod.deletion or deadline, OVERDUE_SECONDS))
        if pod.deletion is None:
            if _ended_by_its_kubelet(node) and left > 0 and grace > LOSS_GRACE_SECONDS:
                continue
            builder.delete.append(delete_pod(pod, grace))
        elif stamps.seconds(pod.deletion) > stamps.seconds(observed.now) + grace + 1:
            builder.delete.append(delete_pod(pod, grace))  # shortens the grace it has
    jobset = observed.own_jobset(attempt.number)
    keep = record.verdict == Verdict.COMPLETED or ended_by_own_fault(record.verdict, record.charged_to)
    if jobset is not None and not jobset.deleting and not keep:
        builder.delete.append(delete_jobset(observed, jobset))


def _ended_by_its_kubelet(node: Node | None) -> bool:
    """Whether the kubelet ends the pod already, with the notice that the machine has. In a maintenance nobody may do it
    before the machine goes, if the cluster is not set up for graceful termination."""
    return node is not None and node.termination is not None and node.maintenance is None


def drained(builder: PlanBuilder, attempt: AttemptStatus) -> bool:
    """Whether every member has ended, as far as anybody can tell: one on a dead node cannot be seen to end."""
    for pod in builder.observed.own_pods(attempt.number):
        node = builder.observed.node_of(pod)
        if harmless(pod, node) or (node is not None and node.ready == "Unknown"):
            continue
        return False
    return True
