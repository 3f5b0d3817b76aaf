"""Pods and JobSets that wear a job's labels without being made for it.

A label is anybody's to write. What no Job made is no trainer of ours, whatever it says: it ends no attempt, it is not
counted and never deleted. (One that wears the Job's own label, too, is adopted by the Job controller and the Job's from
then on.) It may be a trainer all the same (a deletion with orphans left), so a new attempt waits for
it (`fencing`). Decides who they are and that each is told of once; `reconcile` remembers whom it has told of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ratchet_api import job as api
from ratchet_api.protocol import LABEL_JOB
from ratchet_operator.decide.observed_jobset import JobSet
from ratchet_operator.decide.observed_pod import Pod
from ratchet_operator.decide.plan_builder import PlanBuilder
from ratchet_operator.snapshot import Raw


def uids(pods: Sequence[Raw], jobsets: Sequence[Raw]) -> tuple[str, ...]:
    """uids of all strangers, in order."""
    return tuple(sorted(uid for uid, _ in _strangers(pods, jobsets)))


def report(builder: PlanBuilder) -> None:
    """An event for each stranger that has not been told of."""
    snapshot = builder.observed.snapshot
    for uid, what in _strangers(snapshot.pods, snapshot.jobsets):
        if uid not in snapshot.told:
            words = f"{what}; it is left alone. Take its label {LABEL_JOB} off, or delete it, if it is not wanted"
            builder.event("Warning", "ForeignObject", words)


def _strangers(pods: Sequence[Raw], jobsets: Sequence[Raw]) -> Iterator[tuple[str, str]]:
    """uid, and what is wrong with it in words."""
    for pod in map(Pod, pods):
        if pod.attempt is not None and not pod.made_by_job:
            yield pod.uid, f"pod {pod.name} has the labels of this job, but no Job made it"
    for jobset in map(JobSet, jobsets):
        if jobset.attempt is not None and not jobset.made_for(api.KIND):
            yield jobset.uid, f"JobSet {jobset.name} has the labels of this job, but no {api.KIND} owns it"
