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
SliceHosts = Annotated[int, Field(ge=1, le=4096), BeforeValidator(as_whole)]
DevicesPerChip = Annotated[int, Field(ge=1, le=2), BeforeValidator(as_whole)]
Capacity = Literal["Spot", "OnDemand", "FlexStart", "Reserved"]


class Placement(ApiModel):
    """One rung of the ladder."""

    rules: ClassVar = (
        Rule(
            "has(self.accelerator) != has(self.cpu)",
            "a placement is on TPUs (accelerator and topology) or on CPUs (cpu)",
            lambda p: (p.accelerator is None) != (p.cpu is None),
        ),
        Rule(
            "!has(self.cpu) || (self.slices == 1 && !has(self.chipsPerNode) && !has(self.hosts))",
            "a cpu placement has neither slices, hosts nor chipsPerNode; set cpu.hosts",
            lambda p: p.cpu is None or (p.slices == 1 and p.chips_per_node is None and p.hosts is None),
        ),
        Rule(
            "has(self.accelerator) == (has(self.topology) || has(self.hosts))",
            "accelerator and topology go together: give both or neither, or hosts and chipsPerNode",
            lambda p: (p.accelerator is None) == (p.topology is None and p.hosts is None),
        ),
        Rule(
            "!has(self.hosts) || has(self.chipsPerNode)",
            "hosts needs chipsPerNode: together they say what a slice is",
            lambda p: p.hosts is None or p.chips_per_node is not None,
            ".hosts",
        ),
        Rule(
            "!has(self.devicesPerChip) || has(self.hosts)",
            "devicesPerChip is for a slice that is given by hosts; of the others it is known",
            lambda p: p.devices_per_chip is None or p.hosts is not None,
            ".devicesPerChip",
        ),
        Rule(
            "!has(self.computeClass) || !has(self.capacity)",
            "a ComputeClass chooses the capacity itself: leave capacity out",
            lambda p: p.compute_class is None or p.capacity is None,
            ".computeClass",
        ),
        Rule(
            "has(self.reservation) == (has(self.capacity) && self.capacity == 'Reserved')",
            "capacity Reserved and reservation, its name, go together",
            lambda p: (p.reservation is not None) == (p.capacity == "Reserved"),
            ".reservation",
        ),
        Rule(
            "!has(self.queuedProvisioning) || !self.queuedProvisioning || "
            "(has(self.capacity) && self.capacity == 'FlexStart')",
            "queuedProvisioning is for capacity FlexStart",
            lambda p: not p.queued_provisioning or p.capacity == "FlexStart",
            ".queuedProvisioning",
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
        "needed only where two machine shapes offer the same topology (2x4 of v5e and v6e), and with hosts.",
    )
    hosts: SliceHosts | None = Field(
        default=None,
        description="Machines of one slice, for an accelerator or a topology that `ratchet validate` does not know: "
        "with chipsPerNode it says what the slice is. Absent: it follows from the topology.",
    )
    devices_per_chip: DevicesPerChip | None = Field(
        default=None, description="Devices that JAX shows for one chip, with hosts. Absent: 1."
    )
    slices: Whole = whole("Number of slices of that topology; more than one is multislice.", ge=1, le=256, default=1)
    capacity: Capacity | None = Field(
        default=None,
        description="Spot capacity costs less and can be taken away after a notice of seconds; FlexStart is waited for "
        "and ends after seven days at the latest; Reserved is that of `reservation`. Absent: OnDemand, or what "
        "computeClass chooses.",
    )
    reservation: str | None = Field(
        default=None, min_length=1, max_length=63, description="Name of the reservation, for capacity Reserved."
    )
    queued_provisioning: bool | None = Field(
        default=None,
        description="Whether the FlexStart pool has queued provisioning, whose nodes come all at once; a "
        "ProvisioningRequest, for example Kueue's, asks for them. Absent: no.",
    )
    compute_class: str | None = Field(
        default=None,
        max_length=63,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        description="GKE ComputeClass that provides the nodes and chooses their capacity.",
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

    @property
    def capacity_type(self) -> Capacity | None:
        """The capacity that is asked for; None: a ComputeClass chooses it."""
        return self.capacity or (None if self.compute_class is not None else "OnDemand")

    @property
    def capacity_name(self) -> str:
        """The same for people and for accounts: ComputeClass where one chooses."""
        return self.capacity_type or "ComputeClass"

    @property
    def short_notice(self) -> bool:
        """Whether the machines may go with the notice of a spot machine, whatever grace a pod has."""
        return self.capacity_type in ("Spot", "FlexStart", None)


PLACEMENTS = Field(
    min_length=1,
    max_length=8,
    json_schema_extra=LIST_MAP,
    description="Where the job may run: tried in order, each for waitSeconds; the job stays with what works.",
)
