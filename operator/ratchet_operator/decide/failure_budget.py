"""What the end of an attempt is charged to, when charges are forgiven or moved, and when a job has spent too much.

Capacity that was taken away and failures of the job itself are two budgets: the first has no limit unless the manifest
sets one, the second is small and forgiven once an attempt has been healthy for long enough. A verdict may still change
for two minutes after the end, because evidence of a lost machine can come late; then the charge moves with it.
Restarting never waits for that, only giving up does. What each verdict costs is in `verdict.TABLE`.
"""

from __future__ import annotations

from ratchet_api.job import Spec
from ratchet_api.status import AttemptRecord, AttemptStatus, Status
from ratchet_operator.decide import stamps
from ratchet_operator.decide.plan_builder import PlanBuilder, revised
from ratchet_operator.decide.sign import Sign
from ratchet_operator.decide.verdict import TABLE, Charge, Verdict, stronger, way_out

PROVISIONAL_SECONDS = 120.0
"""How long after the last pod's end a verdict may still change."""

BY_ANOTHER_TRY = (Verdict.CONFIGURATION_INVALID, Verdict.DETERMINISTIC_FAILURE)
"""Ends that other settings of the stage may avoid."""

FOLLOWS_FROM_NO_ROOM = (Verdict.DRAINED, Verdict.PEER_LOST, Verdict.FENCED)
"""How members leave that waited in vain for those without a node: no reason to forget that there was no room."""


def charge(builder: PlanBuilder, record: AttemptRecord, sign: Sign) -> AttemptRecord:
    """Writes the verdict into the record if it is the first or a stronger one, and moves the charge with it.

    Returns the record as it then stands.
    """
    if record.charged_to is not None and not stronger(sign.verdict, record.verdict):
        return record
    if record.verdict == Verdict.UNSCHEDULABLE and record.charged_to and sign.verdict in FOLLOWS_FROM_NO_ROOM:
        return record
    cost, before, evidence = _cost(builder, record, sign.verdict), record.charged_to, sign.evidence[:1024]
    _book(builder, before, -1)
    _book(builder, cost, +1)
    charged = revised(
        record,
        verdict=sign.verdict.value,
        evidence=evidence,
        charged_to=cost.value,
        notice=TABLE[sign.verdict].notice.value,
    )
    builder.put_record(charged)
    attempt = builder.attempt
    if attempt is not None and attempt.number == record.number:
        builder.revise_attempt(attempt, verdict=sign.verdict.value, evidence=evidence)
    ending = "ended" if before is None else f"counts as {sign.verdict} now, not {record.verdict}"
    paid = "" if cost == Charge.NOTHING else f" (charged to {cost})"
    builder.event(
        "Normal" if cost == Charge.NOTHING else "Warning",
        sign.verdict.value,
        f"attempt {record.number} {ending}: {sign.evidence[:900]}{paid}",
    )
    return charged


def _book(builder: PlanBuilder, budget: str | None, by: int) -> None:
    if budget == Charge.PREEMPTIONS:
        builder.count(preemptions=max(0, builder.counters.preemptions + by))
    elif budget == Charge.FAILURES:
        builder.count(failures=max(0, builder.counters.failures + by))


def _cost(builder: PlanBuilder, record: AttemptRecord, verdict: Verdict) -> Charge:
    if verdict != Verdict.PEER_LOST:
        return TABLE[verdict].charge
    attempt = builder.attempt
    if attempt is not None and attempt.number == record.number and attempt.running_time is None:
        return Charge.NOTHING  # the peer was never there: that is the cluster's doing, not the job's
    # One lost peer without any trace of what took it may be the network; two in a row without a step are a failure.
    before = [r for r in builder.status.attempts if r.number < record.number]
    again = bool(before) and before[-1].verdict == verdict and builder.counters.disturbances_without_progress > 0
    return Charge.FAILURES if again else TABLE[verdict].charge


def final_at(final_time: str) -> str:
    """When the verdict of an attempt whose pods have all ended at `final_time` can no longer change."""
    return stamps.after(final_time, PROVISIONAL_SECONDS)


def provisional(builder: PlanBuilder, record: AttemptRecord, spec: Spec) -> bool:
    """Whether later evidence may still change this verdict."""
    if record.final_time is None:
        return True
    if builder.observed.passed(final_at(record.final_time)):
        return False
    attempt = builder.attempt
    return not (attempt is not None and attempt.number > record.number and healthy(builder, attempt, spec))


def healthy(builder: PlanBuilder, attempt: AttemptStatus, spec: Spec) -> bool:
    """Whether the present attempt has made `restart.healthySteps` steps by its own account.

    `status.progress` never falls, so after a loss it shows steps that the attempt has yet to repeat.
    """
    report = builder.observed.report_of(attempt)
    if report is None or attempt.start_step is None or attempt.running_time is None:
        return False
    if report.said.step is None or report.said.phase in ("start", "restore"):
        return False
    return report.said.step - attempt.start_step >= spec.restart.healthy_steps


def forgive(builder: PlanBuilder, attempt: AttemptStatus, spec: Spec) -> None:
    """Forgets failures once an attempt has been healthy."""
    if builder.counters.failures and healthy(builder, attempt, spec):
        builder.count(failures=0)


def ways_out(status: Status) -> str:
    """What can be done about a stage that fails in the same way every time."""
    stage, done = status.stage, status.rewind
    if stage is None:
        return ""
    number = (done.id or 0) + 1 if done is not None else 1
    return (
        f"; change what is wrong and set spec.rewind: {{id: {number}, stage: {stage.name}}} in the same edit, and the "
        f"stage begins again from step {stage.start_step}; or give another job this directory, checkpoint.existing: "
        f"Resume and spec.rewind: {{id: 1, stage: {stage.name}}}"
    )


def _where_to_read(builder: PlanBuilder, record: AttemptRecord) -> str:
    """Where more is said of how an attempt ended: of pods that are gone there is what trainers kept."""
    own = builder.observed.own_pods(record.number)
    there = [pod.name for pod in own if pod.exit is not None and not pod.gone]
    meant = [name for name in there if f"pod {name} " in (record.evidence or "")]
    if there:
        name = (meant or there)[0]
        return f"its log is there as long as its pod is: kubectl logs {name} -n {builder.observed.namespace}"
    asked = f"ratchet logs {builder.observed.name} -n {builder.observed.namespace} --attempt {record.number}"
    return f"its pods are gone; {asked} shows what was kept of its log"


def exhausted(builder: PlanBuilder, record: AttemptRecord, spec: Spec) -> tuple[str, str] | None:
    """Why no further attempt is made, as reason and message of the condition Failed; None if one may be made."""
    if (before := builder.status.rewind) is not None and record.number <= (before.attempt or 0):
        return None  # that was another try
    if (advice := way_out(record.verdict)) is not None:
        again = ways_out(builder.status) if record.verdict in BY_ANOTHER_TRY else ""
        return record.verdict, f"attempt {record.number}: {record.evidence}; {advice}{again}"
    counters, restart = builder.counters, spec.restart
    if counters.failures > restart.failure_limit:
        return "FailureLimitExceeded", (
            f"{counters.failures} failures exceed restart.failureLimit {restart.failure_limit}; the last one: "
            f"{record.verdict}, {record.evidence}; {_where_to_read(builder, record)}"
        )
    if restart.preemption_limit is not None and counters.preemptions > restart.preemption_limit:
        return "PreemptionLimitExceeded", (
            f"{counters.preemptions} preemptions exceed restart.preemptionLimit {restart.preemption_limit}; "
            "raise it, or add a placement that is not taken away"
        )
    return None
