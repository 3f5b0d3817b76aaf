"""One pass over one job, top to bottom: what is there, what that means, what is to be done.

A function of the snapshot alone. It decides nothing by itself but the order of questions; each answer is in the file
named for it. The present attempt is followed first (it may end here), then what remains of earlier ones is cleared
away, then the next attempt is authorized and created if nothing speaks against it; several of these may happen in one
pass.
"""

from __future__ import annotations

from ratchet_api.job import Spec
from ratchet_api.status import AttemptStatus
from ratchet_operator.decide import (
    acceptance,
    attempts,
    budget,
    conditions,
    fencing,
    placement,
    report,
    stages,
    verdict,
)
from ratchet_operator.decide.draft import Draft, revised
from ratchet_operator.decide.world import World
from ratchet_operator.plan import Plan
from ratchet_operator.snapshot import Snapshot


def decide(snapshot: Snapshot) -> Plan:
    """What to do about one job. Deterministic; applying the plan and deciding again gives an empty plan."""
    world = World.read(snapshot)
    draft = Draft.of(world)
    if world.deleting or conditions.finished(world.status):
        return Plan()  # what belongs to a deleted job goes with it; what a finished one left is kept for reading
    if world.spec is None:
        # Admitted by an older or newer CRD. A running attempt is left alone: nothing here understands what it runs.
        conditions.refuse(draft, world.problems)
        return draft.plan()
    spec = world.spec
    problems = acceptance.problems(spec, snapshot.values)
    if not problems:
        attempts.remember(draft, spec)
    if draft.attempt is not None and not _settled(draft):
        _follow(draft, spec)
    _reconsider(draft, spec)
    _go_on(draft, spec, accepted=not problems)
    fencing.sweep(draft)
    conditions.judge(draft, problems, suspend=spec.suspend)
    return draft.plan()


def _follow(draft: Draft, spec: Spec) -> None:
    """Follows the present attempt from its JobSet to its end."""
    attempt = draft.attempt
    assert attempt is not None
    if attempt.job_set_uid is None and attempt.ended_time is None:
        attempts.adopt(draft)
        if draft.attempt is None or (draft.attempt.job_set_uid is None and draft.attempt.ended_time is None):
            return  # `_go_on` creates it
    report.absorb(draft, spec)
    stages.absorb(draft, spec)
    budget.forgive(draft, spec)
    attempt = draft.attempt
    assert attempt is not None
    found = verdict.signs(draft.world, attempt, finishing=stages.over(draft.status))
    if attempt.ended_time is None:
        attempts.watch(draft)
        if not found and spec.suspend:
            found = [attempts.suspension()]
        if not found and (full := placement.gave_up(draft, spec)) is not None:
            found = [full]
        if not found:
            stages.say_word(draft, spec)
            return
        attempts.end(draft, found)
    attempts.follow_end(draft, found)


def _reconsider(draft: Draft, spec: Spec) -> None:
    """Judges ended attempts again while their verdicts are provisional."""
    for record in draft.status.attempts[-2:]:
        attempt = draft.attempt
        if not budget.provisional(draft, record, spec):
            continue
        # Seen from its end: what happened to its pods since then was our doing.
        past = revised(AttemptStatus(number=record.number), ended_time=record.end_time)
        found = verdict.signs(draft.world, past, finishing=stages.over(draft.status))
        if attempt is not None and attempt.number > record.number:
            found = [sign for sign in found if sign.verdict != "Completed"]
        if found:
            budget.judge(draft, record, verdict.strongest(found))


def _go_on(draft: Draft, spec: Spec, *, accepted: bool) -> None:
    """Authorizes the next attempt when the present one is settled, and creates what was authorized."""
    if _settled(draft) and not _may_follow(draft, spec):
        return
    if draft.attempt is not None and draft.attempt.job_set_uid is not None and not _settled(draft):
        return
    if spec.suspend:
        draft.wait("Suspended", "set spec.suspend to false to go on")
        return
    if not accepted:
        draft.wait("NotAccepted", "correct the spec; see the condition Accepted")
        return
    if draft.attempt is None or _settled(draft):
        attempts.authorize(draft, spec)
    assert draft.attempt is not None
    if draft.attempt.ended_time is None and draft.attempt.job_set_uid is None:
        attempts.start(draft, spec)


def _may_follow(draft: Draft, spec: Spec) -> bool:
    """Whether there is to be another attempt now; ends the job when there is never to be one."""
    assert draft.attempt is not None
    record = draft.record(draft.attempt.number)
    assert record is not None
    if record.verdict == "Completed":
        step = draft.status.stages[-1].end_step if draft.status.stages else None
        conditions.finish(draft, "Completed", "AllStagesDone", f"all stages are done at step {step}")
        return False
    spent = budget.exhausted(draft, record, spec)
    if spent is not None:
        if record.verdict not in budget.TERMINAL and budget.provisional(draft, record, spec):
            draft.wake_at(budget.final(record))
            draft.wait("JudgingFailure", "the failure budget is spent; late evidence may still change the last verdict")
            return False
        conditions.finish(draft, "Failed", *spent)
        return False
    until = None if spec.suspend else budget.back_off_until(draft, record)
    if until is not None and not draft.world.passed(until):
        draft.wake_at(until)
        draft.wait("BackingOff", f"attempt {record.number} ended ({record.verdict}); the next one starts at {until}")
        return False
    return True


def _settled(draft: Draft) -> bool:
    """Whether the present attempt has ended with all its pods, as far as anybody can tell."""
    record = draft.record(draft.attempt.number) if draft.attempt is not None else None
    return record is not None and record.final_time is not None
