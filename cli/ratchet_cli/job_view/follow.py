"""Follows a job: each state that the API server has of it, as it comes.

Decides how a watch is taken up again when it ends, as every watch does after some minutes. An outage costs a pause,
never the whole; that the job is deleted is an end.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from queue import Empty, Queue

from ratchet_cli.kube import Kube, KubeError, NotFound, Object, Refused, jobs
from ratchet_cli.kube.parts import at, text

WATCH_SECONDS = 240
PAUSE_SECONDS = 2.0
OUTAGES = 30
"""Attempts to reach the cluster again in a row before it is given up."""


class Follower:
    """States of one job, gathered by a thread.

    with Follower(kube, job) as follower:
        state = follower.next(seconds=1.0)    # None: nothing new
    """

    def __init__(self, kube: Kube, job: Object):
        self._kube, self._job = kube, job
        self._name = text(job, "metadata", "name") or ""
        self._states: Queue[Object | KubeError] = Queue()
        self._over = threading.Event()
        self.trouble: str | None = None
        """Why the cluster does not answer at the moment."""

    def __enter__(self) -> Follower:
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def next(self, seconds: float) -> Object | None:
        """The next state, None if none came in time. Raises NotFound once the job is deleted, KubeError."""
        try:
            state = self._states.get(timeout=max(0.0, seconds))
        except Empty:
            return None
        if isinstance(state, KubeError):
            raise state
        return state

    def latest(self, seconds: float) -> Object | None:
        """The newest of the states that came; None if none came in time. Raises as `next`."""
        state = self.next(seconds)
        while state is not None and (newer := self.next(0.0)) is not None:
            state = newer
        return state

    def _run(self) -> None:
        version, outages = text(self._job, "metadata", "resourceVersion") or "", 0
        while not self._over.is_set():
            try:
                for state in self._watch(version):
                    version, outages, self.trouble = text(state, "metadata", "resourceVersion") or version, 0, None
                    self._states.put(state)
                if not version:
                    state = jobs.get(self._kube, self._name)
                    version = text(state, "metadata", "resourceVersion") or ""
                    self._states.put(state)
                outages, self.trouble = 0, None
            except _Expired:
                version = ""
            except NotFound as error:
                self._states.put(error)
                return
            except KubeError as error:
                outages, self.trouble = outages + 1, str(error)
                if outages >= OUTAGES or (isinstance(error, Refused) and error.status in (401, 403)):
                    self._states.put(error)
                    return
                self._over.wait(PAUSE_SECONDS)
                version = ""

    def _watch(self, version: str) -> Iterator[Object]:
        if not version:
            return
        lines = self._kube.lines(
            jobs.path(self._kube.namespace),
            watch=1,
            fieldSelector=f"metadata.name={self._name}",
            resourceVersion=version,
            timeoutSeconds=WATCH_SECONDS,
            allowWatchBookmarks="true",
            seconds=WATCH_SECONDS + 30.0,
        )
        for line in lines:
            if self._over.is_set():
                return
            try:
                event = json.loads(line)
            except ValueError:
                return  # cut off: the watch ended
            kind, found = at(event, "type"), at(event, "object")
            if kind == "ERROR":
                raise _Expired
            if kind == "DELETED":
                raise NotFound(f"job {self._name} was deleted", 404)
            if kind in ("ADDED", "MODIFIED"):
                yield found


class _Expired(Exception):
    """The version is too old to watch from."""
