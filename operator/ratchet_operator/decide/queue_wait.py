"""Whether a queue holds the attempt's JobSet back, and from when on the attempt looks for nodes.

Kueue suspends a JobSet with a queue as it is created (its webhook does, so nobody ever sees it unsuspended), and
unsuspends it once its quota is there. Ratchet never suspends a JobSet. So one that is suspended before it had pods
waits in a queue; one that is suspended after that was evicted, which ends its attempt (`end_signs`), because the same
JobSet must not start pods twice.

The time in the queue is nobody's fault: `waitSeconds` of a placement and the patience with a start begin when the
JobSet is let go.
"""

from __future__ import annotations

from ratchet_api.status import AttemptStatus
from ratchet_operator.decide.observed_job import ObservedJob
from ratchet_operator.decide.observed_jobset import JobSet
from ratchet_operator.decide.plan_builder import PlanBuilder


def begin(builder: PlanBuilder, attempt: AttemptStatus) -> AttemptStatus:
    """Writes down that the JobSet, which was just seen created, is held back, if it is."""
    jobset = _jobset(builder.observed, attempt)
    if jobset is None or not jobset.suspended or builder.observed.own_pods(attempt.number):
        return attempt
    builder.event("Normal", "Queued", f"attempt {attempt.number}: JobSet {jobset.name} waits {_where(jobset)}")
    return builder.revise_attempt(attempt, queued_time=builder.observed.now)


def note_admission(builder: PlanBuilder, attempt: AttemptStatus) -> AttemptStatus:
    """Writes down when the JobSet was seen let go."""
    jobset = _jobset(builder.observed, attempt)
    if jobset is None or jobset.suspended or not _waits(attempt):
        return attempt
    builder.event("Normal", "Admitted", f"attempt {attempt.number}: JobSet {jobset.name} may start its pods")
    return builder.revise_attempt(attempt, admitted_time=builder.observed.now)


def held(observed: ObservedJob, attempt: AttemptStatus) -> JobSet | None:
    """The attempt's JobSet if it waits in a queue: it is suspended and has had no pods."""
    jobset = _jobset(observed, attempt)
    fresh = _waits(attempt) and not observed.own_pods(attempt.number)
    return jobset if jobset is not None and jobset.suspended and fresh else None


def evicted(observed: ObservedJob, attempt: AttemptStatus) -> JobSet | None:
    """The attempt's JobSet if somebody suspended it after it could start pods."""
    jobset = _jobset(observed, attempt)
    if jobset is None or not jobset.suspended or jobset.finished:
        return None
    return None if held(observed, attempt) is not None else jobset


def looks_for_nodes_since(attempt: AttemptStatus) -> str | None:
    """From when on its pods could be there; None while a queue holds them back or nothing is created."""
    return attempt.created_time if attempt.queued_time is None else attempt.admitted_time


def in_words(observed: ObservedJob, jobset: JobSet) -> str:
    """What a job in a queue waits for, and the command that says why it waits so long."""
    if jobset.queue is None:
        return (
            f"JobSet {jobset.name} is suspended though it names no queue: whatever suspended it must unsuspend it; "
            f"kubectl describe jobset {jobset.name} -n {observed.namespace} may say who it was"
        )
    return (
        f"JobSet {jobset.name} waits for quota {_where(jobset)}; what is in its way is said by kubectl describe "
        f"workloads.kueue.x-k8s.io -n {observed.namespace} -l kueue.x-k8s.io/job-uid={jobset.uid}"
    )


def _where(jobset: JobSet) -> str:
    return f"in queue {jobset.queue}" if jobset.queue is not None else "for whoever suspended it"


def _waits(attempt: AttemptStatus) -> bool:
    return attempt.queued_time is not None and attempt.admitted_time is None


def _jobset(observed: ObservedJob, attempt: AttemptStatus) -> JobSet | None:
    jobset = observed.own_jobset(attempt.number)
    return jobset if jobset is not None and jobset.uid == attempt.job_set_uid else None
