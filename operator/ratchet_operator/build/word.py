"""The word: what the operator tells a running trainer, as the text of one annotation on the leader pod."""

from __future__ import annotations

from collections.abc import Sequence

from ratchet_api.canonical import canonical, stage_hash
from ratchet_api.job import Spec
from ratchet_api.protocol import V


def word(job_uid: str, attempt: int, spec: Spec, may_enter: int, finish: bool, added: Sequence[int]) -> str:
    """The word as canonical JSON.

    `may_enter`: index of the last stage that may be entered; `added`: indices of the stages that have begun since the
    attempt's ConfigMap was made, whose spec the trainer therefore takes from here.
    """
    stages = {index: spec.stages[index].manifest() for index in {may_enter, *added} if index < len(spec.stages)}
    told = {
        "v": V,
        "jobUID": job_uid,
        "attempt": attempt,
        "mayEnter": may_enter,
        "specHash": stage_hash(stages[may_enter]),
        "finish": finish,
        "checkpointRequest": 0,
        "stages": [
            {"index": i, "specHash": stage_hash(stages[i]), "spec": stages[i]} for i in sorted(added) if i in stages
        ],
    }
    return canonical(told).decode()
