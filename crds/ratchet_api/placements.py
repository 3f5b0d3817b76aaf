"""Where a job may run: `spec.placements[]`, a ladder of node pools.

Decides what a manifest may say of a placement. Which shapes exist on GKE is in `tpu_topologies`; which placement is
tried is decided in `ratchet_operator/decide/placement.py`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from ratchet_api.base import LIST_MAP, ApiModel, Name, Rule, StringMap, Whole, as_whole, whole


class Toleration(ApiModel):
    """A taint that the pods tolerate, as in core/v1."""

    key: str | None = Field(default=None, max_length=317, description="Key of the taint; absent means every taint.")
    operator: Literal["Exists", "Equal"] = Field(default="Equal", description="How the value is compared.")
    value: str | None = Field(default=None, max_length=63, description="Value of the taint.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Effect of the taint; absent means every effect."
    )


class Cpu(ApiModel):
    """A placement without accelerators."""

    hosts: Whole = whole("Number of pods, one process each.", ge=1, le=256, default=1)


ChipsPerNode = Annotated[int, Field(ge=1, le=8), BeforeValidator(as_whole)]


class Placement(ApiModel):
    """One rung of the ladder."""

    rules: ClassVar = (
        Rule(
            "has(self.accelerator) != has(self.cpu)",
            "a placement is on TPUs (accelerator and topology) or on CPUs (cpu)",
            lambda p: (p.accelerator is None) != (p.cpu is None),
        ),
        Rule(
            "has(self.accelerator) == has(self.topology)",
            "accelerator and topology go together: give both or neither",
            lambda p: (p.accelerator is None) == (p.topology is None),
        ),
        Rule(
            "!has(self.cpu) || (self.slices == 1 && !has(self.chipsPerNode))",
            "a cpu placement has neither slices nor chipsPerNode; set cpu.hosts",
            lambda p: p.cpu is None or (p.slices == 1 and p.chips_per_node is None),
        ),
    )
    name: Name = Field(description="Name of the placement, shown in status.")
    accelerator: str | None = Field(
        default=None,
        max_length=40,
        description="Value of the node label cloud.google.com/gke-tpu-accelerator, for example tpu-v6e-slice.",
    )
    topology: str | None = Field(
        default=None,
        max_length=20,
        description="Value of the node label cloud.google.com/gke-tpu-topology, for example 4x4.",
    )
    chips_per_node: ChipsPerNode | None = Field(
        default=None,
        description="Chips of one machine; "
        "needed only where two machine shapes offer the same topology (2x4 of v5e and v6e).",
    )
    slices: Whole = whole("Number of slices of that topology; more than one is multislice.", ge=1, le=256, default=1)
    capacity: Literal["Spot", "OnDemand"] = Field(
        default="OnDemand", description="Spot capacity costs less and can be taken away after a notice of seconds."
    )
    wait_seconds: Whole = whole(
        "How long to wait for all pods to be scheduled here before the next placement is tried.",
        ge=1,
        le=604_800,
        default=900,
    )
    cpu: Cpu | None = Field(default=None, description="Run on CPU nodes instead of TPUs.")
    zone: str | None = Field(default=None, max_length=63, description="Zone that the nodes must be in.")
    node_selector: StringMap = Field(default={}, max_length=16, description="Further labels that nodes must have.")
    tolerations: list[Toleration] = Field(default=[], max_length=16, description="Further taints that are tolerated.")


PLACEMENTS = Field(
    min_length=1,
    max_length=8,
    json_schema_extra=LIST_MAP,
    description="Where the job may run: tried in order, each for waitSeconds; the job stays with what works.",
)
