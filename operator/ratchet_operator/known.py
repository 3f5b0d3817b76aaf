"""What is known of each job without asking: what the watches and the last live reads told of it, trimmed to what
`decide` reads.

Decides which version counts and whether the picture is complete. It is complete once all that belongs to the job has
been listed; from then on the watches keep it. An older version never replaces a newer one, and what was deleted does
not come back. A watch may be behind, or lose an event without a word: what may rest on this picture is `reconcile`'s
to say (docs/decisions/0036).

A watch with a selector calls deleted what has lost its label; should it come back, its version is a newer one.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ratchet_api import job as api
from ratchet_api.protocol import LABEL_JOB
from ratchet_operator.queue import Key, Version

Raw = dict[str, Any]
JOBSET, POD = "JobSet", "Pod"

REMEMBERED_DELETIONS = 20_000
"""Deleted objects, the last ones: a list that was asked for before a deletion may come after it."""
LEFT_OUT = {
    # what is large and never read, by kind: from metadata, spec and status
    api.KIND: (("managedFields",), (), ()),
    JOBSET: (("managedFields", "annotations"), ("replicatedJobs",), ("replicatedJobsStatus",)),
    POD: (("managedFields", "generateName"), (), ("hostIP", "hostIPs", "podIPs", "qosClass", "initContainerStatuses")),
}
OF_POD_SPEC = ("nodeName", "hostNetwork")
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class Told(NamedTuple):
    """A job and what belongs to it, as last told of."""

    job: Raw
    jobsets: list[Raw]
    pods: list[Raw]


class _Object(NamedTuple):
    heard: int
    raw: Raw


@dataclass
class _Known:
    objects: dict[str, dict[str, _Object]] = field(default_factory=lambda: {api.KIND: {}, JOBSET: {}, POD: {}})
    complete: bool = False

    @property
    def empty(self) -> bool:
        return not any(self.objects.values())


class Known:
    """`hear` takes what watches and answers say, `complete` whole lists; `of` is what is known of a job."""

    def __init__(self) -> None:
        self._jobs: dict[Key, _Known] = {}
        self._gone: OrderedDict[str, int] = OrderedDict()  # uid -> version at its deletion
        self._heard = 0
        self.revision = 0
        """The highest version that was told of."""

    @property
    def moment(self) -> int:
        """How much was heard so far: what `complete` wants to know of the time before it asked."""
        return self._heard

    def hear(self, kind: str, raw: Raw, *, gone: bool = False) -> None:
        """One state of one object; the last one if it is `gone`."""
        meta = raw["metadata"]
        if (key := key_of(kind, raw)) is None:
            return
        uid, known = meta["uid"], self._jobs.setdefault(key, _Known())
        there = known.objects[kind]
        self._heard += 1
        self.revision = max(self.revision, _revision(raw))
        if gone:
            self._gone[uid] = _revision(raw)
            if len(self._gone) > REMEMBERED_DELETIONS:
                self._gone.popitem(last=False)
            if there.pop(uid, None) is not None and kind == api.KIND:
                known.complete = False
        elif _revision(raw) > max(self._gone.get(uid, 0), _revision(there[uid].raw) if uid in there else 0):
            if kind == api.KIND and uid not in there:
                known.complete = known.complete and not there  # another job of that name was there before
                there.clear()
            there[uid] = _Object(self._heard, trim(kind, raw))
        if known.empty:
            del self._jobs[key]

    def complete(self, key: Key, since: int, told: Told) -> None:
        """Whole and consistent lists of what belongs to a job, asked for at `since`. What they lack is gone, unless it
        was heard of later."""
        for kind, found in ((api.KIND, [told.job]), (JOBSET, told.jobsets), (POD, told.pods)):
            for raw in found:
                self.hear(kind, raw)
            if (known := self._jobs.get(key)) is None:
                continue
            uids = {raw["metadata"]["uid"] for raw in found}
            for uid in [uid for uid, it in known.objects[kind].items() if uid not in uids and it.heard <= since]:
                del known.objects[kind][uid]
        if key in self._jobs:
            self._jobs[key].complete = bool(self._jobs[key].objects[api.KIND])

    def all_is_told(self) -> None:
        """Whole lists of everything have been heard: each job that is there is known completely."""
        for known in self._jobs.values():
            known.complete = bool(known.objects[api.KIND])

    def of(self, key: Key) -> Told | None:
        """What is known of a job; None if that is not all of it."""
        known = self._jobs.get(key)
        if known is None or not known.complete:
            return None
        (job,) = known.objects[api.KIND].values()
        return Told(job.raw, [it.raw for it in known.objects[JOBSET].values()],
                    [it.raw for it in known.objects[POD].values()])  # fmt: skip

    def versions(self, key: Key) -> frozenset[Version]:
        """uid and resourceVersion of all that is known of a job."""
        known = self._jobs.get(key)
        found = known.objects.values() if known is not None else ()
        return frozenset((uid, it.raw["metadata"]["resourceVersion"]) for there in found for uid, it in there.items())

    def forget(self, key: Key) -> None:
        """Whatever was told of the job and its objects is not to be trusted, or the job is gone."""
        self._jobs.pop(key, None)


def key_of(kind: str, raw: Raw) -> Key | None:
    """The job that an object is, or belongs to by its label."""
    meta = raw["metadata"]
    name = meta["name"] if kind == api.KIND else (meta.get("labels") or {}).get(LABEL_JOB)
    return None if not name else (meta.get("namespace") or "", name)


def trim(kind: str, raw: Raw) -> Raw:
    """The part of an object that `decide` reads where it acts on nothing: a job of which something is created, and a
    JobSet whose shape is asked for, have been read live."""
    of_meta, of_spec, of_status = LEFT_OUT[kind]
    kept: Raw = {key: value for key, value in raw.items() if key not in ("metadata", "spec", "status")}
    kept["metadata"] = {key: value for key, value in raw["metadata"].items() if key not in of_meta}
    if LAST_APPLIED in (raw["metadata"].get("annotations") or {}) and "annotations" in kept["metadata"]:
        said = {key: value for key, value in raw["metadata"]["annotations"].items() if key != LAST_APPLIED}
        kept["metadata"]["annotations"] = said
    spec = raw.get("spec") or {}
    kept["spec"] = {key: spec[key] for key in (OF_POD_SPEC if kind == POD else spec) if key in spec}
    for key in of_spec:
        kept["spec"].pop(key, None)
    if "status" in raw:
        kept["status"] = {key: value for key, value in (raw["status"] or {}).items() if key not in of_status}
    return kept


def _revision(raw: Raw) -> int:
    """Versions of one object grow (Kubernetes 1.35 promises that they can be compared)."""
    return int(raw["metadata"]["resourceVersion"])
