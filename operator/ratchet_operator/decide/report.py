"""What the trainer reports, and what of it is remembered: progress, checkpoint, steps lost, parts of a recovery.

Status never goes below what it recorded: after a loss without notice the trainer repeats a few steps, and the column
keeps showing the highest one. The repeated steps are counted where they belong, on the attempt that lost them.
"""

from __future__ import annotations

from ratchet_api.job import Spec
from ratchet_api.status import AttemptRecord, CheckpointStatus, ExactSince, Progress, RecoveryParts
from ratchet_operator.decide import stamps
from ratchet_operator.decide.draft import Draft, revised
from ratchet_operator.decide.views import Pod
from ratchet_operator.plan import Raw


def absorb(draft: Draft, spec: Spec) -> None:
    """Takes the present attempt's last answer into the draft."""
    attempt = draft.attempt
    assert attempt is not None
    answer = draft.world.progress_of(attempt.number, attempt.job_set_uid)
    if answer is None:
        return
    committed(draft, (answer.get("checkpoint") or {}).get("step"), answer.get("checkpoint"))
    since = answer.get("exactSince")
    if since is not None:
        draft.revise(exact_since=revised(ExactSince(step=since["step"]), reason=since["reason"][:1024]))
    _progress(draft, answer, spec)
    _restored(draft, answer)
    _recovered(draft, answer)


def committed(draft: Draft, step: int | None, checkpoint: Raw | None = None) -> None:
    """Remembers that a step is safe. Steps only count upwards."""
    known = draft.status.checkpoint
    if step is None or (known is not None and step <= known.step):
        return
    path = (checkpoint or {}).get("path")
    made = revised(CheckpointStatus(step=step), time=draft.world.now, path=path[:1024] if path else None)
    draft.revise(checkpoint=made)
    attempt = draft.attempt
    if attempt is not None and step > (attempt.start_step or 0) and draft.counters.disturbances_without_progress:
        draft.count(disturbances_without_progress=0)


def last_words(pods: tuple[Pod, ...]) -> int | None:
    """The highest step that a member says was committed when it left, whatever it left with."""
    steps = [
        pod.exit.message["step"]
        for pod in pods
        if pod.exit is not None and isinstance(pod.exit.message.get("step"), int)
    ]
    return max(steps, default=None)


def end_step(draft: Draft) -> int | None:
    """The last step that the present attempt reported, or said that it had committed when it left."""
    attempt = draft.attempt
    assert attempt is not None
    answer = draft.world.progress_of(attempt.number, attempt.job_set_uid)
    reported = answer.get("step") if answer is not None else _shown_by(draft)
    words = last_words(draft.world.own_pods(attempt.number))
    return max((step for step in (reported, words) if step is not None), default=None)


def _shown_by(draft: Draft) -> int | None:
    """What status still knows of the present attempt's reports, when a restarted operator has heard none itself."""
    attempt, shown = draft.attempt, draft.status.progress
    if attempt is None or shown is None or attempt.running_time is None or shown.updated_at is None:
        return None
    return shown.step if stamps.seconds(shown.updated_at) > stamps.seconds(attempt.running_time) else None


def _progress(draft: Draft, answer: Raw, spec: Spec) -> None:
    step = answer.get("step")
    if step is None:
        return
    before = draft.status.progress
    step = max(step, before.step if before else 0)
    target = answer.get("targetStep") or (before.target_step if before else None)
    after = revised(
        before or Progress(),
        step=step,
        target_step=target,
        text=f"{step}/{target}" if target is not None else str(step),
        phase=answer.get("phase"),
        reward=_decimal(answer.get("reward")) or (before.reward if before else None),
        accuracy=_decimal(answer.get("accuracy")) or (before.accuracy if before else None),
        tokens_per_second=_decimal(answer.get("tokensPerSecond")) or (before.tokens_per_second if before else None),
    )
    if after != before:
        completion = _completion(draft, step, target, spec)
        draft.revise(progress=revised(after, estimated_completion_time=completion, updated_at=draft.world.now))


def _completion(draft: Draft, step: int, target: int | None, spec: Spec) -> str | None:
    """When the last declared stage would reach its limit at this attempt's average speed."""
    attempt, stage = draft.attempt, draft.status.stage
    if attempt is None or stage is None or attempt.running_time is None or target is None:
        return None
    made = step - (attempt.start_step or 0)
    took = stamps.between(attempt.running_time, draft.world.now)
    if made <= 0 or took <= 0:
        return None
    left = max(0, target - step) + sum(s.advance.steps for s in spec.stages[stage.index + 1 :])
    at = stamps.seconds(draft.world.now) + left * took / made
    return stamps.whole(stamps.stamp(at)) if left * took / made < 10 * 365 * 86_400 else None


def _restored(draft: Draft, answer: Raw) -> None:
    """Learns which step the attempt went on from, and so what the ones before it lost."""
    attempt = draft.attempt
    assert attempt is not None
    origin = answer.get("startStep")
    if origin is None:
        return  # it has not restored yet
    open_records = [r for r in draft.status.attempts if r.steps_lost is None and r.number < attempt.number]
    if origin > (attempt.start_step or 0):
        draft.revise_attempt(start_step=origin)
        draft.count(disturbances_without_progress=0)  # the one before had committed more than it could tell
    if origin:
        committed(draft, origin)
    for record in open_records:
        lost = max(0, (record.end_step or 0) - origin)
        draft.put_record(revised(record, steps_lost=lost))
        if lost:
            draft.count(steps_lost=draft.counters.steps_lost + lost)


def recovering(draft: Draft) -> AttemptRecord | None:
    """The record whose recovery the present attempt is."""
    attempt = draft.attempt
    for record in reversed(draft.status.attempts):
        if attempt is not None and record.number < attempt.number and record.verdict != "Unschedulable":
            return record if record.recovery is not None else None
    return None


def milestones(draft: Draft) -> None:
    """Writes down the parts of a recovery that the operator's own stamps give."""
    attempt, record = draft.attempt, recovering(draft)
    if attempt is None or record is None or record.recovery is None:
        return
    parts = record.recovery
    if parts.fence is None and record.final_time is not None and attempt.created_time is not None:
        parts = revised(parts, fence=_span(record.final_time, attempt.created_time))
    if parts.place is None and attempt.created_time is not None and attempt.running_time is not None:
        parts = revised(parts, place=_span(attempt.created_time, attempt.running_time))
    if parts != record.recovery:
        draft.put_record(revised(record, recovery=parts))


def detected(sign: str | None, now: str) -> RecoveryParts:
    """The first part of a recovery, from the sign's own stamp (which may be a kubelet's, so never negative) to now."""
    if sign is None:
        return revised(RecoveryParts(), detect="0")
    # Conditions are stamped in whole seconds: what they tell of happened half a second later on average.
    return revised(RecoveryParts(), detect=_span(sign if "." in sign else stamps.after(sign, 0.5), now))


def _recovered(draft: Draft, answer: Raw) -> None:
    record, parts = recovering(draft), answer.get("parts") or {}
    if record is None or record.recovery is None or record.recovery.total is not None or parts.get("step") is None:
        return
    milestones(draft)
    record = recovering(draft)
    assert record is not None
    assert record.recovery is not None
    assert record.end_time is not None
    since_seen = stamps.between(record.end_time, answer["receivedAt"])
    told = {name: _decimal(parts.get(name)) for name in ("start", "restore", "compile", "step")}
    total = _decimal(round(since_seen + float(record.recovery.detect or 0), 3))
    draft.put_record(revised(record, recovery=revised(record.recovery, **told, total=total)))


def _span(earlier: str, later: str) -> str:
    return f"{stamps.between(earlier, later):g}"


def _decimal(value: float | None) -> str | None:
    return None if value is None else f"{value:.6g}"
