"""What the present stage has cost, and whether its budget (`spec.budgets`) is spent.

Tokens are counted by the trainer, which leaves by itself when they are spent; here its count is remembered, and no
attempt starts before the budget is raised. Chip seconds are counted here: of an attempt from when all its pods ran to
when the last one had ended, times the chips of its placement; of a worker of the fleet alike, until its end is seen.
They are booked where an attempt, a worker or a stage ends; what is not booked yet follows from the stamps in status, so
nothing is written meanwhile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ratchet_api.budgets import Budget
from ratchet_api.job import Spec
from ratchet_api.status import AttemptStatus, Progress, StageRecord, WorkerStatus
from ratchet_api.validate import chips
from ratchet_operator.decide import placement, stamps
from ratchet_operator.decide.plan_builder import PlanBuilder, revised


def note_tokens(builder: PlanBuilder, attempt: AttemptStatus) -> None:
    """Remembers how many tokens the trainer says that the present stage has generated. The count only rises."""
    report, position = builder.observed.report_of(attempt), builder.status.stage
    told = [report.said.stage] if report is not None else []
    told += [pod.exit.message.stage for pod in builder.observed.own_pods(attempt.number) if pod.exit is not None]
    before = builder.status.progress or Progress()
    counts = [before.generated_tokens or 0]
    counts += [s.generated_tokens or 0 for s in told if s is not None and position and s.index == position.index]
    if max(counts) > counts[0]:
        builder.revise(progress=revised(before, generated_tokens=max(counts)))


def booked(builder: PlanBuilder, stage: StageRecord) -> StageRecord:
    """The record of the present stage, which ends, with the chip seconds of the present attempt and of all workers that
    are not booked yet; the job's totals get them, too. To be put into status together with the end of the stage."""
    for held in (_of_attempt(builder), *_of_workers(builder)):
        stage = _booked(builder, stage, held)
    return stage


def book(builder: PlanBuilder) -> None:
    """Books what an attempt took whose last pod has ended; its record must not say so yet."""
    _book(builder, _of_attempt(builder))


def book_worker(builder: PlanBuilder, worker: WorkerStatus) -> None:
    """Books what a worker took that has ended, or is let go; its record must not say so yet."""
    _book(builder, _of_worker(builder, worker))


@dataclass(frozen=True)
class Held:
    """Chips that somebody holds, of what capacity, and since when."""

    capacity: str
    chips: int
    since: str


def _book(builder: PlanBuilder, held: Held | None) -> None:
    if builder.status.stages:
        *others, last = builder.status.stages
        builder.revise(stages=[*others, _booked(builder, last, held)])


def _booked(builder: PlanBuilder, stage: StageRecord, held: Held | None) -> StageRecord:
    """The stage with what was held in it; the job's totals get it, too."""
    seconds = math.ceil(_unbooked(builder, stage, held))
    if held is None or not seconds:
        return stage
    kind, taken = held.capacity, builder.counters.chip_seconds
    builder.revise(counters=revised(builder.counters, chip_seconds=taken | {kind: taken.get(kind, 0) + seconds}))
    return revised(stage, chip_seconds=(stage.chip_seconds or 0) + seconds)


def spent(builder: PlanBuilder, spec: Spec) -> str | None:
    """Why the present stage may cost no more, and the way out; None if it may, or is over."""
    stage, budget = _present(builder, spec)
    if stage is None or budget is None:
        return None
    tokens = builder.status.progress.generated_tokens or 0 if builder.status.progress else 0
    if budget.generated_tokens is not None and tokens >= budget.generated_tokens:
        return _words(stage, f"generated {tokens} tokens", f"generatedTokens {budget.generated_tokens}")
    return chips_spent(builder, spec)


def chips_spent(builder: PlanBuilder, spec: Spec) -> str | None:
    """The same of chip time alone, which passes while an attempt runs; wakes the operator when it will be over."""
    stage, budget = _present(builder, spec)
    if stage is None or budget is None or budget.chip_seconds is None:
        return None
    holders = [held for held in (_of_attempt(builder), *_of_workers(builder)) if held is not None]
    taken = (stage.chip_seconds or 0) + sum(_unbooked(builder, stage, held) for held in holders)
    if taken >= budget.chip_seconds:
        return _words(stage, f"taken {taken / 3600:.6g} chip hours", f"chipHours {budget.chip_hours}")
    if (rate := sum(held.chips for held in holders)) > 0:
        builder.wake_at(stamps.after(builder.observed.now, (budget.chip_seconds - taken) / rate))
    return None


def fails(builder: PlanBuilder, spec: Spec) -> bool:
    """Whether a spent budget of the present stage ends the job."""
    _, budget = _present(builder, spec)
    return budget is not None and budget.on_exceeded == "Fail"


def _present(builder: PlanBuilder, spec: Spec) -> tuple[StageRecord | None, Budget | None]:
    last = builder.status.stages[-1] if builder.status.stages else None
    if last is None or last.end_step is not None:
        return None, None
    return last, spec.budget(last.name)


def _words(stage: StageRecord, what: str, limit: str) -> str:
    return (
        f"stage {stage.name} is not over and has {what}; its budget in spec.budgets is {limit}: raise it or remove it"
    )


def _unbooked(builder: PlanBuilder, stage: StageRecord, held: Held | None) -> float:
    """Chip seconds of a holder in a stage, the last one that began, since it was last booked."""
    if held is None:
        return 0.0
    since: list[Any] = [held.since, stage.end_time or stage.start_time]
    begun = max(stamps.seconds(stamp) for stamp in since if stamp is not None)
    return max(0.0, stamps.seconds(builder.observed.now) - begun) * held.chips


def _of_attempt(builder: PlanBuilder) -> Held | None:
    """What the present attempt holds: nothing before all its pods run, and nothing once the last one has ended."""
    attempt, spec = builder.attempt, builder.observed.spec
    if attempt is None or spec is None or attempt.running_time is None or builder.settled() is not None:
        return None
    there = placement.of_name(spec, attempt.placement)
    return Held(there.capacity_name, chips(there), attempt.running_time)


def _of_workers(builder: PlanBuilder) -> list[Held | None]:
    fleet = builder.status.rollouts
    return [_of_worker(builder, worker) for worker in fleet.workers] if fleet is not None else []


def _of_worker(builder: PlanBuilder, worker: WorkerStatus) -> Held | None:
    """What a worker holds, once all its pods run and until its end is seen."""
    spec = builder.observed.spec
    if spec is None or spec.rollouts is None or worker.running_time is None or worker.end_time is not None:
        return None
    ladder = spec.rollouts.placements
    there = next((p for p in ladder if p.name == worker.placement), ladder[0])
    return Held(there.capacity_name, chips(there), worker.running_time)
