"""What `decide` sees: one frozen picture of a job and everything that belongs to it.

Holds plain Kubernetes objects, as the API server gave them, so that a snapshot is YAML and a test case is a file. What
is in a snapshot is gathered by `observe`; what an object means is read by `views`; what follows from it is `decide`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

Raw = dict[str, Any]
"""A Kubernetes object (or a part of one) as plain JSON data."""


@dataclass(frozen=True)
class Values:
    """What the operator's own configuration allows and prefers."""

    image: str = "ratchet:dev"
    """Trainer image of jobs that name none."""
    service_accounts: tuple[str, ...] = ()
    """Service accounts that `spec.podTemplate` may name; empty allows only the namespace's default."""
    local_directory: str = ""
    """Folder of the nodes in which each job may have one of its own, for the fast tier; empty allows none."""


@dataclass(frozen=True)
class Snapshot:
    """One job as it stands at `now`.

    `pods` and `jobsets` are selected by the label `ratchet.dev/job-name`, of any job uid: a job that was deleted and
    applied again must wait for the pods of its predecessor. Both are complete lists. Every node that a pod in `pods` is
    bound to has a key in `nodes`. When the API server says that there is no such Node, its value is None, or its last
    state with `absent: true` where that is known: a machine that announced its end is often gone before its pods have
    been seen to end. Where another machine had the name before, `before` is its last state. A node whose state could
    not be read is left out: it then counts as present and gives no evidence.
    """

    now: str
    """API-server time, RFC 3339 in UTC with milliseconds: 2026-01-02T03:04:05.678Z."""
    job: Raw
    """The RLTrainingJob: apiVersion, kind, metadata, spec, status if there is one."""
    jobsets: Sequence[Raw] = ()
    pods: Sequence[Raw] = ()
    nodes: Mapping[str, Raw | None] = field(default_factory=dict)
    progress: Raw | None = None
    """Last answer of `/progress` whose identity (jobUID, attempt, jobSetUID) was checked, plus `receivedAt`: when it
    came, on the same clock and in the same form as `now`."""
    fence: int = 0
    """`leaseTransitions` of the operator's Lease."""
    flush_due: bool = True
    """Whether `progress` and `checkpoint` in status may be written now: at most every 10 s a job."""
    conflicts: Sequence[str] = ()
    """Names (kind/name) of objects that could not be created because a foreign object has the name. Kept by `apply`
    until a pass in which the creation succeeds or is no longer asked for."""
    values: Values = Values()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Snapshot:
        """The snapshot that a YAML case describes; keys are the fields. Raises TypeError on an unknown key."""
        unknown = set(data) - {f.name for f in fields(cls)}
        if unknown:
            raise TypeError(f"a snapshot has no {', '.join(sorted(unknown))}")
        values = dict(data.get("values", {}))
        if "service_accounts" in values:
            values["service_accounts"] = tuple(values["service_accounts"])
        return cls(**{**data, "values": Values(**values)})
