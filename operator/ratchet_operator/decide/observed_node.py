"""What a Node says of its machine: whether it is there, whether it is well, whether it is about to go.

Decides how Kubernetes and GKE say so (core/v1, and GKE's documentation of spot VMs and node disruption):

| what | label, taint, annotation or condition |
|---|---|
| maintenance is announced | label `scheduled-maintenance-time` (Unix seconds), annotation `upcoming-maintenance` |
| a machine ends at a known time | annotation `machine-termination-datetime` (reservations and flex-start) |
| maintenance is going on | label `active-node-maintenance=ONGOING`, taint `maintenance-window-started` |
| the machine is going now | taint `impending-node-termination`, or Ready is not True: node is shutting down |

What is announced is no sign of an end, only a date. What follows from a date is `maintenance`'s, from the rest
`end_signs`'.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from ratchet_api.protocol import LABEL_NOTICE_SECONDS, SPOT_GRACE_SECONDS
from ratchet_operator.build.nodes import FLEX_START, MAINTENANCE_ACTIVE, MAINTENANCE_TIME, ONGOING, QUEUED, SPOT
from ratchet_operator.decide import stamps
from ratchet_operator.decide.observed_object import condition
from ratchet_operator.snapshot import Raw

TAINT_TERMINATION = "cloud.google.com/impending-node-termination"
TAINT_MAINTENANCE = "cloud.google.com/maintenance-window-started"
TAINT_OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
ANNOTATION_MAINTENANCE = "node.gke.io/upcoming-maintenance"
ANNOTATION_TERMINATION = "node.gke.io/machine-termination-datetime"
ANNOTATIONS = (ANNOTATION_MAINTENANCE, ANNOTATION_TERMINATION)
"""Annotations of nodes that matter to a job; the others are not kept."""
SHORT_LIVED = (SPOT, FLEX_START, QUEUED, "cloud.google.com/gke-preemptible")
"""Labels of capacity that is sold with the reservation that it may be taken away."""
SHUTTING_DOWN = "node is shutting down"  # kubelet's graceful shutdown, in the message of the condition Ready
LATEST = stamps.seconds("9999-01-01T00:00:00Z")


@dataclass(frozen=True, order=True)
class Announcement:
    """That a machine goes at a known time."""

    at: str
    """When, a stamp."""
    words: str
    """What is announced and where that is said."""


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

    @cached_property
    def termination(self) -> tuple[str, str | None] | None:
        """What announces that the machine is going away now, and when that was stamped; None if nothing does."""
        for taint in self._taints():
            if taint.get("key") == TAINT_TERMINATION:
                return f"taint {TAINT_TERMINATION}", taint.get("timeAdded")
        ready = condition(self.raw or {}, "Ready") or {}
        if ready.get("status") != "True" and SHUTTING_DOWN in (ready.get("message") or ""):
            return f"Ready={ready.get('status')}: {ready['message']}", ready.get("lastTransitionTime")
        return None

    @cached_property
    def maintenance(self) -> tuple[str, str | None] | None:
        """What says that its maintenance has begun, and when that was stamped; None if nothing does."""
        for taint in self._taints():
            if taint.get("key") == TAINT_MAINTENANCE:
                return f"taint {TAINT_MAINTENANCE}", taint.get("timeAdded")
        if self._labels.get(MAINTENANCE_ACTIVE) == ONGOING:
            return f"label {MAINTENANCE_ACTIVE}={ONGOING}", None
        if self._upcoming.get("maintenance_status") == ONGOING:
            return f"annotation {ANNOTATION_MAINTENANCE}: {ONGOING}", None
        return None

    @property
    def announced(self) -> Announcement | None:
        """The first time at which the machine is announced to go; None if none is, or none that can be read."""
        found = (
            (_from_epoch(self._labels.get(MAINTENANCE_TIME)), f"maintenance, label {MAINTENANCE_TIME}"),
            (_from_text(self._upcoming.get("window_start_time")), f"maintenance, annotation {ANNOTATION_MAINTENANCE}"),
            (
                _from_text(self._annotations.get(ANNOTATION_TERMINATION)),
                f"the machine's known end, annotation {ANNOTATION_TERMINATION}",
            ),
        )
        return min((Announcement(at, words) for at, words in found if at is not None), default=None)

    @property
    def notice_seconds(self) -> float:
        """What its kubelet gives ordinary pods when the machine is taken: the default, unless the node says more."""
        text = self._labels.get(LABEL_NOTICE_SECONDS, "")
        return float(text) if text.isdecimal() and len(text) < 5 else float(SPOT_GRACE_SECONDS)

    @property
    def lasting(self) -> bool:
        """Whether it is known to be capacity that is not sold as one that may be taken away."""
        labels = self._labels
        return bool(labels) and not any(labels.get(key) == "true" for key in SHORT_LIVED)

    @property
    def out_of_service(self) -> bool:
        return any(taint.get("key") == TAINT_OUT_OF_SERVICE for taint in self._taints())

    def _taints(self) -> list[Raw]:
        return ((self.raw or {}).get("spec") or {}).get("taints") or []

    @cached_property
    def _labels(self) -> dict[str, str]:
        return ((self.raw or {}).get("metadata") or {}).get("labels") or {}

    @cached_property
    def _annotations(self) -> dict[str, str]:
        return ((self.raw or {}).get("metadata") or {}).get("annotations") or {}

    @cached_property
    def _upcoming(self) -> dict[str, str]:
        """The annotation `upcoming-maintenance`: a JSON object of strings; empty if it is none."""
        if ANNOTATION_MAINTENANCE not in self._annotations:
            return {}
        try:
            said = json.loads(self._annotations[ANNOTATION_MAINTENANCE])
        except (ValueError, RecursionError):
            return {}
        return {k: v for k, v in said.items() if isinstance(v, str)} if isinstance(said, dict) else {}


def _from_epoch(text: str | None) -> str | None:
    """The stamp of Unix seconds as a text; None for anything else."""
    if text is None or not text.isdecimal() or len(text) > 12 or int(text) >= LATEST:
        return None
    return stamps.stamp(float(text))


def _from_text(text: str | None) -> str | None:
    """The stamp of an RFC 3339 text, in UTC; None for anything else, and for a time without a zone."""
    try:
        at = datetime.fromisoformat(text or "")
        return None if at.tzinfo is None else stamps.stamp(at.astimezone(UTC).timestamp())
    except (ValueError, OverflowError):
        return None
