"""Jobs in a cluster: submitted, watched, waited for, read. The cluster is that of the kubeconfig, as for `kubectl`."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ratchet.errors import (
    ClusterError,
    JobFailed,
    JobNotFound,
    NothingToRead,
    RatchetError,
    WaitTimeout,
    cluster_errors,
)
from ratchet.html import curve, description, table
from ratchet.manifest import RLTrainingJob
from ratchet.reading import main_curve, metrics, needs_trainer, rows, samples
from ratchet_api.base import read_tolerantly
from ratchet_api.status import CONDITIONS, Status
from ratchet_cli.kube import connect
from ratchet_cli.kube import jobs as _jobs

if TYPE_CHECKING:
    from ratchet_trainer.storage import Location

WATCH_SECONDS = 60.0
"""How long a watch lasts before it is begun anew, in case the connection died unseen."""
SLACK_SECONDS = 10.0


@dataclass(frozen=True)
class Job:
    """A job in a cluster, as it was when it was read. `refresh` reads it again."""

    data: dict[str, Any]
    """The object as the API server has it."""
    context: str | None = None

    @property
    def name(self) -> str:
        return str(self.data["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.data["metadata"]["namespace"])

    @property
    def status(self) -> Status:
        """What the operator has seen and decided; fields that only a newer operator knows are left out."""
        return read_tolerantly(Status, self.data.get("status") or {})

    @property
    def phase(self) -> str:
        """One word for people: Pending, Running, Completed ... Programs ask for conditions."""
        return str((self.data.get("status") or {}).get("phase") or "Pending")

    @property
    def step(self) -> int:
        """The last step that was reported."""
        progress = self.status.progress
        return int(progress.step or 0) if progress is not None else 0

    def condition(self, kind: str) -> tuple[str, str, str]:
        """Status (True, False, Unknown), reason and message of a condition; Unknown where it is not there yet."""
        known = (self.data.get("status") or {}).get("conditions") or ()
        found: dict[str, str] = next((c for c in known if c["type"] == kind), {})
        return found.get("status", "Unknown"), found.get("reason", ""), found.get("message", "")

    @property
    def ended(self) -> bool:
        """Whether it is Completed or Failed."""
        return any(self.condition(kind)[0] == "True" for kind in ("Completed", "Failed"))

    def refresh(self) -> Job:
        """The job as it is now. Raises JobNotFound, ClusterError."""
        return get(self.name, self.namespace, self.context)

    def watch(self, timeout: float | None = None) -> Iterator[Job]:
        """The job as it is now, then after each change of its spec or status, until it has ended or so many seconds
        are over (None: as long as it takes). Raises JobNotFound when it is deleted, ClusterError."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        shown: Job | None = None
        with cluster_errors(), connect(self.namespace, self.context) as kube:
            while True:
                now = Job(_jobs.get(kube, self.name), self.context)
                if shown is None or now._said != shown._said:
                    shown = now
                    yield now
                left = min(WATCH_SECONDS, deadline - time.monotonic())
                if now.ended or left <= 0:
                    return
                for line in kube.lines(
                    _jobs.path(self.namespace),
                    seconds=left + SLACK_SECONDS,
                    watch="true",
                    fieldSelector=f"metadata.name={self.name}",
                    resourceVersion=now.data["metadata"]["resourceVersion"],
                    timeoutSeconds=max(1, math.ceil(left)),
                ):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        break  # the version is too old by now: read anew
                    changed = Job(event["object"], self.context)
                    if event["type"] == "DELETED":
                        raise JobNotFound(f"job {self.name} of namespace {self.namespace} was deleted")
                    if changed._said != shown._said:
                        shown = changed
                        yield changed
                    if changed.ended:
                        return
                    if time.monotonic() > deadline:
                        break

    def wait(self, condition: str = "Completed", timeout: float | None = None, status: str = "True") -> Job:
        """The job once that condition has that status. Raises JobFailed where the job fails before, WaitTimeout after
        so many seconds, JobNotFound, ClusterError."""
        if condition not in CONDITIONS:
            raise RatchetError(f"{condition} is no condition of a job; there are {', '.join(CONDITIONS)}")
        job = self
        for job in self.watch(timeout):
            if job.condition(condition)[0] == status:
                return job
        if job.ended:
            _, reason, message = job.condition("Failed")
            how = f"has failed ({reason}): {message}" if reason and job.phase == "Failed" else "is completed"
            raise JobFailed(f"job {self.name} {how}; {condition} will not be {status}")
        at, reason, message = job.condition(condition)
        raise WaitTimeout(
            f"job {self.name}: {condition} is {at} after {timeout:.0f} s"
            + (f" ({reason}): {message}" if reason else "; is the operator running? `ratchet doctor`")
        )

    def suspend(self) -> Job:
        """Has it commit and leave its capacity. Raises JobNotFound, ClusterError."""
        return self._suspended(True)

    def resume(self) -> Job:
        """Has it go on. Raises JobNotFound, ClusterError."""
        return self._suspended(False)

    def approve(self, stage: str) -> Job:
        """Lets what comes after a stage begin. Raises RatchetError for a stage that there is not, ClusterError."""
        now = self.refresh()
        stages = [s["name"] for s in now.data["spec"]["stages"]]
        if stage not in stages:
            raise RatchetError(f"job {self.name} has no stage {stage}; it has {', '.join(stages)}")
        with cluster_errors(), connect(self.namespace, self.context) as kube:
            return Job(_jobs.approve(kube, now.data, stage), self.context)

    def metrics(self) -> Any:
        """`ratchet.metrics` of this job."""
        return metrics(self)

    def samples(self, step: int | None = None, *, wrong: bool = False) -> Any:
        """`ratchet.samples` of this job."""
        return samples(self, step, wrong=wrong)

    def place(self) -> Location:
        """Its checkpoint directory, where that can be reached from here. Raises NothingToRead."""
        needs_trainer()
        from ratchet_cli.cluster_files import NotHere, folder_of_job

        try:
            with cluster_errors(), connect(self.namespace, self.context) as kube:
                return folder_of_job(kube, self.data)
        except NotHere as error:
            raise NothingToRead(str(error)) from None

    @property
    def _said(self) -> tuple[Any, Any]:
        return self.data.get("spec"), self.data.get("status")

    def _suspended(self, wanted: bool) -> Job:
        with cluster_errors(), connect(self.namespace, self.context) as kube:
            return Job(_jobs.suspend(kube, self.name, wanted), self.context)

    def _repr_html_(self) -> str:
        status = self.status
        progress, learning = status.progress, self.condition("Learning")
        shown = [
            ("phase", self.phase),
            ("stage", status.stage.name if status.stage is not None else ""),
            ("step", (progress.text or "") if progress is not None else ""),
            ("reward", (progress.reward or "") if progress is not None else ""),
            ("learning", f"{learning[0]}: {learning[2]}" if learning[1] else ""),
            ("attempt", str(status.attempt.number) if status.attempt is not None else ""),
        ]
        title = description(f"{self.namespace}/{self.name}", shown)
        try:
            return title + curve(*main_curve(list(rows(self))))
        except RatchetError:
            return title  # the files are elsewhere


class Jobs(list[Job]):
    """Jobs, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        columns = ("namespace", "name", "phase", "stage", "step", "reward")
        lines = []
        for job in self:
            progress, stage = job.status.progress, job.status.stage
            numbers = (progress.text or "", progress.reward or "") if progress is not None else ("", "")
            lines.append((job.namespace, job.name, job.phase, stage.name if stage is not None else "", *numbers))
        return table(columns, lines)


def submit(job: RLTrainingJob, namespace: str | None = None, context: str | None = None) -> Job:
    """Creates the job in a cluster. `namespace`: by default the job's own, else that of the kubeconfig.

    Raises InvalidJob, and ClusterError where the cluster refuses: a job of that name is there, say.
    """
    job.validate()
    with cluster_errors(), connect(namespace or job.namespace, context) as kube:
        manifest = job.manifest()
        manifest["metadata"]["namespace"] = kube.namespace
        try:
            return Job(kube.post(_jobs.path(kube.namespace), manifest), context)
        except Exception as error:
            if getattr(error, "status", None) == 409:
                raise ClusterError(
                    f"job {job.name} is in namespace {kube.namespace} already; ratchet.get reads it, `kubectl delete` "
                    "removes it, and what may change of it is changed with `kubectl apply`"
                ) from None
            raise


def get(name: str, namespace: str | None = None, context: str | None = None) -> Job:
    """A job of a cluster. Raises JobNotFound with names that are close, ClusterError."""
    with cluster_errors(), connect(namespace, context) as kube:
        return Job(_jobs.get(kube, name), context)


def jobs(namespace: str | None = None, context: str | None = None, *, all_namespaces: bool = False) -> Jobs:
    """The jobs of a namespace (by default that of the kubeconfig), or of all. Raises ClusterError."""
    with cluster_errors(), connect(namespace, context) as kube:
        return Jobs(Job(found, context) for found in _jobs.every(kube, all_namespaces=all_namespaces))
