"""Maintenance that is announced, and machines whose end is known: what is done before the time has come.

From `spec.maintenance.leadSeconds` before the time on the trainer is asked for a checkpoint, and once more shortly
before it, through the stage gate: where the machine then goes without a word, at most the steps since are made again.
The attempt goes on until the machine really goes, which is often later than announced; its end is `end_signs`'. That
new attempts take other nodes is said to the scheduler in `build/nodes`.

A request is the time from which on it was due, in Unix seconds. So it follows from the nodes alone, grows with every
further one, also when a date is moved back, and no attempt is asked twice for the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from ratchet_api.job import Spec
from ratchet_api.status import AttemptStatus
from ratchet_operator.decide import stamps
from ratchet_operator.decide.observed_node import Announcement
from ratchet_operator.decide.plan_builder import PlanBuilder

LAST_CALL_SECONDS = 120.0
"""How long before the time the second checkpoint is asked for, at least; with a long grace, that long before."""


def checkpoint_request(builder: PlanBuilder, attempt: AttemptStatus, spec: Spec, before: int) -> tuple[int, str | None]:
    """The number of the newest checkpoint that is asked for, and why, if it is a new one; `before`: the number that the
    leader was told last. The time of the next request is when to look again."""
    newest, why = before, None
    for node, coming in sorted(announcements(builder, attempt), key=lambda pair: (pair[1], pair[0])):
        for due in _due(coming, spec):
            if not builder.observed.passed(due):
                builder.wake_at(due)
                break
            if (number := int(stamps.seconds(due))) > newest:
                newest = number
                why = f"node {node} goes at {coming.at} ({coming.words}); a checkpoint is asked for"
    return newest, why


def announcements(builder: PlanBuilder, attempt: AttemptStatus) -> Iterator[tuple[str, Announcement]]:
    """The announced ends of the nodes that the attempt runs on, with the nodes' names."""
    for pod in builder.observed.own_pods(attempt.number):
        node = builder.observed.node_of(pod)
        if node is not None and not node.absent and node.announced is not None:
            yield node.name, node.announced


def _due(coming: Announcement, spec: Spec) -> tuple[str, str]:
    """When the two checkpoints before an announced end are asked for."""
    lead = float(spec.maintenance.lead_seconds)
    last = min(lead, max(LAST_CALL_SECONDS, float(spec.pod_template.termination_grace_period_seconds)))
    return stamps.after(coming.at, -lead), stamps.after(coming.at, -last)
