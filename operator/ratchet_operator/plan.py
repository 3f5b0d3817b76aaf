"""What `decide` wants done: a Plan, plain data that `apply` carries out.

A Plan is carried out in this order: the status first when `status_first` (it authorizes what follows; if it cannot be
written nothing else is done), creations, deletions, patches, the status otherwise, events last. Each act is idempotent,
and a pass that stops between any two of them is made good by the next pass. Applying a Plan and deciding again gives an
empty Plan.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Raw = dict[str, Any]


@dataclass(frozen=True)
class Delete:
    """Delete one object, and only the one with this uid. One that is gone already is as good as deleted."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str | None
    """None: `apply` reads the object first, and deletes it only if its ownerReference says that it is the job's."""
    grace_seconds: int | None = None
    """gracePeriodSeconds; None leaves the object's own."""
    propagation: Literal["Background", "Foreground", "Orphan"] | None = None


@dataclass(frozen=True)
class Patch:
    """Merge-patch one object if it still is the one that was seen (uid and resourceVersion)."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str
    body: Raw


@dataclass(frozen=True)
class Event:
    """One event on the job, for a transition; written after the status."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Plan:
    """Everything that one pass wants done."""

    status: Raw | None = None
    """The whole new `status`; None when it is unchanged. Written once a pass, with a resourceVersion precondition."""
    status_first: bool = False
    """Whether the status must be written before the acts, because it authorizes them."""
    create: tuple[Raw, ...] = ()
    """Whole objects to POST, in order. On 409: adopted if the ownerReference's uid is the job's, else a conflict."""
    create_last: tuple[Raw, ...] = ()
    """Objects of workers, to POST once all else is written: what refuses one of them keeps nothing from the trainer."""
    delete: tuple[Delete, ...] = ()
    patch: tuple[Patch, ...] = ()
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None
    """Seconds after which to look again though nothing may have changed; None: only when something changes."""

    unreadable: str | None = None
    """What is wrong with a spec that cannot be read at all; nothing but that could be decided."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do; a wish to look again later is nothing."""
        return not (
            self.status is not None or self.create or self.create_last or self.delete or self.patch or self.events
        )

    def to_dict(self) -> Raw:
        """The plan as YAML writes it: only what is there."""
        out = {key: value for key, value in asdict(self).items() if value not in (None, (), False)}
        for key in ("delete", "patch", "events"):
            if key in out:
                out[key] = [{k: v for k, v in item.items() if v is not None} for item in out[key]]
        for key in ("create", "create_last"):
            if key in out:
                out[key] = list(out[key])
        return out
