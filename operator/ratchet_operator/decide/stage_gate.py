"""The stage gate: how far the running trainer may go, written onto its leader pod.

It follows from status and from what nodes announce (`maintenance`), so it can be written again at any time. `mayEnter`
is a ceiling: an attempt that restarted from an earlier checkpoint passes through without waiting.
"""

from __future__ import annotations

from ratchet_api.job import Spec
from ratchet_api.protocol import ANNOTATION_STAGE_GATE, STAGE_GATE_LIMIT
from ratchet_api.status import AttemptStatus
from ratchet_operator.build.stage_gate import stage_gate
from ratchet_operator.decide import maintenance, stage_progress
from ratchet_operator.decide.plan_builder import PlanBuilder
from ratchet_operator.plan import Patch, Raw


def write(builder: PlanBuilder, attempt: AttemptStatus, spec: Spec) -> None:
    """Puts the gate onto the running leader if it is another than the one there."""
    status = builder.status
    if status.stage is None:
        return
    pods = builder.observed.own_pods(attempt.number)
    leader = next((p for p in pods if p.is_leader and p.running and p.deletion is None), None)
    if leader is None or leader.jobset_uid != attempt.job_set_uid:
        return
    # The ConfigMap of the attempt holds the stages that had begun before it was made; the first one always had.
    added = [r.index for r in status.stages if r.index and (r.start_time or "") >= (attempt.start_time or "")]
    finish = stage_progress.last_stage_over(status)
    request, why = maintenance.checkpoint_request(builder, attempt, spec, leader.checkpoint_request)
    text = stage_gate(builder.observed.uid, attempt.number, spec, status.stage.index, finish, added, request)
    if len(text.encode()) > STAGE_GATE_LIMIT:
        # The trainer leaves with 75 after a minute at the gate, and the next attempt's ConfigMap holds everything.
        if status.stage != builder.observed.status.stage:
            message = f"stage {status.stage.name} begins with another attempt: its stage gate is too long to be written"
            builder.event("Normal", "StageGateTooLong", message)
        return
    if leader.stage_gate != text:
        body: Raw = {"metadata": {"annotations": {ANNOTATION_STAGE_GATE: text}}}
        patch = Patch("v1", "Pod", leader.namespace, leader.name, leader.uid, leader.resource_version, body)
        builder.patch.append(patch)
        if why is not None:
            builder.event("Normal", "MaintenanceAnnounced", why)
