"""What a Node says of its machine: whether it is there, whether it is well, whether it is about to go.

Decides how Kubernetes and GKE say so (core/v1, and GKE's documentation of spot VMs and node disruption).
"""

from __future__ import annotations

from dataclasses import dataclass

from ratchet_operator.decide.observed_object import condition
from ratchet_operator.snapshot import Raw

TAINT_TERMINATION = "cloud.google.com/impending-node-termination"
TAINT_OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
SHUTTING_DOWN = "node is shutting down"  # kubelet's graceful shutdown, in the message of the condition Ready


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
