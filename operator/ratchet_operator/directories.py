"""Which job works in which checkpoint directory, as far as this operator sees jobs.

Decides whose a directory is when several jobs name it: of those that are not over the one that has begun, else the one
that was created first; a job that was refused for something else and has not begun stands in nobody's way. The
journal in the directory would let a second one take it over (`checkpoint.existing: Resume` asks for that), and the
first would be fenced off for good, after a gang was placed for each. Kept in memory, from watches and a first list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ratchet_operator.queue import Key

Raw = dict[str, Any]
Place = tuple[str, str, str]
"""Namespace and claim (both empty for a bucket), and the directory."""
Age = tuple[bool, str, str]
"""Whether it has yet to begin, creationTimestamp and uid: no two jobs have the same."""


class Directories:
    """`wake` is called for every other job of a directory whose jobs have changed."""

    def __init__(self, wake: Callable[[Key], None]):
        self._wake = wake
        self._place: dict[Key, Place] = {}
        self._live: dict[Place, dict[Key, Age]] = {}

    def hear(self, job: Raw, *, gone: bool = False) -> None:
        """What a watch or a list tells of a job."""
        meta = job["metadata"]
        key = (meta.get("namespace") or "", meta["name"])
        status = job.get("status") or {}
        begun = "attempt" in status
        over = gone or status.get("finishedTime") or (_refused(status) and not begun)
        now = None if over else place_of(job)
        before = self._place.get(key)
        if gone and before is not None and meta.get("uid") not in (None, self._live[before][key][-1]):
            return  # the word of its predecessor's end has come late
        age = (not begun, meta.get("creationTimestamp") or "", meta.get("uid") or "")
        if now == before and (now is None or self._live[now].get(key) == age):
            return
        if before is not None:
            del self._place[key]
            self._live[before].pop(key)
            self._tell(before, key)
        if now is not None:
            self._place[key] = now
            self._live.setdefault(now, {})[key] = age

    def forget(self, key: Key) -> None:
        """The job is gone."""
        self.hear({"metadata": {"namespace": key[0], "name": key[1]}}, gone=True)

    def owner(self, job: Raw) -> str | None:
        """namespace/name of the other job whose directory this one names; None where it is this one's own, or nobody's.
        What a job that is over has left may be another's by now."""
        key = (job["metadata"].get("namespace") or "", job["metadata"]["name"])
        place = place_of(job)
        live = self._live.get(place, {}) if place is not None else {}
        first = min(live.items(), key=lambda item: item[1])[0] if live else key
        return None if first == key else "/".join(first)

    def _tell(self, place: Place, key: Key) -> None:
        for other in self._live[place]:
            if other != key:
                self._wake(other)
        if not self._live[place]:
            del self._live[place]


def _refused(status: Raw) -> bool:
    """Whether a job is not run, for another reason than that its directory is in use."""
    accepted: Raw = next((it for it in status.get("conditions") or () if it.get("type") == "Accepted"), {})
    return accepted.get("status") == "False" and accepted.get("reason") != "DirectoryInUse"


def place_of(job: Raw) -> Place | None:
    """Where a job's checkpoints are; None where its manifest does not say so that it can be read."""
    said = (job.get("spec") or {}).get("checkpoint")
    if not isinstance(said, dict) or not isinstance(directory := said.get("directory"), str):
        return None
    claim = said.get("claimName") or ""
    namespace = (job["metadata"].get("namespace") or "") if directory.startswith("/") else ""
    return namespace, str(claim), directory.rstrip("/")
