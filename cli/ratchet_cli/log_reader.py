"""Reads the logs of a job's attempts: through the API server, or where trainers kept the ends of theirs.

Decides the order, the lines between attempts, and when a follower goes on to the next attempt.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from ratchet_api.protocol import LABEL_JOB, LABEL_JOB_UID
from ratchet_cli.job_view import read_job, read_pods
from ratchet_cli.job_view.document import PodView
from ratchet_cli.job_view.until import END
from ratchet_cli.job_view.words import seconds_between, span
from ratchet_cli.kept_logs import Unreadable, kept_logs
from ratchet_cli.kube import Kube, KubeError, NotFound, Object, Refused, jobs
from ratchet_cli.kube.errors import one_line
from ratchet_cli.kube.parts import each, moment, text, whole

CONTAINER = "trainer"
POLL_SECONDS = 1.0
SILENT_SECONDS = 3600.0
GONE_MOST = 3
"""Attempts without pods that get a line each; those before them share one."""
ESCAPES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Wanted:
    """What of a log: of which process, the last `since` seconds, the last `tail` lines, with times or without."""

    process: int
    since: int | None
    tail: int | None
    timestamps: bool

    def query(self) -> dict[str, str | int]:
        """For the API server."""
        found: dict[str, str | int] = {"container": CONTAINER}
        if self.since is not None:
            found["sinceSeconds"] = self.since
        if self.tail is not None:
            found["tailLines"] = self.tail
        if self.timestamps:
            found["timestamps"] = "true"
        return found


class LogReader:
    """The logs of one job."""

    def __init__(self, kube: Kube, job: Object, wanted: Wanted):
        self._kube, self._job, self._wanted = kube, job, wanted
        self._name = text(job, "metadata", "name") or "?"
        self._pods = self._list()
        self._unreadable = ""
        """Why what is kept beside the checkpoints could not be looked at."""

    def problem(self, attempt: int | None) -> str | None:
        """Why there cannot be such a log: an attempt or a process that the job does not have."""
        if attempt is not None and attempt > self._newest():
            return f"job {self._name} has made {self._newest()} attempts, there is no attempt {attempt}"
        place = read_job.place(self._job)
        if place is None or not place.hosts or self._wanted.process < place.hosts or self._pod(self._newest()):
            return None
        return f"job {self._name} has {place.hosts} processes on placement {place.placement}, numbered from 0"

    def show(self, attempt: int | None, *, follow: bool) -> bool:
        """Prints; whether there was anything."""
        shown = False
        if attempt is None:
            self._say_gone()
        for number in [attempt] if attempt is not None else self._with_pods() or [self._newest()]:
            shown |= self._show(number, follow=follow and number == self._newest()) or self._show_kept(number)
        if follow and attempt is None:
            shown |= self._go_on()
        return shown

    def nothing(self, attempt: int | None) -> list[str]:
        """What to say where there was no log."""
        about = f"attempt {attempt} of job {self._name}" if attempt is not None else f"job {self._name}"
        lines = [f"{about}: no log of process {self._wanted.process}: {self._why(attempt)}"]
        return [*lines, *(f"  {line}" for line in self._elsewhere(attempt))]

    def _why(self, attempt: int | None) -> str:
        if not self._newest():
            return "no attempt has started yet; `ratchet status` says why"
        record = self._record(attempt if attempt is not None else self._newest())
        if record is not None:
            return f"its pods are gone; {self._ended(whole(record, 'number') or 0)}"
        return "its pods are gone" + (", and status keeps the last 20 attempts" if attempt is not None else "")

    def _elsewhere(self, attempt: int | None) -> Iterator[str]:
        """Where else to look."""
        number, namespace = attempt or self._newest(), self._kube.namespace
        if (self._kube.place.context or "").startswith("gke_"):
            query = (
                f'resource.type="k8s_container" resource.labels.namespace_name="{namespace}" '
                f'resource.labels.pod_name:"{self._name}-a{number}-"'
            )
            yield f"Cloud Logging keeps it: gcloud logging read '{query}' --format='value(textPayload)'"
        evidence = text(self._record(number), "evidence") or ""
        local = re.search(rf"{re.escape(self._name)}-a{number}-\S+", evidence)
        if "127.0.0.1" in (self._kube.place.server or "") and local is not None:
            yield f"a local cluster keeps it: ratchet cluster logs {local.group()} -n {namespace}"
        if self._unreadable:
            yield f"what trainers keep beside the checkpoints cannot be read from here: {one_line(self._unreadable)}"
        directory = text(self._job, "spec", "checkpoint", "directory")
        yield f"{directory} has metrics.jsonl, samples/ and inspect/: `ratchet curve`, `ratchet samples`"

    def _say_gone(self) -> None:
        """Names attempts of which nothing is left, the last ones with how they ended."""
        gone = [number for number in range(1, self._newest() + 1) if number not in self._with_pods()]
        known = [number for number in gone if self._record(number) is not None]
        named = known[-GONE_MOST:]
        if len(gone) > len(named):
            others = len(gone) - len(named)
            self._mark(f"{others} earlier attempts: their pods are gone")
        for number in named:
            more = f"--attempt {number} shows what was kept of its log"
            self._mark(f"attempt {number}: its pods are gone, {more}; {self._ended(number)}")

    def _ended(self, number: int) -> str:
        record, now = self._record(number), datetime.now(UTC)
        if record is None:
            return "it runs" if number == self._newest() else "how it ended is not known any more"
        ago = span(seconds_between(moment(record, "endTime"), now))
        evidence = text(record, "evidence")
        return f"ended {ago} ago as {text(record, 'verdict')}" + (f": {evidence}" if evidence else "")

    def _show(self, number: int, *, follow: bool) -> bool:
        pod = self._pod(number)
        if pod is None:
            return False
        where = f" on {pod.node}" if pod.node else ""
        self._mark(f"attempt {number}, process {self._wanted.process}: pod {pod.name}{where}; {self._ended(number)}")
        path = f"/api/v1/namespaces/{self._kube.namespace}/pods/{pod.name}/log"
        query = self._wanted.query() | ({"follow": "true"} if follow else {})
        while True:
            try:
                for line in self._kube.lines(path, **query, seconds=SILENT_SECONDS if follow else 60.0):
                    click.echo(_harmless(line))
                    if follow:
                        sys.stdout.flush()
                return True
            except NotFound:
                self._mark(f"attempt {number}: pod {pod.name} is gone")
                return True
            except Refused as error:
                if error.status == 403:
                    raise
                if follow and error.status == 400 and self._still_starts(pod):
                    time.sleep(POLL_SECONDS)  # its container is being created
                    continue
                self._mark(f"attempt {number}: its log cannot be read: {one_line(str(error))}")
                return True

    def _show_kept(self, number: int) -> bool:
        """What the trainer itself kept of an attempt without pods; whether there was anything."""
        if not number or self._pod(number) is not None:
            return False
        try:
            found = list(kept_logs(self._kube, self._job, number, self._wanted.process))
        except Unreadable as error:
            self._unreadable = str(error)
            return False
        for place, lines in found:
            ended = self._ended(number)
            self._mark(f"attempt {number}, process {self._wanted.process}: the end of its log, from {place}; {ended}")
            for line in lines if self._wanted.tail is None else lines[max(0, len(lines) - self._wanted.tail) :]:
                click.echo(_harmless(line))
        return bool(found)

    def _still_starts(self, pod: PodView) -> bool:
        self._pods = self._list()
        return any(p.name == pod.name and p.phase == "Pending" and not p.ending for p in self._pods)

    def _go_on(self) -> bool:
        """Follows what comes, until the job is over. Raises KubeError."""
        shown, seen, outages = False, set(self._with_pods()), 0
        while True:
            try:
                self._job = jobs.get(self._kube, self._name)
                self._pods = self._list()
                outages = 0
            except NotFound:
                raise
            except KubeError:
                outages += 1
                if outages > 30:
                    raise
            fresh = [number for number in self._with_pods() if number not in seen]
            for number in fresh:
                if (before := max(seen, default=0)) and self._record(before) is not None:
                    self._mark(f"attempt {before} {self._ended(before)}")
                seen.add(number)
                shown |= self._show(number, follow=True)
            if not fresh:
                if read_job.phase(self._job) in END:
                    self._mark(f"job {self._name} is {read_job.phase(self._job)}")
                    return shown
                time.sleep(POLL_SECONDS)

    def _list(self) -> tuple[PodView, ...]:
        path, uid = f"/api/v1/namespaces/{self._kube.namespace}/pods", text(self._job, "metadata", "uid")
        found = self._kube.list(path, labelSelector=f"{LABEL_JOB}={self._name},{LABEL_JOB_UID}={uid}")
        return read_pods.pods(found)

    def _with_pods(self) -> list[int]:
        return sorted({p.attempt for p in self._pods if p.attempt is not None and self._pod(p.attempt) is not None})

    def _pod(self, number: int) -> PodView | None:
        own = [pod for pod in self._pods if pod.attempt == number]
        hosts = max([(pod.host or 0) + 1 for pod in own], default=1)
        place = read_job.place(self._job)
        if place is not None and place.hosts:
            hosts = max(hosts, place.hosts // max(1, place.slices))
        return next((p for p in own if (p.slice or 0) * hosts + (p.host or 0) == self._wanted.process), None)

    def _record(self, number: int) -> Any:
        return next((r for r in each(self._job, "status", "attempts") if whole(r, "number") == number), None)

    def _newest(self) -> int:
        known = [whole(self._job, "status", "attempt", "number"), whole(self._job, "status", "counters", "attempts")]
        return max([number for number in known if number is not None] + [p.attempt or 0 for p in self._pods], default=0)

    @staticmethod
    def _mark(words: str) -> None:
        click.secho(f"==== {words}", bold=True)
        sys.stdout.flush()


def _harmless(line: str) -> str:
    """A line as it is, without what would move the cursor or turn the direction of writing; colors go, too."""
    return ESCAPES.sub(lambda found: found.group().encode("unicode_escape").decode(), line)
