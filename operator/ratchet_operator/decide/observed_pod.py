"""What a trainer pod says: whose it is, where it is, whether it runs, how it ended.

Decides how Kubernetes and GKE say so (which label, which condition), so that the rest of the core can speak of leaders
and ends. What follows from it is decided elsewhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

from ratchet_api.protocol import ANNOTATION_STAGE_GATE, LABEL_JOB_UID, LABEL_JOBSET_UID
from ratchet_api.protocol import Exit as Code
from ratchet_api.protocol.documents import StageGate, TerminationMessage, read_termination_message
from ratchet_operator.decide import stamps
from ratchet_operator.decide.observed_object import attempt_number, condition, worker
from ratchet_operator.snapshot import Raw

LABEL_JOB_INDEX = "jobset.sigs.k8s.io/job-index"
COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"
CONTAINER = "trainer"


@dataclass(frozen=True)
class Exit:
    """How a pod's trainer ended: exit code (128 + n for signal n), runtime's reason, and its termination message."""

    code: int
    reason: str
    message: TerminationMessage
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

    @property
    def gone(self) -> bool:
        """Whether the API server has it no more, and this is how it was last."""
        return bool(self.raw.get("gone"))

    @cached_property
    def labels(self) -> dict[str, str]:
        return self.raw["metadata"].get("labels") or {}

    @cached_property
    def annotations(self) -> dict[str, str]:
        return self.raw["metadata"].get("annotations") or {}

    @cached_property
    def status(self) -> Raw:
        return self.raw.get("status") or {}

    @cached_property
    def attempt(self) -> int | None:
        """Number of its attempt; None for a pod that is none of ours whatever else its labels say."""
        return attempt_number(self.raw)

    @cached_property
    def worker(self) -> tuple[int, int] | None:
        """Numbers of the worker that it is part of, and of that worker's JobSet; None for a trainer's."""
        return worker(self.raw)

    @cached_property
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
    def has_run(self) -> bool:
        """Whether its container has ever run."""
        return any(key in self._container().get("state", {}) for key in ("running", "terminated"))

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

    @cached_property
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
            message=read_termination_message(text),
            text=text,
            finished=terminated.get("finishedAt"),
        )

    @property
    def committed(self) -> bool:
        """Whether it left by itself after all of its work was committed."""
        return self.exit is not None and self.exit.code in (Code.DONE, Code.DRAINED)

    @property
    def waiting(self) -> Raw:
        """Why its container does not start: {reason, message}, empty if it does not wait."""
        return self._container().get("state", {}).get("waiting") or {}

    @property
    def image_id(self) -> str:
        return str(self._container().get("imageID") or "")

    @property
    def stage_gate(self) -> str | None:
        """The stage gate that was last written onto it."""
        return self.annotations.get(ANNOTATION_STAGE_GATE)

    @property
    def gate_opens_up_to(self) -> int:
        """The stage that the gate on it lets the trainer enter; -1 without one that can be read."""
        return -1 if self._gate is None else self._gate.may_enter

    @property
    def checkpoint_request(self) -> int:
        """The number of the last checkpoint that the gate on it asks for; 0 without one that can be read."""
        return 0 if self._gate is None else self._gate.checkpoint_request

    @cached_property
    def _gate(self) -> StageGate | None:
        try:
            return StageGate.model_validate(json.loads(self.stage_gate or ""))
        except (ValueError, RecursionError):
            return None

    def _container(self) -> Raw:
        statuses = self.status.get("containerStatuses") or ()
        return next((s for s in statuses if s.get("name") == CONTAINER), {})
