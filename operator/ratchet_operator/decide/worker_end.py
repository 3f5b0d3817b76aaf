"""Why a worker of the fleet ended, and what follows from that.

The evidence is read as for trainers (`end_signs`, `own_end`), but no fence and no budget hangs on it: a worker that is
lost costs a sample, never a step. So the table has three answers. What takes a machine away is answered at once and
costs nothing; an end of the worker's own is answered after a back-off that grows with every one in a row; and three
exit codes say besides that a repetition will find the same. One worker's say so never ends the job (its machine may be
the reason), all workers' does (`rollouts.hopeless`).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from ratchet_api.status import WorkerStatus
from ratchet_operator.decide import stamps
from ratchet_operator.decide.end_signs import disruptions
from ratchet_operator.decide.observed_job import ObservedJob
from ratchet_operator.decide.observed_jobset import JobSet
from ratchet_operator.decide.observed_pod import Pod
from ratchet_operator.decide.own_end import ends_of_its_own
from ratchet_operator.decide.sign import WHOLE_GRACE, Sign
from ratchet_operator.decide.verdict import Verdict, known


class Answer(StrEnum):
    """What follows from the end of a worker."""

    AT_ONCE = "at once"
    """The next one starts at once."""
    BACK_OFF = "after a back-off"
    """It failed: the next one waits, the longer the oftener it did."""
    HOPELESS = "after a back-off; all workers so three times running end the job"
    """It failed in a way that a repetition would repeat."""


TABLE: dict[Verdict, Answer] = {
    Verdict.COMPLETED: Answer.AT_ONCE,
    Verdict.PREEMPTED: Answer.AT_ONCE,
    Verdict.MAINTENANCE: Answer.AT_ONCE,
    Verdict.NODE_LOST: Answer.AT_ONCE,
    Verdict.ADMISSION_REJECTED: Answer.AT_ONCE,
    Verdict.EVICTED: Answer.AT_ONCE,
    Verdict.QUEUE_EVICTED: Answer.AT_ONCE,
    Verdict.DELETED: Answer.AT_ONCE,
    Verdict.UNSCHEDULABLE: Answer.AT_ONCE,
    Verdict.CONFIGURATION_INVALID: Answer.HOPELESS,
    Verdict.DETERMINISTIC_FAILURE: Answer.HOPELESS,
    Verdict.CHECKPOINT_UNREADABLE: Answer.HOPELESS,
    Verdict.TAKEN_OVER: Answer.BACK_OFF,
    Verdict.STORAGE_UNAVAILABLE: Answer.BACK_OFF,
    Verdict.ACCELERATOR_UNAVAILABLE: Answer.BACK_OFF,
    Verdict.START_FAILED: Answer.BACK_OFF,
    Verdict.OUT_OF_MEMORY: Answer.BACK_OFF,
    Verdict.HUNG: Answer.BACK_OFF,
    Verdict.APPLICATION_FAILED: Answer.BACK_OFF,
    Verdict.WORKERS_FAILED: Answer.BACK_OFF,
    Verdict.FENCED: Answer.BACK_OFF,
    # It left by itself with nothing on its machine that says why: a worker may (a stage that its job file does not
    # know), but one that does so again and again must not be started without a pause.
    Verdict.DRAINED: Answer.BACK_OFF,
    Verdict.PEER_LOST: Answer.BACK_OFF,
}
"""Every verdict has a row; a test holds the table to that."""

HEALTHY_SECONDS = 300.0
"""A worker that ran for so long has shown that it can: what it failed with before is forgotten."""
BACK_OFF_SECONDS, BACK_OFF_MOST = 5.0, 600.0
PAUSE_SECONDS = 5.0
"""Between two starts of a worker at least, whatever ended it: what takes it away at once would do so again."""


def signs_of_an_end(observed: ObservedJob, worker: WorkerStatus, jobset: JobSet | None) -> list[Sign]:
    """Everything that says that a worker whose JobSet was seen has ended or is ending; empty while all is well."""
    pods = observed.worker_pods(worker.worker, worker.attempt)
    found = [sign for pod in pods for sign in disruptions(pod, observed)]
    found += [sign for pod in pods for sign in ends_of_its_own(pod, observed, worker.created_time, finishing=False)]
    return found or [*_deleted(observed, worker, jobset, pods)]


def _deleted(
    observed: ObservedJob, worker: WorkerStatus, jobset: JobSet | None, pods: tuple[Pod, ...]
) -> Iterator[Sign]:
    gone = next((pod for pod in pods if pod.deletion is not None and pod.disruption is None), None)
    if jobset is None or jobset.deleting:
        yield Sign(Verdict.DELETED, f"its JobSet was deleted (attempt {worker.attempt})", WHOLE_GRACE)
    elif gone is not None:
        yield Sign(Verdict.DELETED, f"pod {gone.name} was deleted", WHOLE_GRACE)
    elif len(pods) < worker.pods_total and (worker.running_time is not None or jobset.failed is not None):
        yield Sign(Verdict.DELETED, f"{worker.pods_total - len(pods)} of {worker.pods_total} pods have vanished", None)
    elif jobset.failed is not None:
        yield Sign(Verdict.APPLICATION_FAILED, f"JobSet {jobset.name} failed: {jobset.failed.get('message', '')}", None)


def counted(worker: WorkerStatus, verdict: Verdict, now: str) -> dict[str, int]:
    """`failures` and `hopeless` of a worker after an end."""
    ran = worker.running_time is not None and stamps.between(worker.running_time, now) >= HEALTHY_SECONDS
    failures, hopeless = (0, 0) if ran else (worker.failures, worker.hopeless)
    match TABLE[verdict]:
        case Answer.HOPELESS:
            return {"failures": failures + 1, "hopeless": hopeless + 1}
        case Answer.BACK_OFF:
            return {"failures": failures + 1, "hopeless": 0}
        case Answer.AT_ONCE:
            return {"failures": failures, "hopeless": hopeless}


def next_start(worker: WorkerStatus) -> str:
    """When the next JobSet of a worker that has ended may start at the earliest."""
    ended, started = worker.end_time or "", worker.start_time or worker.end_time or ""
    soonest = stamps.seconds(started) + PAUSE_SECONDS
    verdict = known(worker.verdict or "")
    if worker.failures and (verdict is None or TABLE[verdict] != Answer.AT_ONCE):
        rounds = min(worker.failures - 1, 10)
        soonest = max(soonest, stamps.seconds(ended) + min(BACK_OFF_MOST, BACK_OFF_SECONDS * 2.0**rounds))
    return stamps.stamp(max(soonest, stamps.seconds(ended)))
