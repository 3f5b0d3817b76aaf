"""The life of an attempt once it is authorized: taken up, seen created, running, ended, settled.

An attempt is (number, uid of its JobSet). Status is written before each act that it authorizes, and every function
here looks at what is there before it asks for something, so a pass may stop anywhere. When one starts is
`next_attempt_start`'s, why it ended `end_signs`', what that costs `failure_budget`'s, how the gang is ended `gang`'s.
"""

from __future__ import annotations

from ratchet_api.job import Spec
from ratchet_api.placements import Placement
from ratchet_api.protocol import Exit as Code
from ratchet_api.status import AttemptRecord, AttemptStatus
from ratchet_api.validate import processes
from ratchet_operator.build.names import config_map_name, jobset_name
from ratchet_operator.decide import (
    approval,
    end_signs,
    failure_budget,
    gang,
    hang,
    image,
    placement,
    progress_report,
    queue_wait,
    recovery_parts,
    refusals,
    rollouts,
    stage_budget,
    stage_progress,
    stamps,
)
from ratchet_operator.decide.observed_job import ObservedJob
from ratchet_operator.decide.own_end import MAY_START, START_PATIENCE_SECONDS
from ratchet_operator.decide.plan_builder import PlanBuilder, revised
from ratchet_operator.decide.sign import Sign, strongest
from ratchet_operator.decide.verdict import TABLE
from ratchet_operator.plan import Delete


def highest_number(observed: ObservedJob, *, own: bool) -> int:
    """The highest attempt number that any live object, or a trainer that was fenced off, tells of; 0 if none does.

    `own`: only of this job, not of a deleted one of the same name.
    """
    numbers = [0]
    for pod in observed.pods:
        if not pod.made_by_job:
            continue  # its labels and its last words are anybody's
        if pod.attempt is not None and (not own or pod.job_uid == observed.uid):
            numbers.append(pod.attempt)
        owner = pod.exit.message.owner if pod.exit is not None and pod.exit.code == Code.FENCED else None
        if owner is not None and owner.job_uid == observed.uid and not own:
            numbers.append(owner.attempt)
    for jobset in observed.jobsets:
        if jobset.attempt is not None and (not own or jobset.owned_by(observed.uid)):
            numbers.append(jobset.attempt)
    return max(numbers)


def fresh(builder: PlanBuilder, number: int, chosen: Placement) -> AttemptStatus:
    """A new attempt as status has it when it is authorized."""
    checkpoint = builder.status.checkpoint
    return revised(
        AttemptStatus(number=number),
        job_set=jobset_name(builder.observed.name, number),
        fence=builder.observed.snapshot.fence,
        placement=chosen.name,
        start_step=checkpoint.step if checkpoint else 0,
        start_time=builder.observed.now,
        pods_total=processes(chosen),
    )


def take_up_lost(builder: PlanBuilder, spec: Spec) -> None:
    """Takes up the highest attempt of this job when status was lost or restored from an old copy."""
    present = builder.attempt.number if builder.attempt is not None else 0
    number = highest_number(builder.observed, own=True)
    if number <= present:
        return
    shape = placement.of_jobset(spec, builder.observed.own_jobset(number))
    builder.revise(attempt=fresh(builder, number, shape))
    builder.count(attempts=max(number, builder.counters.attempts))
    image.resolve(builder, spec)
    stage_progress.begin_first(builder, spec)
    builder.status_first = True
    builder.event(
        "Warning",
        "StatusReset",
        f"status was lost or is older than attempt {number}, which is taken up; budgets and history are lost",
    )


def adopt(builder: PlanBuilder, attempt: AttemptStatus) -> AttemptStatus:
    """Takes up the JobSet of an authorized attempt if it is there; an attempt of which only pods are left has ended."""
    observed = builder.observed
    jobset = observed.own_jobset(attempt.number)
    if jobset is not None:
        attempt = builder.revise_attempt(attempt, job_set_uid=jobset.uid, created_time=observed.now)
        attempt = queue_wait.begin(builder, attempt)
        for record in builder.status.attempts[-2:]:
            if record.number < attempt.number:  # nobody reads the file of that attempt any more
                name = config_map_name(observed.name, record.number)
                builder.delete.append(Delete("v1", "ConfigMap", observed.namespace, name, None))
    elif observed.own_pods(attempt.number):
        attempt, _ = end(builder, attempt, [end_signs.jobset_vanished(attempt.job_set or "")])
    return attempt


def watch(builder: PlanBuilder, attempt: AttemptStatus) -> AttemptStatus:
    """Counts the pods of the present attempt, and notes when its queue let it go and when all of them run."""
    attempt = queue_wait.note_admission(builder, attempt)
    pods = builder.observed.own_pods(attempt.number)
    attempt = builder.revise_attempt(attempt, pods_ready=sum(pod.ready for pod in pods))
    if attempt.running_time is None and sum(pod.running for pod in pods) >= attempt.pods_total:
        attempt = builder.revise_attempt(attempt, running_time=builder.observed.now)
        image.pin(builder, pods[0].image_id)
    recovery_parts.note_milestones(builder, attempt)
    since = queue_wait.looks_for_nodes_since(attempt)
    if since is not None and any(pod.waiting.get("reason") in MAY_START for pod in pods):
        builder.wake_at(stamps.after(since, START_PATIENCE_SECONDS))
    if (late := hang.deadline(builder.observed, attempt)) is not None:
        builder.wake_at(late)
    if (ask := refusals.look_at(builder.observed, attempt)) is not None and not builder.observed.passed(ask):
        builder.wake_at(ask)
    return attempt


def end(builder: PlanBuilder, attempt: AttemptStatus, signs: list[Sign]) -> tuple[AttemptStatus, AttemptRecord]:
    """Writes down that the present attempt is ending: evidence first, the acts follow."""
    now = builder.observed.now
    sign = placement.no_room_for_lost_peer(builder, attempt, strongest(signs))
    last_step = progress_report.last_step(builder, attempt)
    deadline = stamps.after(now, gang.window(signs, builder.observed.grace_seconds))
    attempt = builder.revise_attempt(attempt, ended_time=now, drain_deadline=deadline, pods_ready=0)
    record = revised(
        AttemptRecord(number=attempt.number, verdict=sign.verdict.value),
        placement=attempt.placement,
        start_step=attempt.start_step,
        end_step=last_step,
        start_time=attempt.start_time,
        end_time=now,
        recovery=recovery_parts.detected(sign.stamp, now) if _disturbs(builder, sign) else None,
    )
    record = failure_budget.charge(builder, record, sign)
    builder.status_first = True
    return builder.attempt or attempt, record


def follow_end(builder: PlanBuilder, attempt: AttemptStatus, record: AttemptRecord, signs: list[Sign]) -> None:
    """Ends the rest of the gang of an attempt that is ending, and settles it when all members have ended."""
    now = builder.observed.now
    deadline = attempt.drain_deadline or now
    if record.final_time is None and gang.lost(signs):
        sooner = stamps.after(now, gang.window(signs, builder.observed.grace_seconds))
        if attempt.drain_deadline is None or stamps.seconds(sooner) < stamps.seconds(deadline):
            deadline = sooner
            attempt = builder.revise_attempt(attempt, drain_deadline=deadline)
    record = _take_last_words(builder, attempt, record)
    gang.end(builder, attempt, record, deadline)
    if record.final_time is None and gang.drained(builder, attempt):
        stage_budget.book(builder)
        _settle(builder, record)


def _settle(builder: PlanBuilder, record: AttemptRecord) -> None:
    now, recovery = builder.observed.now, record.recovery
    if rollouts.left_for_workers(builder, record.number):
        recovery = None  # nothing was disturbed: it comes back once somebody samples for it
    if recovery is not None:
        recovery = revised(recovery, drain=f"{stamps.between(record.end_time or now, now):g}")
    builder.put_record(revised(record, final_time=now, recovery=recovery))
    if recovery is not None:
        made_step = builder.status.checkpoint is not None and builder.status.checkpoint.step > (record.start_step or 0)
        count = 0 if made_step else builder.counters.disturbances_without_progress + 1
        builder.count(disturbances_without_progress=count)


def _take_last_words(builder: PlanBuilder, attempt: AttemptStatus, record: AttemptRecord) -> AttemptRecord:
    """What the members said when they left: the last step, and that it is safe."""
    step = progress_report.last_words(builder.observed.own_pods(record.number))
    if step is not None:
        progress_report.note_committed(builder, attempt, step)
        if step > (record.end_step or 0):
            record = revised(record, end_step=step)
            builder.put_record(record)
    return record


def _disturbs(builder: PlanBuilder, sign: Sign) -> bool:
    """Whether there is something to recover from: a job that is suspended, or waits for an approval or a larger budget,
    does not go on."""
    spec = builder.observed.spec
    broke = spec is not None and stage_budget.spent(builder, spec) is not None
    goes_on = sign.evidence != end_signs.SUSPENDED and approval.missing(builder.status) is None and not broke
    return TABLE[sign.verdict].disturbs and goes_on
