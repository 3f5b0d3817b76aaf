"""Which rung of the ladder an attempt is placed on.

The first placement that was not found without capacity a short while ago. A job stays where it runs; only at a
restart does the ladder begin at the top again, so spot capacity is returned to as soon as it may be there.
"""

from __future__ import annotations

from ratchet_api.job import Spec
from ratchet_api.placements import Placement
from ratchet_operator.decide import stamps
from ratchet_operator.decide.draft import Draft
from ratchet_operator.decide.verdict import Sign

FORGET_SECONDS = 600.0
"""How long at least a placement without capacity is left out."""


def choose(draft: Draft, spec: Spec) -> Placement:
    """The placement of the next attempt."""
    ladder = spec.placements
    tried = {r.placement: r for r in draft.status.attempts if r.verdict == "Unschedulable"}
    for placement in ladder:
        record = tried.get(placement.name)
        rest = max(FORGET_SECONDS, float(placement.wait_seconds))
        if record is None or record.end_time is None or draft.world.passed(stamps.after(record.end_time, rest)):
            return placement
    # All were tried of late: go round.
    last = max(tried.values(), key=lambda record: record.number).placement
    names = [placement.name for placement in ladder]
    return ladder[(names.index(last) + 1) % len(ladder) if last in names else 0]


def gave_up(draft: Draft, spec: Spec) -> Sign | None:
    """The sign that the present placement has no room, once its time is over and there is another one to try."""
    attempt = draft.attempt
    if attempt is None or attempt.created_time is None or attempt.running_time is not None:
        return None
    placement = next((p for p in spec.placements if p.name == attempt.placement), None)
    pods = draft.world.own_pods(attempt.number)
    bound = [pod for pod in pods if pod.node is not None]
    if len(bound) >= attempt.pods_total and pods:
        return None
    if placement is None:
        return Sign("Unschedulable", f"placement {attempt.placement} is no longer in the spec", None)
    if len(spec.placements) < 2:
        return None
    until = stamps.after(attempt.created_time, float(placement.wait_seconds))
    if not draft.world.passed(until):
        draft.wake_at(until)
        return None
    evidence = f"{len(bound)} of {attempt.pods_total} pods found a node of placement {placement.name} within "
    return Sign("Unschedulable", f"{evidence}{placement.wait_seconds} s", None)


def without_room(draft: Draft, sign: Sign) -> Sign:
    """What a lost peer means in an attempt that never ran as a whole: a member without a node was never there.

    With one slice placed and the next one not, the trainers that are up give up before `waitSeconds` are over. As with
    `gave_up`, another placement must be there to be tried.
    """
    attempt, spec = draft.attempt, draft.world.spec
    if attempt is None or spec is None or len(spec.placements) < 2:
        return sign
    pods = draft.world.own_pods(attempt.number)
    unbound = sum(pod.node is None for pod in pods)
    if sign.verdict != "PeerLost" or attempt.running_time is not None or not unbound:
        return sign
    evidence = f"{unbound} of {attempt.pods_total} pods had no node of placement {attempt.placement}"
    return Sign("Unschedulable", f"{evidence} when {sign.evidence}", sign.window, sign.stamp)
