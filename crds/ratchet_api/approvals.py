"""What a person has agreed to: `spec.approvals[]`.

Decides what a manifest may say. Which ends of stages need an approval is said by the stages (`advance.Advance`,
`Guard`); what waits for one is decided by the operator (`ratchet_operator/decide/approval.py`).
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ratchet_api.base import ApiModel, Name


class Approval(ApiModel):
    """What comes after one stage may begin."""

    stage: Name = Field(description="The stage that has ended, or will end: the one after it may begin.")


APPROVALS: Any = Field(
    default=[],
    max_length=64,
    json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["stage"]},
    description="Stages whose end is approved, so that the next stage may begin or the job be completed; read where a "
    "stage asks for it: advance.approval, advance.atLimit, a guard's action. Can change at any time.",
)


def json_patch(spec: dict[str, Any], stage: str) -> list[dict[str, Any]]:
    """The JSON patch (RFC 6902) that adds an approval to a job whose `spec` is this one; no other entry is touched."""
    entry = {"stage": stage}
    if spec.get("approvals"):
        return [{"op": "add", "path": "/spec/approvals/-", "value": entry}]
    return [{"op": "add", "path": "/spec/approvals", "value": [entry]}]
