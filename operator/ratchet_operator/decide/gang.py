"""How the rest of a gang is ended once one member is ending.

With notice, all members get what is left of the window, so that they can commit one common last step. After a loss
nothing can be committed any more, and two seconds are enough. The JobSet goes in parallel; only that of a failed
attempt stays, so that its log can be read.

Deleting the JobSet cannot cut a drain short: garbage collection deletes pods with their own grace of 30 s, a deletion
with a longer grace does not extend an earlier one, and no window here is longer than that.
"""

from __future__ import annotations

import math

from ratchet_operator.decide import stamps
from ratchet_operator.decide.draft import Draft
from ratchet_operator.decide.fencing import LOSS_GRACE_SECONDS, by_failure, delete_jobset, delete_pod, harmless
from ratchet_operator.decide.verdict import OVERDUE_SECONDS, OWN_GRACE_SECONDS, Sign


def window(found: list[Sign]) -> float:
    """Seconds that the gang gets: the shortest notice, or what a loss leaves."""
    windows = [OWN_GRACE_SECONDS if sign.window is None else sign.window for sign in found]
    if lost(found):
        return float(LOSS_GRACE_SECONDS)
    return min([OWN_GRACE_SECONDS, *windows])


def lost(found: list[Sign]) -> bool:
    return any(sign.window is None for sign in found)


def end(draft: Draft) -> None:
    """Asks for the end of every member that still runs. Needs `attempt.drainDeadline`, and the attempt's record."""
    world, attempt = draft.world, draft.attempt
    assert attempt is not None
    assert attempt.drain_deadline is not None
    record = draft.record(attempt.number)
    assert record is not None
    if record.verdict == "Completed" and not world.passed(attempt.drain_deadline):
        draft.wake_at(attempt.drain_deadline)  # the others are leaving by themselves
        return
    left = stamps.seconds(attempt.drain_deadline) - stamps.seconds(world.now)
    grace = max(LOSS_GRACE_SECONDS, math.ceil(left))
    for pod in world.own_pods(attempt.number):
        node = world.node_of(pod)
        if harmless(pod, node):
            continue
        draft.wake_at(stamps.after(pod.deletion or attempt.drain_deadline, OVERDUE_SECONDS))
        if pod.deletion is None:
            if node is not None and node.termination is not None and left > 0 and grace > LOSS_GRACE_SECONDS:
                continue  # its kubelet ends it already, with the notice that the machine has
            draft.delete.append(delete_pod(pod, grace))
        elif stamps.seconds(pod.deletion) > stamps.seconds(world.now) + grace + 1:
            draft.delete.append(delete_pod(pod, grace))  # shortens the grace it has
    jobset = world.own_jobset(attempt.number)
    keep = record.verdict == "Completed" or by_failure(record.verdict, record.charged_to)
    if jobset is not None and not jobset.deleting and not keep:
        draft.delete.append(delete_jobset(world, jobset))


def drained(draft: Draft) -> bool:
    """Whether every member has ended, as far as anybody can tell: one on a dead node cannot be seen to end."""
    attempt = draft.attempt
    assert attempt is not None
    for pod in draft.world.own_pods(attempt.number):
        node = draft.world.node_of(pod)
        if harmless(pod, node) or (node is not None and node.ready == "Unknown"):
            continue
        return False
    return True
