"""One job as it was observed: its spec and status as types, and which pod, node, JobSet or report belongs to what.

Decides identity: what is this job's own, which Node is the one that a pod was bound to, whose a report is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import ValidationError

from ratchet_api.base import read_tolerantly
from ratchet_api.job import Spec, parse_spec
from ratchet_api.pod_template import PodTemplate
from ratchet_api.protocol.documents import ProgressDocument
from ratchet_api.status import AttemptStatus, Status
from ratchet_api.validate import Problem, problems
from ratchet_operator.decide import stamps
from ratchet_operator.decide.observed_jobset import JobSet
from ratchet_operator.decide.observed_node import Node
from ratchet_operator.decide.observed_pod import Pod
from ratchet_operator.snapshot import Raw, Snapshot


@dataclass(frozen=True)
class Report:
    """What the trainer of an attempt said last over `/progress`."""

    said: ProgressDocument
    received_at: str
    """When it came, on the API server's clock."""


@dataclass(frozen=True)
class ObservedJob:
    """One job and all that belongs to it, at one moment."""

    snapshot: Snapshot
    now: str
    namespace: str
    name: str
    uid: str
    generation: int
    spec: Spec | None
    """The typed spec; None if it cannot be read, which `problems` then explains."""
    problems: tuple[Problem, ...]
    status: Status
    pods: tuple[Pod, ...]
    jobsets: tuple[JobSet, ...]
    report: Report | None
    """The last answer of `/progress`, of whatever attempt."""
    _nodes: dict[str, Node] = field(default_factory=dict, compare=False)  # uid of a pod -> its node, once asked for
    _own: dict[int, tuple[Pod, ...]] = field(default_factory=dict, compare=False)  # attempt -> its pods
    _of_workers: dict[tuple[int, int], list[Pod]] = field(default_factory=dict, compare=False)  # by worker

    @property
    def grace_seconds(self) -> float:
        """terminationGracePeriodSeconds of the job's pods: what a deletion gives them."""
        template = self.spec.pod_template if self.spec is not None else PodTemplate()
        return float(template.termination_grace_period_seconds)

    @classmethod
    def read(cls, snapshot: Snapshot) -> ObservedJob:
        """Raises ValueError if the status holds what no version of this operator writes."""
        job = snapshot.job
        meta = job["metadata"]
        spec: Spec | None = None
        found: tuple[Problem, ...] = ()
        try:
            spec = parse_spec(job["spec"])
        except ValidationError:
            found = tuple(problems({key: value for key, value in job.items() if key != "status"}))
        return cls(
            snapshot=snapshot,
            now=snapshot.now,
            namespace=meta["namespace"],
            name=meta["name"],
            uid=meta["uid"],
            generation=meta.get("generation", 1),
            spec=spec,
            problems=found,
            status=read_status(job.get("status") or {}),
            pods=tuple(sorted((Pod(p) for p in snapshot.pods), key=lambda p: p.name)),
            jobsets=tuple(sorted((JobSet(j) for j in snapshot.jobsets), key=lambda j: j.name)),
            report=_read_report(snapshot.progress),
        )

    @property
    def deleting(self) -> bool:
        return "deletionTimestamp" in self.snapshot.job["metadata"]

    def passed(self, stamp: str) -> bool:
        """Whether that moment has come."""
        return stamps.seconds(self.now) >= stamps.seconds(stamp)

    def node_of(self, pod: Pod) -> Node | None:
        """The node that the pod is bound to; None for an unbound pod.

        Nodes are compared by identity, not name: GKE gives a replacement the name of the machine that was taken. A Node
        that was created after the pod was bound is therefore another one, and the pod's own node is absent.
        """
        if pod.node is None:
            return None
        if pod.uid not in self._nodes:
            self._nodes[pod.uid] = self._node_named(pod.node, pod.bound_at)
        return self._nodes[pod.uid]

    def _node_named(self, name: str, bound_at: str | None) -> Node:
        if name not in self.snapshot.nodes:
            return Node(name)
        raw = self.snapshot.nodes[name]
        if raw is None:
            return Node(name, absent=True)
        created = raw["metadata"].get("creationTimestamp")
        if created and bound_at and stamps.seconds(created) > stamps.seconds(bound_at):
            return Node(name, raw.get("before"), absent=True)
        return Node(name, raw, bool(raw.get("absent")))

    def own_pods(self, attempt: int) -> tuple[Pod, ...]:
        """This job's pods of one attempt: those that a Job made, for labels are anybody's to write."""
        if attempt not in self._own:
            own = (p for p in self.pods if (p.attempt, p.job_uid) == (attempt, self.uid) and p.made_by_job)
            self._own[attempt] = tuple(own)
        return self._own[attempt]

    def own_jobset(self, attempt: int) -> JobSet | None:
        """This job's JobSet of one attempt."""
        return next((j for j in self.jobsets if j.attempt == attempt and j.owned_by(self.uid)), None)

    def worker_pods(self, worker: int, attempt: int) -> tuple[Pod, ...]:
        """This job's pods of one JobSet of a worker."""
        if not self._of_workers:
            for pod in self.pods:
                if pod.worker is not None and pod.job_uid == self.uid and pod.made_by_job:
                    self._of_workers.setdefault(pod.worker, []).append(pod)
        return tuple(self._of_workers.get((worker, attempt), ()))

    def worker_jobsets(self) -> tuple[JobSet, ...]:
        """This job's JobSets of workers."""
        return tuple(j for j in self.jobsets if j.worker is not None and j.owned_by(self.uid))

    def report_of(self, attempt: AttemptStatus) -> Report | None:
        """The last answer of `/progress`, if it is of this attempt and no other."""
        if self.report is None or attempt.job_set_uid is None:
            return None
        said = self.report.said
        own = (self.uid, attempt.number, attempt.job_set_uid)
        return self.report if (said.job_uid, said.attempt, said.job_set_uid) == own else None


def _read_report(answer: Raw | None) -> Report | None:
    """The answer, which was checked when it came. Raises ValueError for one that no check lets through."""
    return None if answer is None else Report(ProgressDocument.model_validate(answer), answer["receivedAt"])


def read_status(data: Raw) -> Status:
    """The typed status. Fields that only a newer operator knows are left out. Raises ValueError otherwise."""
    return read_tolerantly(Status, data)
