"""Parts of the document that follow from the job object alone.

Decides what counts as unknown: everything that an older operator did not write.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ratchet_api.protocol import SLOW_PHASES
from ratchet_cli.job_view.document import (
    AttemptView,
    CheckpointView,
    LearningView,
    PlaceView,
    ProgressView,
    StageView,
)
from ratchet_cli.job_view.words import seconds_between
from ratchet_cli.kube.parts import at, each, moment, number, text, whole

Object = dict[str, Any]
NEW = "New"
"""Phase of a job that no operator has looked at yet."""


def phase(job: Object) -> str:
    """status.phase; NEW where there is none."""
    return text(job, "status", "phase") or NEW


def conditions(job: Object) -> dict[str, Object]:
    """Conditions by type."""
    return {kind: c for c in each(job, "status", "conditions") if (kind := text(c, "type"))}


def holds(job: Object, condition: str) -> bool:
    """Whether a condition is True."""
    return text(conditions(job).get(condition), "status") == "True"


def stage_index(job: Object) -> int | None:
    """Position of the present stage."""
    return whole(job, "status", "stage", "index")


def stages(job: Object) -> tuple[StageView, ...]:
    """Stages as the spec has them, with what became of them."""
    records = {index: r for r in each(job, "status", "stages") if (index := whole(r, "index")) is not None}
    approved = {text(a, "stage") for a in each(job, "spec", "approvals")}
    found = []
    for index, stage in enumerate(each(job, "spec", "stages")):
        record = records.get(index, {})
        name, end = text(stage, "name") or str(index), whole(record, "endStep")
        found.append(
            StageView(
                name=name,
                kind=_kind(stage),
                state="done" if end is not None else "current" if index in records else "ahead",
                limit=whole(stage, "advance", "steps"),
                start_step=whole(record, "startStep"),
                end_step=end,
                rule=text(record, "rule"),
                needs_approval=at(record, "needsApproval") is True,
                approved=name in approved,
            )
        )
    return tuple(found)


def _kind(stage: Object) -> str:
    if at(stage, "rl") is not None:
        return text(stage, "rl", "method") or "grpo"
    return next((kind for kind in ("sft", "curate") if at(stage, kind) is not None), "?")


def attempt(job: Object, now: datetime) -> AttemptView | None:
    """The present attempt."""
    here = at(job, "status", "attempt")
    count = whole(here, "number")
    if count is None:
        return None
    return AttemptView(
        number=count,
        placement=text(here, "placement"),
        pods_ready=whole(here, "podsReady"),
        pods_total=whole(here, "podsTotal"),
        age_seconds=seconds_between(moment(here, "runningTime") or moment(here, "startTime"), now),
        verdict=text(here, "verdict"),
        evidence=text(here, "evidence"),
    )


def place(job: Object) -> PlaceView | None:
    """The placement of the present attempt, else the first one."""
    placements = list(each(job, "spec", "placements"))
    wanted = text(job, "status", "attempt", "placement")
    chosen = next((p for p in placements if text(p, "name") == wanted), placements[0] if placements else None)
    if chosen is None:
        return None
    slices = whole(chosen, "slices") or 1
    hosts, chips = _shape(chosen)
    return PlaceView(
        placement=text(chosen, "name") or "?",
        capacity=text(chosen, "capacity") or text(chosen, "computeClass") or _default_capacity(chosen),
        accelerator=text(chosen, "accelerator"),
        topology=text(chosen, "topology"),
        slices=slices,
        hosts=None if hosts is None else hosts * slices,
        chips=None if chips is None else chips * slices,
    )


def _default_capacity(placement: Object) -> str | None:
    return "OnDemand" if at(placement, "accelerator") is not None else None


def _shape(placement: Object) -> tuple[int | None, int | None]:
    """Hosts and chips of one slice."""
    if at(placement, "cpu") is not None:
        return whole(placement, "cpu", "hosts") or 1, 0
    hosts, each_host = whole(placement, "hosts"), whole(placement, "chipsPerNode")
    if hosts is not None:
        return hosts, hosts * each_host if each_host else None
    from ratchet_api.tpu_topologies import ImpossibleShape, shape

    try:
        found = shape(text(placement, "accelerator") or "", text(placement, "topology") or "", each_host)
    except (ImpossibleShape, ValueError, KeyError):
        return None, None
    return found.hosts, found.chips


def progress(job: Object, said: Mapping[str, Any] | None, now: datetime) -> ProgressView | None:
    """How far it is; `said` is the leader's own answer, which is newer than status."""
    known = at(job, "status", "progress")
    if not isinstance(known, dict) and said is None:
        return None
    steps = [s for s in (whole(known, "step"), whole(said, "step")) if s is not None]
    step = max(steps, default=None)
    target = whole(said, "targetStep") or whole(known, "targetStep")
    start = whole(job, "status", "stage", "startStep") or 0
    share = (step - start) / (target - start) if step is not None and target is not None and target > start else None
    active = phase(job) in ("Running", "Recovering", "Placing", NEW)
    doing = text(said, "phase") or text(known, "phase")
    warming = active and doing in SLOW_PHASES  # an estimate would rest on steps that are made again
    moves = phase(job) in ("Running", "Completed", "Failed")
    updated = moment(known, "updatedAt")
    return ProgressView(
        source="status" if said is None else "trainer",
        step=step,
        target_step=target,
        share=None if share is None else min(1.0, max(0.0, share)),
        doing=doing if active else None,
        tokens_per_second=number(said, "tokensPerSecond") or number(known, "tokensPerSecond") if moves else None,
        steps_per_second=steps_per_second(job) if moves and not warming else None,
        seconds_left=seconds_left(job, now) if not warming else None,
        said_seconds_ago=0.0 if said is not None else seconds_between(updated, now),
    )


def seconds_left(job: Object, now: datetime) -> float | None:
    """Until the last stage reaches its limit, as the operator estimates it; None while nothing runs."""
    known = at(job, "status", "progress")
    if phase(job) != "Running" or text(known, "phase") in SLOW_PHASES:
        return None
    return seconds_between(now, moment(known, "estimatedCompletionTime"))


def steps_per_second(job: Object) -> float | None:
    """Mean speed of the present attempt, its start included: what the estimate of the completion rests on, too."""
    here, known = at(job, "status", "attempt"), at(job, "status", "progress")
    took = seconds_between(moment(here, "runningTime"), moment(known, "updatedAt"))
    made = (whole(known, "step") or 0) - (whole(here, "startStep") or 0)
    return made / took if took and made > 0 else None


def learning(job: Object, said: Mapping[str, Any] | None, curves: Any) -> LearningView:
    """Whether it learns."""
    condition = conditions(job).get("Learning")
    known = at(job, "status", "progress")
    newer = at(said, "learning")
    source = newer if isinstance(newer, dict) and text(newer, "status") else condition
    return LearningView(
        status=known_status(text(source, "status")),
        reason=text(source, "reason"),
        message=text(source, "message") or None,
        reward=_either(number(said, "reward"), number(known, "reward")),
        accuracy=_either(number(said, "accuracy"), number(known, "accuracy")),
        curves=curves or None,
    )


def known_status(said: str | None) -> str:
    """True, False or Unknown."""
    return said if said in ("True", "False") else "Unknown"


def _either(first: float | None, second: float | None) -> float | None:
    return second if first is None else first


def checkpoint(job: Object, now: datetime) -> CheckpointView | None:
    """The newest committed checkpoint."""
    known = at(job, "status", "checkpoint")
    step = whole(known, "step")
    if step is None:
        return None
    return CheckpointView(step, seconds_between(moment(known, "time"), now), text(known, "path"))
