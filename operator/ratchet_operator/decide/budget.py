"""What a verdict costs, when costs are forgiven or given back, and when a job has spent too much.

Capacity that was taken away and failures of the job itself are two budgets: the first has no limit unless the
manifest sets one, the second is small and forgiven once an attempt has been healthy for long enough. A verdict may
still change for two minutes after the end, because evidence of a lost machine can come late; then the charge moves
with it. Restarting never waits for that, only giving up does.
"""

from __future__ import annotations

from ratchet_api.job import Spec
from ratchet_api.status import AttemptRecord
from ratchet_operator.decide import stamps
from ratchet_operator.decide.draft import Draft, revised
from ratchet_operator.decide.verdict import ANNOUNCED, Sign, stronger

PREEMPTIONS, FAILURES, NOTHING = "preemptions", "failures", "nothing"

CHARGES = {
    "Preempted": PREEMPTIONS,
    "Maintenance": PREEMPTIONS,
    "NodeLost": PREEMPTIONS,
    "AdmissionRejected": PREEMPTIONS,
    "Evicted": PREEMPTIONS,
    "QueueEvicted": PREEMPTIONS,
    "StartFailed": FAILURES,
    "OutOfMemory": FAILURES,
    "ApplicationFailed": FAILURES,
    "Hung": FAILURES,
}
"""Verdict -> budget; every other verdict costs nothing."""

TERMINAL = {
    "ConfigurationInvalid": "the configuration is wrong; correct it and create the job again",
    "DeterministicFailure": "a repetition would fail in the same way; read the trainer's log of the last attempt",
    "CheckpointUnreadable": "no checkpoint can be read, and starting over would lose the work; look at "
    "checkpoint.directory before creating the job again",
}
"""Verdict after which no further attempt can help -> what to do."""

PROVISIONAL_SECONDS = 120.0
"""How long after the last pod's end a verdict may still change."""

STALLED_AFTER = 3
"""Disturbances in a row without a new step."""
BACK_OFF_SECONDS, BACK_OFF_MOST = 30.0, 600.0
NO_DISTURBANCE = ("Completed", "Unschedulable")
FOLLOWS_FROM_NO_ROOM = ("Drained", "PeerLost", "Fenced")
"""How members leave that waited in vain for those without a node: no reason to forget that there was no room."""


def judge(draft: Draft, record: AttemptRecord, sign: Sign) -> None:
    """Writes the verdict into the record if it is the first or a stronger one, and moves the charge with it."""
    if record.charged_to is not None and not stronger(sign.verdict, record.verdict):
        return
    if record.charged_to is not None and record.verdict == "Unschedulable" and sign.verdict in FOLLOWS_FROM_NO_ROOM:
        return
    charge = _charge(draft, record, sign.verdict)
    before, counters = record.charged_to, draft.counters
    if before in (PREEMPTIONS, FAILURES):
        draft.count(**{before: max(0, getattr(counters, before) - 1)})
    if charge in (PREEMPTIONS, FAILURES):
        draft.count(**{charge: getattr(draft.counters, charge) + 1})
    draft.put_record(
        revised(
            record,
            verdict=sign.verdict,
            evidence=sign.evidence[:1024],
            charged_to=charge,
            notice=ANNOUNCED.get(sign.verdict, "none"),
        )
    )
    if draft.attempt is not None and draft.attempt.number == record.number:
        draft.revise_attempt(verdict=sign.verdict, evidence=sign.evidence[:1024])
    ending = "ended" if before is None else f"is now judged {sign.verdict}, not {record.verdict}"
    cost = "" if charge == NOTHING else f" (charged to {charge})"
    draft.event(
        "Normal" if charge == NOTHING else "Warning",
        sign.verdict,
        f"attempt {record.number} {ending}: {sign.evidence[:900]}{cost}",
    )


def _charge(draft: Draft, record: AttemptRecord, verdict: str) -> str:
    if verdict != "PeerLost":
        return CHARGES.get(verdict, NOTHING)
    attempt = draft.attempt
    if attempt is not None and attempt.number == record.number and attempt.running_time is None:
        return NOTHING  # the peer was never there: that is the cluster's doing, not the job's
    # One lost peer without any trace of what took it may be the network; two in a row without a step are a failure.
    before = [r for r in draft.status.attempts if r.number < record.number]
    again = bool(before) and before[-1].verdict == "PeerLost" and draft.counters.disturbances_without_progress > 0
    return FAILURES if again else NOTHING


def final(record: AttemptRecord) -> str:
    """When the verdict of an attempt whose pods have all ended can no longer change."""
    assert record.final_time is not None
    return stamps.after(record.final_time, PROVISIONAL_SECONDS)


def provisional(draft: Draft, record: AttemptRecord, spec: Spec) -> bool:
    """Whether later evidence may still change this verdict."""
    if record.final_time is None:
        return True
    if draft.world.passed(final(record)):
        return False
    return not (draft.attempt is not None and draft.attempt.number > record.number and healthy(draft, spec))


def healthy(draft: Draft, spec: Spec) -> bool:
    """Whether the present attempt has made `restart.healthySteps` steps by its own account.

    `status.progress` never falls, so after a loss it shows steps that the attempt has yet to repeat.
    """
    attempt = draft.attempt
    if attempt is None or attempt.start_step is None or attempt.running_time is None:
        return False
    answer = draft.world.progress_of(attempt.number, attempt.job_set_uid) or {}
    if answer.get("step") is None or answer.get("phase") in ("start", "restore"):
        return False
    return int(answer["step"]) - attempt.start_step >= spec.restart.healthy_steps


def forgive(draft: Draft, spec: Spec) -> None:
    """Forgets failures once an attempt has been healthy."""
    if draft.counters.failures and healthy(draft, spec):
        draft.count(failures=0)


def exhausted(draft: Draft, record: AttemptRecord, spec: Spec) -> tuple[str, str] | None:
    """Why no further attempt is made, as reason and message of the condition Failed; None if one may be made."""
    if record.verdict in TERMINAL:
        return record.verdict, f"attempt {record.number}: {record.evidence}; {TERMINAL[record.verdict]}"
    counters, restart = draft.counters, spec.restart
    if counters.failures > restart.failure_limit:
        return "FailureLimitExceeded", (
            f"{counters.failures} failures exceed restart.failureLimit {restart.failure_limit}; the last one: "
            f"{record.verdict}, {record.evidence}; read the log of the last attempt's pods"
        )
    if restart.preemption_limit is not None and counters.preemptions > restart.preemption_limit:
        return "PreemptionLimitExceeded", (
            f"{counters.preemptions} preemptions exceed restart.preemptionLimit {restart.preemption_limit}; "
            "raise it, or add a placement that is not taken away"
        )
    return None


def back_off_until(draft: Draft, record: AttemptRecord) -> str | None:
    """When the next attempt may start at the earliest; None: at once."""
    if record.final_time is None:
        return None
    rounds = draft.counters.disturbances_without_progress - STALLED_AFTER
    if record.verdict == "StorageUnavailable":
        rounds = max(rounds, _storage_failures(draft) - 1)
    if rounds < 0:
        return None
    return stamps.after(record.final_time, min(BACK_OFF_MOST, BACK_OFF_SECONDS * 2.0 ** min(rounds, 10)))


def _storage_failures(draft: Draft) -> int:
    count = 0
    for record in reversed(draft.status.attempts):
        if record.verdict != "StorageUnavailable":
            break
        count += 1
    return count
