"""What the present stage has cost, and whether its budget (`spec.budgets`) is spent.

Tokens are counted by the trainer, which leaves by itself when they are spent; here its count is remembered, and no
attempt starts before the budget is raised. Chip seconds are counted here: of an attempt from when all its pods ran to
when the last one had ended, times the chips of its placement. They are booked where an attempt or a stage ends; what
is not booked yet follows from the stamps in status, so nothing is written meanwhile.
"""

from __future__ import annotations

import math
from typing import Any

from ratchet_api.budgets import Budget
from ratchet_api.job import Spec
from ratchet_api.status import AttemptStatus, Progress, StageRecord
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
    """The record of the present stage with the chip seconds of the present attempt that are not booked yet. To be put
    into status together with the end of the stage or of the attempt."""
    seconds = _unbooked(builder, stage)
    return stage if not seconds else revised(stage, chip_seconds=(stage.chip_seconds or 0) + math.ceil(seconds))


def book(builder: PlanBuilder) -> None:
    """Books what an attempt took whose last pod has ended; its record must not say so yet."""
    if builder.status.stages:
        *others, last = builder.status.stages
        builder.revise(stages=[*others, booked(builder, last)])


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
    taken = (stage.chip_seconds or 0) + _unbooked(builder, stage)
    if taken >= budget.chip_seconds:
        return _words(stage, f"taken {taken / 3600:.6g} chip hours", f"chipHours {budget.chip_hours}")
    if (chips := _chips(builder)) > 0:
        builder.wake_at(stamps.after(builder.observed.now, (budget.chip_seconds - taken) / chips))
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


def _unbooked(builder: PlanBuilder, stage: StageRecord) -> float:
    """Chip seconds of the present attempt in a stage, the last one that began, since it was last booked."""
    attempt, chips = builder.attempt, _chips(builder)
    if attempt is None or not chips:
        return 0.0
    since: list[Any] = [attempt.running_time, stage.end_time or stage.start_time]
    begun = max(stamps.seconds(stamp) for stamp in since if stamp is not None)
    return max(0.0, stamps.seconds(builder.observed.now) - begun) * chips


def _chips(builder: PlanBuilder) -> int:
    """Chips that the present attempt holds: none before all its pods run, and none once the last one has ended."""
    attempt, spec = builder.attempt, builder.observed.spec
    if attempt is None or spec is None or attempt.running_time is None or builder.settled() is not None:
        return 0
    return chips(placement.of_name(spec, attempt.placement))
