"""The stage gate as the text of one annotation on the leader pod: what the operator tells a running trainer."""

from __future__ import annotations

from collections.abc import Sequence

from ratchet_api.canonical import canonical, stage_hash
from ratchet_api.job import Spec
from ratchet_api.protocol.documents import GateStage, StageGate


def stage_gate(
    job_uid: str,
    attempt: int,
    spec: Spec,
    may_enter: int,
    finish: bool,
    added: Sequence[int],
    checkpoint_request: int = 0,
) -> str:
    """The document `StageGate` as canonical JSON.

    `may_enter`: index of the last stage that may be entered; `added`: indices of the stages that have begun since the
    attempt's ConfigMap was made, whose spec the trainer therefore takes from here; `checkpoint_request`: a higher
    number than before asks for a checkpoint at the next step.
    """
    stages = {index: spec.stages[index].manifest() for index in {may_enter, *added} if index < len(spec.stages)}
    gate = StageGate(
        job_uid=job_uid,
        attempt=attempt,
        may_enter=may_enter,
        spec_hash=stage_hash(stages[may_enter]),
        finish=finish,
        checkpoint_request=checkpoint_request,
        stages=[
            GateStage(index=i, spec_hash=stage_hash(stages[i]), spec=stages[i]) for i in sorted(added) if i in stages
        ],
    )
    return canonical(gate.plain()).decode()
