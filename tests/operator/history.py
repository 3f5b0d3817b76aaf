"""Everything that happened in a test's namespace: each version of each object, and each request of an operator.

The API server's watches tell of every version, whoever wrote it; revisions order the versions of all kinds. The fault
proxy tells who asked for what. `invariants` are checked on both.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ratchet_api.protocol import LABEL_JOB, LABEL_WORKER
from ratchet_cluster.api import Api

Raw = dict[str, Any]
JOB, JOBSET, POD, NODE = "RLTrainingJob", "JobSet", "Pod", "Node"


@dataclass(frozen=True)
class Version:
    """One state of one object. `change` is ADDED, MODIFIED or DELETED, as in a watch."""

    kind: str
    change: str
    raw: Raw

    @property
    def revision(self) -> int:
        return int(self.raw["metadata"]["resourceVersion"])

    @property
    def uid(self) -> str:
        return str(self.raw["metadata"]["uid"])

    @property
    def name(self) -> str:
        return str(self.raw["metadata"]["name"])

    @property
    def labels(self) -> Raw:
        return self.raw["metadata"].get("labels") or {}

    @property
    def job(self) -> str:
        """Name of the job that it belongs to, by its label."""
        return self.name if self.kind == JOB else str(self.labels.get(LABEL_JOB, ""))

    @property
    def of_worker(self) -> bool:
        """Whether it belongs to a worker of a rollout fleet, which is no attempt."""
        return LABEL_WORKER in self.labels

    @property
    def status(self) -> Raw:
        return self.raw.get("status") or {}

    def owned_by(self, kind: str) -> str | None:
        """uid of its owner of that kind."""
        owners = self.raw["metadata"].get("ownerReferences") or ()
        return next((owner["uid"] for owner in owners if owner["kind"] == kind), None)


@dataclass(frozen=True)
class Act:
    """One request of an operator that the API server answered."""

    method: str
    path: str
    code: int
    actor: str
    sent: Raw = field(default_factory=dict)
    got: Raw = field(default_factory=dict)

    @property
    def writes(self) -> bool:
        return self.method != "GET"

    @property
    def revision(self) -> int | None:
        """Of the object that was written, or of the list that was read."""
        text = (self.got.get("metadata") or {}).get("resourceVersion")
        return int(text) if text else None

    def __str__(self) -> str:
        return f"{self.method} {self.path} -> {self.code} ({self.actor})"


class Look(NamedTuple):
    """A pass over a job read what belongs to it as it was at this revision."""

    job: str
    revision: int
    at: float = 0.0


class Seen(NamedTuple):
    """A pass over a job saw these versions, by its own log: from the watches, where nothing was read."""

    job: str
    versions: dict[str, int]
    """uid -> revision."""
    heard: int
    """The revision up to which the watches had told of anything."""
    at: float = 0.0


class Round(NamedTuple):
    """A periodic list began, when this was the revision."""

    revision: int
    at: float = 0.0


class Resumed(NamedTuple):
    """A gang of scripted trainers found this step to go on from."""

    jobset_uid: str
    step: int


@dataclass
class History:
    """What happened. `versions` are in the order of their revisions, `acts` and `reads` in the order of the answers."""

    versions: list[Version] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)
    reads: list[Look | Seen | Round] = field(default_factory=list)
    resumed: list[Resumed] = field(default_factory=list)
    quiet: list[Act] = field(default_factory=list)
    """Writes that were made though nothing had happened."""
    settled: bool = False
    """Whether at the end every job was over and an operator had looked at everything."""

    def of(self, kind: str) -> list[Version]:
        return [it for it in self.versions if it.kind == kind]

    def lives(self, kind: str) -> dict[str, list[Version]]:
        """uid -> all versions of that object."""
        found: dict[str, list[Version]] = {}
        for it in self.of(kind):
            found.setdefault(it.uid, []).append(it)
        return found

    def left(self, kind: str) -> dict[str, Version]:
        """uid -> last version of every object that is still there."""
        return {uid: life[-1] for uid, life in self.lives(kind).items() if life[-1].change != "DELETED"}

    def written_by_operators(self) -> set[int]:
        """Revisions that a write of an operator made."""
        return {act.revision for act in self.acts if act.writes and act.code < 300 and act.revision is not None}


class Recorder:
    """Follows the objects of one namespace, and the nodes with one label, from now on. An async context manager."""

    def __init__(self, api: Api, paths: dict[str, tuple[str, dict[str, str]]]):
        self._api, self._paths = api, paths
        self._found: dict[tuple[str, int, str], Version] = {}  # kind, revision, uid
        self._present: dict[str, dict[str, int]] = {kind: {} for kind in paths}  # kind -> uid -> revision
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Recorder:
        self._tasks = [asyncio.create_task(self._follow(kind, *where)) for kind, where in self._paths.items()]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()

    async def _follow(self, kind: str, path: str, params: dict[str, str]) -> None:
        async for change, found in self._api.follow(path, **params):
            for raw in found if change == "SYNC" else [found]:
                it = Version(kind, "ADDED" if change == "SYNC" else change, raw)
                if change == "SYNC" and it.uid in self._present[kind]:
                    it = Version(kind, "MODIFIED", raw)
                self._found[kind, it.revision, it.uid] = it
                if change == "DELETED":
                    self._present[kind].pop(it.uid, None)
                else:
                    self._present[kind][it.uid] = it.revision

    async def caught_up(self) -> bool:
        """Whether it has heard of all that there is now, and of the end of all that is gone."""
        for kind, (path, params) in self._paths.items():
            items = (await self._api.get(path, **params))["items"]
            there = {item["metadata"]["uid"]: int(item["metadata"]["resourceVersion"]) for item in items}
            known = self._present[kind]
            if any(known.get(uid, 0) < revision for uid, revision in there.items()) or known.keys() - there.keys():
                return False
        return True

    @property
    def versions(self) -> list[Version]:
        return sorted(self._found.values(), key=lambda it: it.revision)
