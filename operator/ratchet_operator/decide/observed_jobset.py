"""What a JobSet says of its attempt (jobset.x-k8s.io/v1alpha2)."""

from __future__ import annotations

from dataclasses import dataclass

from ratchet_operator.decide.observed_object import attempt_number, condition, worker
from ratchet_operator.snapshot import Raw

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


@dataclass(frozen=True)
class JobSet:
    """The JobSet of one attempt, or of one worker."""

    raw: Raw

    @property
    def name(self) -> str:
        return str(self.raw["metadata"]["name"])

    @property
    def uid(self) -> str:
        return str(self.raw["metadata"]["uid"])

    @property
    def attempt(self) -> int | None:
        return attempt_number(self.raw)

    @property
    def worker(self) -> tuple[int, int] | None:
        """Numbers of the worker that it is, and of this JobSet of it; None for a trainer's."""
        return worker(self.raw)

    @property
    def deleting(self) -> bool:
        return "deletionTimestamp" in self.raw["metadata"]

    @property
    def suspended(self) -> bool:
        """spec.suspend. Ratchet never sets it: a queue does, or a person."""
        return bool(self.raw["spec"].get("suspend"))

    @property
    def queue(self) -> str | None:
        """Name of the LocalQueue of Kueue that it is in."""
        name: str | None = (self.raw["metadata"].get("labels") or {}).get(QUEUE_LABEL)
        return name

    @property
    def failed(self) -> Raw | None:
        """Its condition Failed, if true."""
        found = condition(self.raw, "Failed")
        return found if found and found.get("status") == "True" else None

    @property
    def finished(self) -> bool:
        return self.failed is not None or (condition(self.raw, "Completed") or {}).get("status") == "True"

    def owned_by(self, uid: str) -> bool:
        return any(o.get("uid") == uid for o in self.raw["metadata"].get("ownerReferences") or ())

    def made_for(self, kind: str) -> bool:
        """Whether an object of that kind owns it."""
        return any(o.get("kind") == kind for o in self.raw["metadata"].get("ownerReferences") or ())
