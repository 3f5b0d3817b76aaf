"""The condition RolloutsAvailable: whether somebody samples for the trainer, and if not, what that waits for."""

from __future__ import annotations

from ratchet_api.rollouts import Rollouts
from ratchet_api.status import RolloutsStatus
from ratchet_operator.decide import refusals, rollouts
from ratchet_operator.decide.plan_builder import PlanBuilder
from ratchet_operator.decide.worker_end import next_start

REASONS = {
    "AllRunning": "every worker runs",
    "SomeRunning": "at least workers.min workers run, and fewer than workers.max",
    "TooFew": "fewer than workers.min workers run; the message says what the others wait for",
    "WorkersFail": "fewer than workers.min workers run, because they fail by themselves; the message quotes one",
    "AwaitingTrainer": "the first workers start once the trainer runs",
    "ScaledToZero": "workers.max is 0: the fleet rests, and the trainer waits",
    "NotNeeded": "nothing is sampled now; the message says why",
    "NotApplicable": "the job has no fleet: its trainer samples itself",
}
"""Reason -> meaning. Finite; docs/conditions.md is made from it."""

Said = tuple[str, str, str]  # status, reason, message


def evaluate(builder: PlanBuilder) -> Said:
    """Status, reason and message."""
    spec = builder.observed.spec
    if spec is None or spec.rollouts is None:
        return "Unknown", "NotApplicable", ""
    rests = rollouts.resting(builder, spec)
    if rests is not None:
        return "Unknown", "NotNeeded", rests
    if spec.rollouts.workers.max == 0:
        return "False", "ScaledToZero", "rollouts.workers.max is 0, so the trainer waits; raise it to go on"
    if not rollouts.begun(builder):
        return "False", "AwaitingTrainer", "workers start once the trainer runs; see the condition Running"
    return _counted(builder, spec.rollouts, builder.status.rollouts or RolloutsStatus())


def _counted(builder: PlanBuilder, wanted: Rollouts, fleet: RolloutsStatus) -> Said:
    most, least = wanted.workers.max, wanted.workers.min
    if fleet.running >= most:
        return "True", "AllRunning", f"{fleet.running} workers run"
    failing = [w for w in fleet.workers if w.running_time is None and w.failures]
    failing += [w for w in fleet.workers if w.running_time is not None and w.end_time is not None and w.failures]
    why = f"{fleet.running} of {most} workers run"
    if (refused := refusals.of_worker(builder.observed)) is not None:
        why += f"; the API server refuses one: {refused}"
    elif failing:
        one = max(failing, key=lambda w: (w.failures, -w.worker))
        again = f", tried again at {next_start(one)}" if one.end_time is not None else ""
        why += f"; worker {one.worker} failed {one.failures} times running{again}: {one.verdict}, {one.evidence}"
    else:
        why += _waiting(builder, fleet)
    if fleet.running >= least:
        return "True", "SomeRunning", why
    return "False", "WorkersFail" if failing else "TooFew", f"{why}; rollouts.workers.min is {least}"


def _waiting(builder: PlanBuilder, fleet: RolloutsStatus) -> str:
    """What workers wait for that have not failed."""
    observed = builder.observed
    waiting = [w for w in fleet.workers if w.running_time is None and w.end_time is None]
    unbound = [w for w in waiting if any(pod.node is None for pod in observed.worker_pods(w.worker, w.attempt))]
    if not unbound:
        return ""
    names = ", ".join(sorted({w.placement or "" for w in unbound}))
    pods = observed.worker_pods(unbound[0].worker, unbound[0].attempt)
    said = refusals.of_scheduling(pods)
    return f"; {len(unbound)} have no node of {names}; add nodes, or a placement, if it stays so{said}"
