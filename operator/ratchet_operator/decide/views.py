"""What the raw objects of a snapshot mean: pods, nodes and JobSets, one class each.

Decides how Kubernetes and GKE say a thing (which label, which condition), so that the rest of the core can speak of
leaders, ends and lost nodes. What follows from it is decided elsewhere. API facts: core/v1, jobset.x-k8s.io/v1alpha2,
and GKE's documentation of spot VMs and node disruption.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ratchet_api.protocol import ANNOTATION_WORD, LABEL_ATTEMPT, LABEL_JOB_UID, LABEL_JOBSET_UID, V
from ratchet_operator.decide import stamps
from ratchet_operator.snapshot import Raw

LABEL_JOB_INDEX = "jobset.sigs.k8s.io/job-index"
COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"
CONTAINER = "trainer"
ATTEMPT_MOST = 1_000_000
"""A claim of a higher attempt is not believed: the next number would be one more, and numbers only grow."""

TAINT_TERMINATION = "cloud.google.com/impending-node-termination"
TAINT_OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
SHUTTING_DOWN = "node is shutting down"  # kubelet's graceful shutdown, in the message of the condition Ready


def condition(of: Raw, kind: str) -> Raw | None:
    """The condition of that type, if the object has it."""
    return next((c for c in of.get("status", {}).get("conditions") or () if c.get("type") == kind), None)


@dataclass(frozen=True)
class Exit:
    """How a pod's trainer ended: exit code (128 + n for signal n), runtime's reason, and its termination message."""

    code: int
    reason: str
    message: Raw
    text: str
    finished: str | None


@dataclass(frozen=True)
class Pod:
    """One trainer pod."""

    raw: Raw

    @property
    def name(self) -> str:
        return str(self.raw["metadata"]["name"])

    @property
    def uid(self) -> str:
        return str(self.raw["metadata"]["uid"])

    @property
    def namespace(self) -> str:
        return str(self.raw["metadata"]["namespace"])

    @property
    def resource_version(self) -> str:
        return str(self.raw["metadata"]["resourceVersion"])

    @cached_property
    def labels(self) -> dict[str, str]:
        return self.raw["metadata"].get("labels") or {}

    @cached_property
    def annotations(self) -> dict[str, str]:
        return self.raw["metadata"].get("annotations") or {}

    @cached_property
    def status(self) -> Raw:
        return self.raw.get("status") or {}

    @property
    def attempt(self) -> int | None:
        """Number of its attempt; None for a pod that is none of ours whatever else its labels say."""
        return _number(self.labels.get(LABEL_ATTEMPT))

    @property
    def made_by_job(self) -> bool:
        """Whether a Job controls it, as it does every trainer; whoever may create pods can set labels."""
        owners = self.raw["metadata"].get("ownerReferences") or ()
        return any(owner.get("controller") and owner.get("kind") == "Job" for owner in owners)

    @property
    def job_uid(self) -> str | None:
        return self.labels.get(LABEL_JOB_UID)

    @property
    def jobset_uid(self) -> str | None:
        return self.labels.get(LABEL_JOBSET_UID)

    @property
    def is_leader(self) -> bool:
        """Completion index 0 of job index 0."""
        index = self.labels.get(COMPLETION_INDEX) or self.annotations.get(COMPLETION_INDEX)
        return (index, self.labels.get(LABEL_JOB_INDEX)) == ("0", "0")

    @property
    def phase(self) -> str:
        return str(self.status.get("phase", "Pending"))

    @property
    def ended(self) -> bool:
        """Whether it is Succeeded or Failed: none of its containers runs or will run again."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def running(self) -> bool:
        return self.phase == "Running"

    @property
    def ready(self) -> bool:
        return (condition(self.raw, "Ready") or {}).get("status") == "True"

    @property
    def node(self) -> str | None:
        """Name of the node that it is bound to."""
        name: str | None = (self.raw.get("spec") or {}).get("nodeName")
        return name

    @property
    def bound_at(self) -> str | None:
        """When it was bound, a stamp of the API server."""
        scheduled = condition(self.raw, "PodScheduled") or {}
        return scheduled.get("lastTransitionTime") if scheduled.get("status") == "True" else None

    @property
    def deletion(self) -> str | None:
        """deletionTimestamp: when its grace is over, not when its deletion was asked for."""
        stamp: str | None = self.raw["metadata"].get("deletionTimestamp")
        return stamp

    @property
    def deletion_asked(self) -> str | None:
        """When its deletion was asked for."""
        if self.deletion is None:
            return None
        return stamps.after(self.deletion, -float(self.raw["metadata"].get("deletionGracePeriodSeconds") or 0))

    @property
    def disruption(self) -> Raw | None:
        """The condition DisruptionTarget, if true: Kubernetes itself says that this pod was disrupted, and by whom."""
        found = condition(self.raw, "DisruptionTarget")
        return found if found and found.get("status") == "True" else None

    @cached_property
    def exit(self) -> Exit | None:
        """How the trainer ended; None while it runs, and for a pod that failed without having run."""
        terminated = self._container().get("state", {}).get("terminated")
        if terminated is None:
            return None
        signal = terminated.get("signal") or 0
        text = terminated.get("message") or ""
        return Exit(
            code=128 + signal if signal else int(terminated.get("exitCode", 0)),
            reason=terminated.get("reason") or "",
            message=_believed(text),
            text=text,
            finished=terminated.get("finishedAt"),
        )

    @property
    def waiting(self) -> Raw:
        """Why its container does not start: {reason, message}, empty if it does not wait."""
        return self._container().get("state", {}).get("waiting") or {}

    @property
    def image_id(self) -> str:
        return str(self._container().get("imageID") or "")

    @property
    def word(self) -> str | None:
        return self.annotations.get(ANNOTATION_WORD)

    def _container(self) -> Raw:
        statuses = self.status.get("containerStatuses") or ()
        return next((s for s in statuses if s.get("name") == CONTAINER), {})


@dataclass(frozen=True)
class Node:
    """The node that a pod is bound to, as far as it can be told."""

    name: str
    raw: Raw | None = None
    """Its state, the last one if it is absent; None if there is none to go by."""
    absent: bool = False
    """Whether the API server says that it is gone, or that another Node has its name."""

    @property
    def ready(self) -> str:
        """Status of the condition Ready: True, False, Unknown."""
        if self.absent:
            return "Unknown"
        if self.raw is None:
            return "True"  # a node that could not be read gives no evidence
        return str((condition(self.raw, "Ready") or {}).get("status", "Unknown"))

    @property
    def termination(self) -> tuple[str, str | None] | None:
        """What announces that the machine is going away, and when that was stamped; None if nothing does."""
        for taint in self._taints():
            if taint.get("key") == TAINT_TERMINATION:
                return f"taint {TAINT_TERMINATION}", taint.get("timeAdded")
        ready = condition(self.raw or {}, "Ready") or {}
        if ready.get("status") != "True" and SHUTTING_DOWN in (ready.get("message") or ""):
            return f"Ready={ready.get('status')}: {ready['message']}", ready.get("lastTransitionTime")
        return None

    @property
    def out_of_service(self) -> bool:
        return any(taint.get("key") == TAINT_OUT_OF_SERVICE for taint in self._taints())

    def _taints(self) -> list[Raw]:
        return ((self.raw or {}).get("spec") or {}).get("taints") or []


@dataclass(frozen=True)
class JobSet:
    """The JobSet of one attempt."""

    raw: Raw

    @property
    def name(self) -> str:
        return str(self.raw["metadata"]["name"])

    @property
    def uid(self) -> str:
        return str(self.raw["metadata"]["uid"])

    @property
    def attempt(self) -> int | None:
        return _number((self.raw["metadata"].get("labels") or {}).get(LABEL_ATTEMPT))

    @property
    def deleting(self) -> bool:
        return "deletionTimestamp" in self.raw["metadata"]

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


def _believed(text: str) -> Raw:
    """What of a termination message is what the protocol says: users' code runs in that process, so it is a claim."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(said, dict) or not _count(said.get("v"), V) or said["v"] < V - 1:
        return {}
    return {field: said[field] for field, check in MESSAGE.items() if field in said and check(said[field])}


def _count(value: Any, most: int = 2**53 - 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _text(value: Any) -> bool:
    return isinstance(value, str) and value.encode(errors="replace").decode() == value  # half a surrogate is no text


def _boundary(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _count(value.get("stage"))
        and _count(value.get("step"))
        and _text(value.get("rule"))
    )


def _owner(value: Any) -> bool:
    return isinstance(value, dict) and _text(value.get("jobUID")) and _count(value.get("attempt"), ATTEMPT_MOST)


MESSAGE: dict[str, Callable[[Any], bool]] = {
    "reason": _text,
    "message": _text,
    "step": _count,
    "boundary": _boundary,
    "owner": _owner,
}
"""Field of a termination message -> whether its value is one that the trainer writes; all other fields are unread."""


def _number(text: str | None) -> int | None:
    """An attempt's number, if that is what it is: a label is anybody's to write."""
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > len(str(ATTEMPT_MOST)):
        return None
    return int(text) if int(text) <= ATTEMPT_MOST else None
