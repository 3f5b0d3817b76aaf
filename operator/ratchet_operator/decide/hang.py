"""Whether an attempt stands still: no phase of its life is without a clock.

* Pods that have nodes and do not all run: from the last one's binding, as long as a start may take.
* A trainer that answers tells how long its last sign of life is ago. Its own watchdog ends a hang at the deadline
  (`restart.progressDeadlineSeconds`); where that hangs, too, it is ended from here, at `HUNG_FACTOR` times that.
* A trainer that does not answer, because its process stands still or the network keeps the operator out: from its last
  answer, as long. Who only cannot be heard has the whole grace to commit, and loses nothing.

Waiting for quota, for nodes or for old pods has clocks of its own: `queue_wait`, `placement`, `fencing`.
"""

from __future__ import annotations

from ratchet_api.protocol import PORT
from ratchet_api.protocol.documents import ProgressDocument
from ratchet_api.status import AttemptStatus
from ratchet_operator.decide import stamps
from ratchet_operator.decide.observed_job import ObservedJob
from ratchet_operator.decide.sign import WHOLE_GRACE, Sign
from ratchet_operator.decide.verdict import Verdict

HUNG_FACTOR = 1.5
"""Of the deadline that the trainer's own watchdog keeps."""


def sign(observed: ObservedJob, attempt: AttemptStatus) -> Sign | None:
    """The sign that the attempt stands still, once it has for too long."""
    until = deadline(observed, attempt)
    if until is not None and observed.passed(until):
        return _too_late(observed, attempt)
    report = observed.report_of(attempt)
    return None if report is None else _by_its_own_word(report.said, observed)


def deadline(observed: ObservedJob, attempt: AttemptStatus) -> str | None:
    """When an attempt that does not start, or is not heard, stands still for too long; None while all is well."""
    if observed.spec is None:
        return None
    restart = observed.spec.restart
    if attempt.running_time is None:
        pods = observed.own_pods(attempt.number)
        bound = [pod.bound_at for pod in pods if pod.bound_at is not None]
        if not bound or len(bound) < attempt.pods_total:
            return None
        return stamps.after(max(bound, key=stamps.seconds), HUNG_FACTOR * restart.patience("start"))
    since = silent_since(observed, attempt)
    return None if since is None else stamps.after(since, HUNG_FACTOR * restart.patience(_phase(observed, attempt)))


def silent_since(observed: ObservedJob, attempt: AttemptStatus) -> str | None:
    """When the trainer of a running attempt was last heard, if that is long ago; None while it answers.

    An operator that was restarted has asked for a short while only: what the one before wrote down counts, too.
    """
    if attempt.running_time is None or attempt.ended_time is not None:
        return None
    before, silent = _noted(observed, attempt), observed.snapshot.silent_since
    if silent is None:
        return before if observed.report_of(attempt) is None else None
    return silent if before is None or stamps.seconds(silent) < stamps.seconds(before) else before


def _noted(observed: ObservedJob, attempt: AttemptStatus) -> str | None:
    """Since when status says that nothing is heard of this attempt."""
    said = next((c for c in observed.status.conditions if c.type == "Progressing"), None)
    if said is None or said.reason != "NoAnswer" or attempt.running_time is None:
        return None
    since = said.last_transition_time
    return since if stamps.seconds(since) >= stamps.seconds(stamps.whole(attempt.running_time)) else None


def in_words(observed: ObservedJob, attempt: AttemptStatus, since: str) -> str:
    """What is known of a trainer that does not answer, and what may be the matter."""
    until = deadline(observed, attempt)
    return (
        f"nothing was heard from the leader of attempt {attempt.number} since {stamps.whole(since)}: either it stands "
        f"still, or something keeps the operator from its port {PORT} (a network policy?)"
        + (f"; it is ended as hung at {stamps.whole(until)}" if until is not None else "")
    )


def _too_late(observed: ObservedJob, attempt: AttemptStatus) -> Sign:
    if attempt.running_time is None:
        late = [pod.name for pod in observed.own_pods(attempt.number) if not pod.running]
        shown = ", ".join(late[:3]) + (f" and {len(late) - 3} more" if len(late) > 3 else "")
        patience = HUNG_FACTOR * observed.spec.restart.patience("start") if observed.spec is not None else 0.0
        words = (
            f"pods with nodes do not run for {patience:.0f} s: {shown}; kubectl describe pod says what they wait for"
        )
        return Sign(Verdict.START_FAILED, words, None)
    since = silent_since(observed, attempt)
    assert since is not None, "there was a deadline"
    silence = stamps.between(since, observed.now)
    words = (
        f"the trainer has not answered for {silence:.0f} s, last in phase {_phase(observed, attempt)}: it stands "
        f"still, or its port {PORT} cannot be reached from the operator"
    )
    return Sign(Verdict.HUNG, words, WHOLE_GRACE)


def _by_its_own_word(said: ProgressDocument, observed: ObservedJob) -> Sign | None:
    age, phase = said.last_safe_point_age_seconds, said.phase
    if age is None or observed.spec is None or age < HUNG_FACTOR * observed.spec.restart.patience(phase):
        return None
    return Sign(Verdict.HUNG, f"the trainer has shown no sign of life for {age:.0f} s in phase {phase}", None)


def _phase(observed: ObservedJob, attempt: AttemptStatus) -> str:
    """What the trainer did when it was last heard; `start` where it never was."""
    report = observed.report_of(attempt)
    if report is not None:
        return str(report.said.phase)
    shown = observed.status.progress
    if shown is None or shown.phase is None or shown.updated_at is None or attempt.running_time is None:
        return "start"
    later: bool = stamps.seconds(shown.updated_at) > stamps.seconds(attempt.running_time)
    return shown.phase if later else "start"
