"""Which stage the job is in, and which ones have ended.

The trainer decides that a stage has ended and says so (`boundary`, over HTTP or in its termination message). Here the
end is written into status; only then does the stage gate let the trainer into the next one (`stage_gate`). An end that
needs an approval is written down, too, but nothing follows it until it is approved (`approval`).
"""

from __future__ import annotations

from collections.abc import Iterator

from ratchet_api.job import Spec
from ratchet_api.protocol.documents import Boundary
from ratchet_api.status import AttemptStatus, RewindStatus, StagePosition, StageRecord, Status
from ratchet_operator.decide import approval, stage_budget
from ratchet_operator.decide.plan_builder import PlanBuilder, revised


def begin_first(builder: PlanBuilder, spec: Spec) -> None:
    """Opens the first stage."""
    if not builder.status.stages:
        _enter(builder, spec, 0, 0)
        if spec.rewind is not None and builder.status.rewind is None:  # of this job nothing has begun
            builder.revise(rewind=RewindStatus(id=spec.rewind.id, lineage=1))


def last_stage_over(status: Status) -> bool:
    """Whether the last stage is recorded as done: the end is decided, and a stage appended now comes too late."""
    return _ended(status) and approval.missing(status) is None and not status.awaits_acceptance


def approved_to_finish(status: Status) -> bool:
    """Whether the end is decided by an approval. What there was to do was done before that was asked for."""
    return last_stage_over(status) and bool(status.stages[-1].needs_approval)


def record_ends(builder: PlanBuilder, attempt: AttemptStatus, spec: Spec, *, accepted: bool = True) -> None:
    """Records every end of a stage that the trainer has reported. While the spec is not accepted none of its stages is
    entered: the stage gate stays shut, as for an approval."""
    _catch_up(builder, attempt, spec)
    for boundary in _reported_boundaries(builder, attempt):
        stage = builder.status.stage
        if stage is None or boundary.stage != stage.index or _ended(builder.status):
            continue  # a replay of an end that is recorded
        _close(builder, max(boundary.step, stage.start_step), boundary.rule, boundary.needs_approval)
        builder.status_first = True
        if approval.missing(builder.status) is None:
            _go_on(builder, spec, accepted=accepted)
        else:
            take_approval(builder, spec, accepted=accepted)


def enter_accepted(builder: PlanBuilder, spec: Spec) -> None:
    """Enters the stage that was not accepted when the one before it ended, now that it is."""
    last = builder.status.stages[-1] if builder.status.stages else None
    if last is None or last.end_step is None or not builder.status.awaits_acceptance:
        return
    builder.revise(awaits_acceptance=None)
    builder.status_first = True
    _go_on(builder, spec, accepted=True)


def take_approval(builder: PlanBuilder, spec: Spec, *, accepted: bool = True) -> None:
    """Goes on after an end that waited for an approval, if there is one now."""
    waits = approval.missing(builder.status)
    if waits is None or not approval.given(spec, waits.name):
        return
    approved = revised(waits, approved_time=builder.observed.now)
    builder.revise(stages=[*builder.status.stages[:-1], approved])
    builder.event("Normal", "Approved", f"the end of stage {waits.name} at step {waits.end_step} is approved")
    builder.status_first = True
    _go_on(builder, spec, accepted=accepted)


def _go_on(builder: PlanBuilder, spec: Spec, *, accepted: bool) -> None:
    """Lets the next stage begin, or the trainer finish."""
    last = builder.status.stages[-1]
    if last.index + 1 < len(spec.stages) and not accepted:
        builder.revise(awaits_acceptance=True)
    elif last.index + 1 < len(spec.stages):
        _enter(builder, spec, last.index + 1, last.end_step or 0)
    else:
        message = f"stage {last.name} ended at step {last.end_step}; the trainer may finish"
        builder.event("Normal", "LastStageDone", message)


def _ended(status: Status) -> bool:
    return bool(status.stages) and status.stages[-1].end_step is not None


def _reported_boundaries(builder: PlanBuilder, attempt: AttemptStatus) -> Iterator[Boundary]:
    """Ends of stages that the trainer tells of, over HTTP and in termination messages."""
    report = builder.observed.report_of(attempt)
    if report is not None and report.said.boundary is not None:
        yield report.said.boundary
    for pod in builder.observed.own_pods(attempt.number):
        if pod.exit is not None and pod.exit.message.boundary is not None:
            yield pod.exit.message.boundary


def _catch_up(builder: PlanBuilder, attempt: AttemptStatus, spec: Spec) -> None:
    """After a loss of status the checkpoint knows best which stage the job is in: the one that the attempt began in, or
    one that the stage gate, which still stands on the leader, let it enter. Whoever claims another is not believed:
    nobody steers a run over HTTP, least of all past an approval. Where stages were passed over, nobody knows when the
    open one ended, so its record goes.
    """
    report, stage = builder.observed.report_of(attempt), builder.status.stage
    if report is None or report.said.stage is None or stage is None or approval.missing(builder.status) is not None:
        return
    index, start, restored = report.said.stage.index, report.said.stage.start_step, report.said.start_step
    if not stage.index < index < len(spec.stages):
        return
    leaders = (pod for pod in builder.observed.own_pods(attempt.number) if pod.is_leader)
    let_in = any(pod.gate_opens_up_to >= index for pod in leaders)
    if (restored is None or restored < max(1, start)) and not let_in:
        return
    if index == stage.index + 1:
        _close(builder, max(start, stage.start_step), None)
    else:
        builder.revise(stages=[record for record in builder.status.stages if record.end_step is not None])
    _enter(builder, spec, index, start)


def _close(builder: PlanBuilder, step: int, rule: str | None, needs_approval: bool = False) -> None:
    *others, last = builder.status.stages
    progress = builder.status.progress
    closed = revised(
        stage_budget.booked(builder, last),
        generated_tokens=progress.generated_tokens if progress else None,
        end_step=step,
        rule=rule[:256] if rule else None,
        needs_approval=needs_approval or None,
        end_time=builder.observed.now,
    )
    builder.revise(stages=[*others, closed])


def _enter(builder: PlanBuilder, spec: Spec, index: int, step: int) -> None:
    name = spec.stages[index].name
    record = revised(StageRecord(name=name), index=index, start_step=step, start_time=builder.observed.now)
    position = revised(StagePosition(name=name), index=index, start_step=step)
    builder.revise(stages=[*builder.status.stages, record], stage=position)
    if builder.status.progress is not None:
        builder.revise(progress=revised(builder.status.progress, generated_tokens=None))
    before = f"stage {spec.stages[index - 1].name} ended at step {step}; " if index else ""
    builder.event("Normal", "StageBegins", f"{before}stage {name} begins from step {step}")
