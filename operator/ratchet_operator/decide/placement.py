"""Which of the spec's placements an attempt runs on, and when one is given up because it has no room.

The first placement that was not found without room a short while ago. A job stays where it runs; only at a restart
does the choice begin at the top again, so spot capacity is returned to as soon as it may be there.
"""

from __future__ import annotations

from ratchet_api.job import Spec
from ratchet_api.placements import Placement
from ratchet_api.status import AttemptStatus
from ratchet_api.validate import processes
from ratchet_operator.decide import end_signs, queue_wait, stamps
from ratchet_operator.decide.observed_jobset import JobSet
from ratchet_operator.decide.plan_builder import PlanBuilder
from ratchet_operator.decide.sign import Sign
from ratchet_operator.decide.verdict import Verdict

FORGET_SECONDS = 600.0
"""How long at least a placement without room is left out."""
LABELS = {"cloud.google.com/gke-tpu-accelerator": "accelerator", "cloud.google.com/gke-tpu-topology": "topology"}
"""Node labels that a placement selects by, and the fields that they are."""


def choose(builder: PlanBuilder, spec: Spec) -> Placement:
    """The placement of the next attempt."""
    tried = {r.placement: r for r in builder.status.attempts if r.verdict == Verdict.UNSCHEDULABLE}
    for placement in spec.placements:
        record = tried.get(placement.name)
        rest = max(FORGET_SECONDS, float(placement.wait_seconds))
        if record is None or record.end_time is None or builder.observed.passed(stamps.after(record.end_time, rest)):
            return placement
    # All were tried of late: go round.
    last = max(tried.values(), key=lambda record: record.number).placement
    names = [placement.name for placement in spec.placements]
    return spec.placements[(names.index(last) + 1) % len(names) if last in names else 0]


def of_name(spec: Spec, name: str | None) -> Placement:
    """The placement of that name; the first one when the spec has it no more."""
    return next((p for p in spec.placements if p.name == name), spec.placements[0])


def of_jobset(spec: Spec, jobset: JobSet | None) -> Placement:
    """The placement whose shape a live JobSet has: status, which knew its name, is lost."""
    for job in jobset.raw.get("spec", {}).get("replicatedJobs", ()) if jobset is not None else ():
        pods = job.get("replicas", 1) * job["template"]["spec"].get("completions", 1)
        selector = job["template"]["spec"]["template"]["spec"].get("nodeSelector", {})
        for placement in spec.placements:
            alike = all(selector.get(label) == getattr(placement, name) for label, name in LABELS.items())
            if pods == processes(placement) and alike:
                return placement
    return spec.placements[0]


def given_up(builder: PlanBuilder, attempt: AttemptStatus, spec: Spec) -> Sign | None:
    """The sign that the present placement has no room, once its time is over and there is another one to try."""
    if attempt.created_time is None or attempt.running_time is not None:
        return None
    pods = builder.observed.own_pods(attempt.number)
    bound = [pod for pod in pods if pod.node is not None]
    if len(bound) >= attempt.pods_total and pods:
        return None
    placement = next((p for p in spec.placements if p.name == attempt.placement), None)
    if placement is None:
        return end_signs.no_room(f"placement {attempt.placement} is no longer in the spec")
    if len(spec.placements) < 2:
        return None
    since = queue_wait.looks_for_nodes_since(attempt)
    if since is None:
        return None  # a queue holds it back: nobody has looked for nodes yet
    until = stamps.after(since, float(placement.wait_seconds))
    if not builder.observed.passed(until):
        builder.wake_at(until)
        return None
    found = f"{len(bound)} of {attempt.pods_total} pods found a node of placement {placement.name}"
    return end_signs.no_room(f"{found} within {placement.wait_seconds} s")


def no_room_for_lost_peer(builder: PlanBuilder, attempt: AttemptStatus, sign: Sign) -> Sign:
    """What a lost peer means in an attempt that never ran as a whole: a member without a node was never there.

    With one slice placed and the next one not, the trainers that are up give up before `waitSeconds` are over. As with
    `given_up`, another placement must be there to be tried. Any other sign is returned as it is.
    """
    spec = builder.observed.spec
    if sign.verdict != Verdict.PEER_LOST or spec is None or len(spec.placements) < 2:
        return sign
    unbound = sum(pod.node is None for pod in builder.observed.own_pods(attempt.number))
    if attempt.running_time is not None or not unbound:
        return sign
    evidence = f"{unbound} of {attempt.pods_total} pods had no node of placement {attempt.placement}"
    return end_signs.no_room_instead(evidence, of=sign)
