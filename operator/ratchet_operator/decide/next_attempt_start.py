"""When the next attempt starts.

The conditions for it, in the order in which they are asked:

1. the present attempt has ended with all its pods, and what it ended with allows another one (`failure_budget`);
2. the back-off is over, if the last attempts made no step;
3. the job is neither suspended nor refused, and waits neither for an approval nor for a larger budget, nor for workers
   of its fleet where the last attempt left for want of them;
4. the attempt is authorized: its number is in status before anything of it exists;
5. nothing older can write any more (`fencing`), and no foreign object has a name that it needs;
6. what its pods need is there, as far as that can be known (`preflight`).

Then its ConfigMap and its JobSet are created.
"""

from __future__ import annotations

from ratchet_api.job import Spec
from ratchet_api.status import AttemptRecord, AttemptStatus
from ratchet_api.validate import processes
from ratchet_operator.build.configmap import config_map
from ratchet_operator.build.jobset import jobset as build_jobset
from ratchet_operator.build.names import config_map_name
from ratchet_operator.build.new_attempt import NewAttempt
from ratchet_operator.decide import (
    approval,
    attempts,
    conditions,
    failure_budget,
    fencing,
    image,
    placement,
    preflight,
    refusals,
    rollouts,
    stage_budget,
    stage_progress,
    stamps,
)
from ratchet_operator.decide.plan_builder import PlanBuilder
from ratchet_operator.decide.verdict import Verdict, way_out

BACK_OFF_SECONDS, BACK_OFF_MOST = 30.0, 600.0


def start_when_due(builder: PlanBuilder, spec: Spec, *, accepted: bool) -> None:
    """Authorizes the next attempt when its time has come, and creates what was authorized; else says what it waits
    for. Ends the job when there is never to be another attempt."""
    attempt, ended = builder.attempt, builder.settled()
    if ended is not None and not _another_is_due(builder, ended, spec):
        return
    if attempt is not None and ended is None and attempt.job_set_uid is not None:
        return  # it runs, or it is ending
    if spec.suspend:
        builder.wait("Suspended", "set spec.suspend to false to go on")
        return
    if not accepted:
        builder.wait("NotAccepted", "correct the spec; see the condition Accepted")
        return
    if (words := stage_budget.spent(builder, spec)) is not None:
        builder.wait("BudgetSpent", words)
        return
    if (waits := approval.missing(builder.status)) is not None:
        builder.wait("AwaitingApproval", approval.in_words(builder.observed, waits))
        return
    if (words := rollouts.missing_for_trainer(builder, spec)) is not None:
        builder.wait("WaitingForWorkers", words)
        return
    if attempt is None or ended is not None:
        attempt = authorize(builder, spec)
    if attempt.ended_time is None and attempt.job_set_uid is None:
        create(builder, attempt, spec)


def _another_is_due(builder: PlanBuilder, record: AttemptRecord, spec: Spec) -> bool:
    """Whether there is to be another attempt now; ends the job when there is never to be one."""
    if record.verdict == Verdict.COMPLETED or stage_progress.approved_to_finish(builder.status):
        step = builder.status.stages[-1].end_step if builder.status.stages else None
        conditions.finish(builder, "Completed", "AllStagesDone", f"all stages are done at step {step}")
        return False
    words = stage_budget.spent(builder, spec)
    if words is not None and stage_budget.fails(builder, spec):
        conditions.finish(builder, "Failed", "BudgetExceeded", words)
        return False
    spent = failure_budget.exhausted(builder, record, spec)
    if spent is not None:
        late = way_out(record.verdict) is None and failure_budget.provisional(builder, record, spec)
        if late and record.final_time is not None:
            builder.wake_at(failure_budget.final_at(record.final_time))
            words = "the failure budget is spent; late evidence may still change the last verdict"
            builder.wait("AwaitingEvidence", words)
            return False
        conditions.finish(builder, "Failed", *spent)
        return False
    if (failed := rollouts.hopeless(builder, spec)) is not None:
        conditions.finish(builder, "Failed", Verdict.WORKERS_FAILED, f"{failed}; {way_out(Verdict.WORKERS_FAILED)}")
        return False
    until = None if spec.suspend or words is not None else back_off_until(builder, record)
    if until is not None and not builder.observed.passed(until):
        builder.wake_at(until)
        builder.wait("BackingOff", f"attempt {record.number} ended ({record.verdict}); the next one starts at {until}")
        return False
    return True


def back_off_until(builder: PlanBuilder, record: AttemptRecord) -> str | None:
    """When the next attempt may start at the earliest; None: at once."""
    if record.final_time is None:
        return None
    rounds = builder.counters.disturbances_without_progress - conditions.STALLED_AFTER
    if record.verdict == Verdict.STORAGE_UNAVAILABLE:
        rounds = max(rounds, _storage_failures_in_a_row(builder) - 1)
    if rounds < 0:
        return None
    return stamps.after(record.final_time, min(BACK_OFF_MOST, BACK_OFF_SECONDS * 2.0 ** min(rounds, 10)))


def _storage_failures_in_a_row(builder: PlanBuilder) -> int:
    count = 0
    for record in reversed(builder.status.attempts):
        if record.verdict != Verdict.STORAGE_UNAVAILABLE:
            break
        count += 1
    return count


def authorize(builder: PlanBuilder, spec: Spec) -> AttemptStatus:
    """Writes the next attempt into status. Its objects are created once nothing older can write."""
    present = builder.attempt.number if builder.attempt is not None else 0
    number = 1 + max(attempts.highest_number(builder.observed, own=False), present)
    chosen = placement.choose(builder, spec)
    stage_progress.begin_first(builder, spec)
    attempt = attempts.fresh(builder, number, chosen)
    builder.revise(attempt=attempt)
    rollouts.trainer_begins(builder)
    builder.count(attempts=builder.counters.attempts + 1)
    image.resolve(builder, spec)
    builder.status_first = True
    known = builder.status.checkpoint
    where = f" from step {known.step}" if known is not None else ""  # else what is in the directory is yet to be seen
    builder.event("Normal", "AttemptStarts", f"attempt {number} starts on placement {chosen.name}{where}")
    return attempt


def create(builder: PlanBuilder, attempt: AttemptStatus, spec: Spec) -> None:
    """Creates what was authorized, as soon as nothing older can write."""
    observed = builder.observed
    blockers = fencing.blockers(observed, attempt.number)
    if blockers:
        shown = ", ".join(blockers[:3]) + (f" and {len(blockers) - 3} more" if len(blockers) > 3 else "")
        off = (
            "; if a machine is known to be off, delete its Node or taint it node.kubernetes.io/out-of-service"
            if fencing.on_silent_nodes(observed, attempt.number)
            else ""
        )
        builder.wait("WaitingForOldPods", f"attempt {attempt.number} starts once nothing older can write: {shown}{off}")
        return
    own = (f"JobSet/{attempt.job_set}", f"ConfigMap/{config_map_name(observed.name, attempt.number)}")
    if taken := [name for name in observed.snapshot.conflicts if name in own]:
        names = ", ".join(taken)
        builder.wait("NameConflict", f"{names} exists and does not belong to this job; delete or rename it")
    if (refusal := refusals.creation(observed)) is not None:
        builder.wait(*refusal)
        builder.status_first = True  # what is refused again must not keep the condition from saying so
    chosen = placement.of_name(spec, attempt.placement)
    if (attempt.placement, attempt.pods_total) != (chosen.name, processes(chosen)):
        # The spec was changed while the attempt waited to be created: what is counted must be what is created.
        builder.revise_attempt(attempt, placement=chosen.name, pods_total=processes(chosen))
        builder.status_first = True
    before = builder.status.resolved
    trainer_image = image.resolve(builder, spec)
    builder.status_first = builder.status_first or builder.status.resolved != before
    stage = builder.status.stage
    step = builder.status.checkpoint.step if builder.status.checkpoint else 0
    job, values = observed.snapshot.job, observed.snapshot.values
    stay_until = int(stamps.seconds(observed.now)) + spec.maintenance.lead_seconds
    new = NewAttempt(job, spec, attempt.number, chosen, trainer_image, step, values, stay_until)
    jobset = build_jobset(new)
    if (found := preflight.in_the_way(spec, jobset, observed.snapshot.surroundings)) is not None:
        builder.wait(*found)
        builder.wake_at(stamps.after(observed.now, preflight.AGAIN_SECONDS))
        return
    builder.create.append(config_map(job, spec, attempt.number, stage.index if stage else 0))
    builder.create.append(jobset)
