"""How long a recovery took, and where its seconds went: detect, drain, fence, place, start, restore, compile, step.

The first four are the operator's own stamps, the rest is what the trainer says; they stand on the record of the
attempt that was disturbed.
"""

from __future__ import annotations

from ratchet_api.status import AttemptRecord, AttemptStatus, RecoveryParts
from ratchet_operator.decide import stamps
from ratchet_operator.decide.observed_job import Report
from ratchet_operator.decide.plan_builder import PlanBuilder, revised
from ratchet_operator.decide.verdict import Verdict


def recovering_from(builder: PlanBuilder, attempt: AttemptStatus) -> AttemptRecord | None:
    """The record whose recovery the present attempt is."""
    for record in reversed(builder.status.attempts):
        if record.number < attempt.number and record.verdict != Verdict.UNSCHEDULABLE:
            return record if record.recovery is not None else None
    return None


def detected(sign: str | None, now: str) -> RecoveryParts:
    """The first part of a recovery, from the sign's own stamp (which may be a kubelet's, so never negative) to now."""
    if sign is None:
        return revised(RecoveryParts(), detect="0")
    # Conditions are stamped in whole seconds: what they tell of happened half a second later on average.
    return revised(RecoveryParts(), detect=_span(sign if "." in sign else stamps.after(sign, 0.5), now))


def note_milestones(builder: PlanBuilder, attempt: AttemptStatus) -> None:
    """Writes down the parts of a recovery that the operator's own stamps give."""
    record = recovering_from(builder, attempt)
    if record is not None and record.recovery is not None:
        parts = _with_milestones(record.recovery, record, attempt)
        if parts != record.recovery:
            builder.put_record(revised(record, recovery=parts))


def close(builder: PlanBuilder, attempt: AttemptStatus, report: Report) -> None:
    """Writes down the trainer's parts and the whole, once the first step is done."""
    record, told = recovering_from(builder, attempt), report.said.parts or {}
    if record is None or record.recovery is None or record.end_time is None:
        return
    if record.recovery.total is not None or told.get("step") is None:
        return
    parts = _with_milestones(record.recovery, record, attempt)
    total = round(stamps.between(record.end_time, report.received_at) + float(parts.detect or 0), 3)
    own = {name: _decimal(told.get(name)) for name in ("start", "restore", "compile", "step")}
    builder.put_record(revised(record, recovery=revised(parts, **own, total=_decimal(total))))


def _with_milestones(parts: RecoveryParts, record: AttemptRecord, attempt: AttemptStatus) -> RecoveryParts:
    if parts.fence is None and record.final_time is not None and attempt.created_time is not None:
        parts = revised(parts, fence=_span(record.final_time, attempt.created_time))
    if parts.place is None and attempt.created_time is not None and attempt.running_time is not None:
        parts = revised(parts, place=_span(attempt.created_time, attempt.running_time))
    return parts


def _span(earlier: str, later: str) -> str:
    return f"{stamps.between(earlier, later):g}"


def _decimal(value: float | None) -> str | None:
    return None if value is None else f"{value:.6g}"
