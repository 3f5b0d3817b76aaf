"""One pass over one job, top to bottom: what is there, what that means, what is to be done.

A function of the snapshot alone. It decides nothing by itself but the order of questions; each answer is in the file
named for it. The present attempt is followed first (it may end here), then what remains of earlier ones is cleared
away, then the next attempt is authorized and created if nothing speaks against it; several of these may happen in one
pass.
"""

from __future__ import annotations

from dataclasses import replace

from ratchet_api.job import Spec
from ratchet_api.status import AttemptStatus
from ratchet_operator.decide import (
    acceptance,
    attempts,
    conditions,
    end_signs,
    failure_budget,
    fencing,
    next_attempt_start,
    placement,
    progress_report,
    rewind,
    rollouts,
    stage_budget,
    stage_gate,
    stage_progress,
    strangers,
)
from ratchet_operator.decide.observed_job import ObservedJob
from ratchet_operator.decide.plan_builder import PlanBuilder
from ratchet_operator.decide.sign import strongest
from ratchet_operator.decide.verdict import Verdict
from ratchet_operator.plan import Plan
from ratchet_operator.snapshot import Snapshot


def decide(snapshot: Snapshot) -> Plan:
    """What to do about one job. Deterministic; applying the plan and deciding again gives an empty plan."""
    observed = ObservedJob.read(snapshot)
    builder = PlanBuilder.begin(observed)
    if observed.deleting:
        return Plan()  # what belongs to a deleted job goes with it
    revived = observed.spec is not None and rewind.revive(builder, observed.spec)
    if conditions.finished(observed.status) and not revived:
        conditions.note_late_edit(builder)
        rollouts.end(builder)
        return builder.plan()  # what its last attempt left is kept for reading
    if observed.spec is None:
        # Admitted by an older or newer CRD. A running attempt is left alone: nothing here understands what it runs.
        conditions.refuse(builder, observed.problems)
        return replace(builder.plan(), unreadable="; ".join(map(str, observed.problems)))
    strangers.report(builder)
    spec = observed.spec
    problems = () if snapshot.instead is not None else acceptance.problems(spec, snapshot.values)
    problems += acceptance.taken(snapshot)
    if not problems:
        attempts.take_up_lost(builder, spec)
        stage_progress.enter_accepted(builder, spec)
    stage_progress.take_approval(builder, spec, accepted=not problems)
    if builder.attempt is not None and builder.settled() is None:
        _follow(builder, builder.attempt, spec, accepted=not problems)
    _classify_again(builder, spec)
    if not problems:
        rewind.take(builder, spec)
    rollouts.follow(builder, spec, accepted=not problems)
    next_attempt_start.start_when_due(builder, spec, accepted=not problems)
    if conditions.finished(builder.status):
        rollouts.end(builder)
    fencing.sweep(builder)
    conditions.evaluate(builder, problems, suspend=spec.suspend)
    return builder.plan()


def _follow(builder: PlanBuilder, attempt: AttemptStatus, spec: Spec, *, accepted: bool) -> None:
    """Follows the present attempt from its JobSet to its end."""
    if attempt.job_set_uid is None and attempt.ended_time is None:
        attempt = attempts.adopt(builder, attempt)
        if attempt.job_set_uid is None and attempt.ended_time is None:
            return  # `next_attempt_start` creates it
    attempt = progress_report.take(builder, attempt, spec)
    stage_budget.note_tokens(builder, attempt)
    stage_progress.record_ends(builder, attempt, spec, accepted=accepted)
    failure_budget.forgive(builder, attempt, spec)
    finishing = stage_progress.last_stage_over(builder.status)
    signs = end_signs.signs_of_an_end(builder.observed, attempt, finishing=finishing)
    record = builder.record(attempt.number)
    if record is None:
        attempt = attempts.watch(builder, attempt)
        if not signs and spec.suspend:
            signs = [end_signs.suspended()]
        if not signs and accepted and rewind.due(builder, spec) is not None:
            signs = [end_signs.rewound(rewind.in_words(spec))]
        if not signs and (words := stage_budget.chips_spent(builder, spec)) is not None:
            signs = [end_signs.budget_spent(words)]
        if not signs and (words := rollouts.hopeless(builder, spec)) is not None:
            signs = [end_signs.workers_failed(words)]
        if not signs and (no_room := placement.given_up(builder, attempt, spec)) is not None:
            signs = [no_room]
        if not signs:
            stage_gate.write(builder, attempt, spec)
            return
        attempt, record = attempts.end(builder, attempt, signs)
    attempts.follow_end(builder, attempt, record, signs)


def _classify_again(builder: PlanBuilder, spec: Spec) -> None:
    """Looks again at why attempts ended, while their verdicts are provisional."""
    finishing = stage_progress.last_stage_over(builder.status)
    for record in builder.status.attempts[-2:]:
        if not failure_budget.provisional(builder, record, spec):
            continue
        signs = end_signs.late_signs(builder.observed, record.number, finishing=finishing, present=builder.attempt)
        if builder.attempt is not None and builder.attempt.number > record.number:
            signs = [sign for sign in signs if sign.verdict != Verdict.COMPLETED]
        if signs:
            failure_budget.charge(builder, record, strongest(signs))
