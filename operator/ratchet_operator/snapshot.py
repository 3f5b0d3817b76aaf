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
    run_as_user: int = 10001
    """User that trainers run as whose manifest names none."""
    run_as_group: int = 10001
    """Their group."""
    allow_root: bool = False
    """Whether a trainer may run as user 0."""
    json_logs: bool = False
    """Whether trainers write their log as JSON, as the operator does."""
    worker_priority_class: str = ""
    """PriorityClass of workers whose manifest names none; empty: the cluster's default."""
    read_only_root: bool = True
    """Whether a container's root file system is read-only where the manifest does not say."""


@dataclass(frozen=True)
class Surroundings:
    """What of the namespace can keep an attempt's pods from starting."""

    objects: Mapping[tuple[str, str], Raw | None] = field(default_factory=dict)
    """(kind, name) of claims and ConfigMaps that the job names -> what is there; None: nothing of that name. What could
    not be read is left out."""
    quotas: Sequence[Raw] = ()


@dataclass(frozen=True)
class Snapshot:
    """One job as it stands at `now`.

    `pods` and `jobsets` are selected by the label `ratchet.dev/job-name`, of any job uid: a job that was deleted and
    applied again must wait for the pods of its predecessor. Both are complete lists; `pods` has those that are gone,
    too (`gone: true`), as they were when they had ended, as far as the watch has told of them lately. Every node that a
    listed pod is bound to has a key in `nodes`. When the API server says that there is no such Node, its value is None,
    or its last state with `absent: true` where that is known: a machine that announced its end is often gone before its
    pods have been seen to end. Where another machine had the name before, `before` is its last state. A node whose
    state could not be read is left out: it then counts as present and gives no evidence.
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
    silent_since: str | None = None
    """When the leader of the present attempt was last heard (or first asked), if it has not answered for a minute."""
    fence: int = 0
    """`leaseTransitions` of the operator's Lease."""
    flush_due: bool = True
    """Whether `progress` and `checkpoint` in status may be written now: at most every 10 s a job."""
    conflicts: Sequence[str] = ()
    """Names (kind/name) of objects that could not be created because a foreign object has the name. Kept by `apply`
    until a pass in which the creation succeeds or is no longer asked for."""
    refused: str | None = None
    """What the API server said when it last refused an object of the present attempt; None once it has not."""
    troubles: Sequence[str] = ()
    """Warnings about the Jobs of an attempt whose pods are missing, or about its pods that do not start, oldest first:
    the words of events, which no condition repeats."""
    directory_owner: str | None = None
    """namespace/name of another job that is not over and works in this one's checkpoint directory."""
    instead: tuple[str, str] | None = None
    """Reason and message of Accepted=False where `job` holds, instead of its own spec, the one that its last attempt
    was made from: its own cannot be worked with, and recovery goes on from what was admitted before."""
    told: Sequence[str] = ()
    """uids of foreign objects with this job's labels that an event has told of already."""
    values: Values = Values()
    surroundings: Surroundings | None = None
    """None: not looked at, which is done only when an attempt would be created."""

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
