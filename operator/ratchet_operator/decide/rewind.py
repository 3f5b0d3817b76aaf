"""Beginning a stage again (`spec.rewind`), and what brings a Failed job back.

An order is carried out once, by its number, when the present attempt has ended: the stage's record and those after it
go, its first step is the end of the stage before, and a new lineage is counted; the trainer of the next attempt claims
the directory for that lineage, in which no later step is a candidate. An order that a job is created with is the
trainer's alone: nothing of the job has begun.

A Failed job is taken up again by an edit that takes away why it failed: a rewind, or a limit that is raised. A job that
is Completed stays so.
"""

from __future__ import annotations

from ratchet_api.job import Spec
from ratchet_api.status import CheckpointStatus, Progress, RewindStatus, StagePosition, StageRecord
from ratchet_operator.decide import conditions, failure_budget, stage_budget
from ratchet_operator.decide.plan_builder import PlanBuilder, revised
from ratchet_operator.decide.verdict import Verdict


def due(builder: PlanBuilder, spec: Spec) -> int | None:
    """Index of the stage that is to begin again; None if there is no order, or none for a stage that has begun."""
    order, done = spec.rewind, builder.status.rewind
    if order is None or builder.status.stage is None or (done is not None and order.id <= (done.id or 0)):
        return None
    begun = builder.status.stages[: builder.status.stage.index + 1]
    return next((r.index for r in begun if r.name == order.stage and spec.stages[r.index].name == order.stage), None)


def in_words(spec: Spec) -> str:
    """The evidence of an attempt that ends for it."""
    return f"stage {spec.rewind.stage if spec.rewind else ''} is to begin again (spec.rewind)"


def take(builder: PlanBuilder, spec: Spec) -> None:
    """Carries the order out once nothing of the present attempt runs any more."""
    index = due(builder, spec)
    if index is None or spec.rewind is None or (builder.attempt is not None and builder.settled() is None):
        return
    before, record = builder.status.rewind, builder.status.stages[index]
    start, now = record.start_step, builder.observed.now
    again = revised(StageRecord(name=record.name), index=index, start_step=start, start_time=now)
    lineage = (before.lineage if before is not None else 1) + 1
    last = builder.attempt.number if builder.attempt is not None else 0
    builder.revise(
        rewind=RewindStatus(id=spec.rewind.id, lineage=lineage, attempt=last),
        stages=[*builder.status.stages[:index], again],
        stage=revised(StagePosition(name=record.name), index=index, start_step=start),
        checkpoint=revised(CheckpointStatus(step=start), time=now) if start else None,
        progress=revised(Progress(step=start), text=str(start), updated_at=now) if start else None,
        attempts=[r if r.steps_lost is not None else revised(r, steps_lost=0) for r in builder.status.attempts],
        awaits_acceptance=None,
    )
    builder.count(failures=0, disturbances_without_progress=0)
    builder.status_first = True
    builder.event("Normal", "Rewound", f"stage {record.name} begins again from step {start} (lineage {lineage})")


def revive(builder: PlanBuilder, spec: Spec) -> bool:
    """Takes a Failed job up again if the edit that was just seen took away why it failed."""
    status = builder.status
    if status.phase != "Failed" or (status.observed_generation or 0) >= builder.observed.generation:
        return False
    if builder.observed.snapshot.directory_owner is not None:
        return False  # another job has gone on in its place
    record = status.attempts[-1] if status.attempts else None
    if record is not None and record.verdict == Verdict.WORKERS_FAILED:
        # Nothing was wrong with the attempt itself, and whether its workers can sample now is tried.
        record = revised(record, verdict=Verdict.DRAINED.value)
    spent = record is not None and failure_budget.exhausted(builder, record, spec) is not None
    broke = stage_budget.spent(builder, spec) is not None and stage_budget.fails(builder, spec)
    if due(builder, spec) is None and (spent or broke):
        return False
    builder.revise(finished_time=None)
    if record is not None:
        builder.put_record(record)
    conditions.write(builder, {"Failed": ("False", "NotFailed", "")})
    builder.event("Normal", "TakenUpAgain", "the job goes on: an edit took away why it had Failed")
    return True
