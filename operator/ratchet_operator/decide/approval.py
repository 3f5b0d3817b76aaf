"""Which end of a stage waits for an approval, and what a user is told meanwhile.

The trainer says that an end needs one (`boundary.needsApproval`: from advance.approval, advance.atLimit or a guard's
action), `stage_progress` writes that down, an entry of `spec.approvals` grants it. While it is missing the stage gate
stays shut and no attempt starts, so nothing is held and nothing is charged.
"""

from __future__ import annotations

import json

from ratchet_api.approvals import json_patch
from ratchet_api.job import PLURAL, Spec
from ratchet_api.status import StageRecord, Status
from ratchet_operator.decide.observed_job import ObservedJob


def missing(status: Status) -> StageRecord | None:
    """The stage whose end is recorded and not yet approved; None if nothing waits."""
    last = status.stages[-1] if status.stages else None
    if last is None or last.end_step is None or not last.needs_approval or last.approved_time is not None:
        return None
    return last


def given(spec: Spec, stage: str) -> bool:
    """Whether the end of that stage is approved; it may be before it has come."""
    return any(approval.stage == stage for approval in spec.approvals)


def in_words(observed: ObservedJob, waits: StageRecord) -> str:
    """What has ended, what comes next, and the commands that let it begin."""
    stages = observed.spec.stages if observed.spec is not None else []
    after = waits.index + 1
    then = f"stage {stages[after].name} begins" if after < len(stages) else "the job is completed"
    why = f" ({waits.rule})" if waits.rule else ""
    return (
        f"stage {waits.name} ended at step {waits.end_step}{why}; {then} once that is approved: "
        f"ratchet approve {observed.name} {waits.name} -n {observed.namespace}, or {_patch(observed, waits.name)}"
    )


def _patch(observed: ObservedJob, stage: str) -> str:
    patch = json.dumps(json_patch(observed.snapshot.job["spec"], stage), separators=(",", ":"))
    return f"kubectl patch {PLURAL} {observed.name} -n {observed.namespace} --type=json -p '{patch}'"
