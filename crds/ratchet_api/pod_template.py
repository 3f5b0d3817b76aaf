"""What a manifest may add to the trainer's pods, and as whom they run.

Decides the part of a pod that is the user's. What is not here (host network, host folders, privileged containers,
further containers) cannot be asked for; what the operator's own values must allow, `decide/acceptance` looks at.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from ratchet_api.base import LIST_MAP, ApiModel, Rule, StringMap, Whole, as_whole, whole
from ratchet_api.pod_volumes import OBJECT_NAME, QUANTITY, Volume
from ratchet_api.verifiers import SecretKey


class EnvVarSource(ApiModel):
    """Where a variable's value comes from, as in core/v1."""

    secret_key_ref: SecretKey = Field(
        description="Key of a Secret. The kubelet reads it; it stands in no manifest and the operator never sees it."
    )


class EnvVar(ApiModel):
    """A variable of the trainer's environment."""

    rules: ClassVar = (
        Rule(
            "!has(self.valueFrom) || !has(self.value) || self.value == ''",
            "a variable has a value or valueFrom, not both",
            lambda v: v.value_from is None or not v.value,
            ".valueFrom",
        ),
    )
    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128, description="Name of the variable.")
    value: str = Field(default="", max_length=4096, description="Value of the variable; credentials go to valueFrom.")
    value_from: EnvVarSource | None = Field(default=None, description="A Secret that has the value; absent: none.")


class ObjectReference(ApiModel):
    """A Secret or ConfigMap in the namespace of the job."""

    name: str = Field(max_length=253, pattern=OBJECT_NAME, description="Its name.")
    optional: bool = Field(default=False, description="Whether pods start without it, too.")


class EnvFromSource(ApiModel):
    """All keys of a Secret or a ConfigMap as variables, as in core/v1."""

    rules: ClassVar = (
        Rule(
            "has(self.secretRef) != has(self.configMapRef)",
            "variables come from a secretRef or a configMapRef, exactly one",
            lambda s: (s.secret_ref is None) != (s.config_map_ref is None),
        ),
    )
    prefix: str = Field(
        default="",
        max_length=128,
        pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$",
        description="What is put before the name of each variable.",
    )
    secret_ref: ObjectReference | None = Field(
        default=None, description="The Secret. The kubelet reads it; the operator never sees what is in it."
    )
    config_map_ref: ObjectReference | None = Field(default=None, description="The ConfigMap.")


class PullSecret(ApiModel):
    """A Secret with which the trainer's image is pulled."""

    name: str = Field(max_length=253, pattern=OBJECT_NAME, description="Name of the Secret.")


CPUS = r"^[0-9]{1,4}(\.[0-9]{1,9})?$|^[0-9]{1,7}m$"


class ResourceList(ApiModel):
    """Amounts of CPU and memory, as in core/v1."""

    cpu: str | None = Field(
        default=None,
        pattern=CPUS,
        max_length=32,
        description="CPUs, for example 4 as a string. The whole number of them is the trainer's thread count (NPROC).",
    )
    memory: str | None = Field(default=None, pattern=QUANTITY, max_length=32, description="Memory, for example 8Gi.")


class Resources(ApiModel):
    """Compute resources of each trainer pod; TPU chips are added by the operator."""

    requests: ResourceList = Field(default=ResourceList(), description="What is reserved.")
    limits: ResourceList = Field(default=ResourceList(), description="What is never exceeded.")


UserId = Annotated[int, Field(ge=0, le=2**31 - 1), BeforeValidator(as_whole)]


class PodTemplate(ApiModel):
    """What the user may add to the trainer's pods."""

    labels: StringMap = Field(default={}, max_length=32, description="Labels added to the pods.")
    annotations: StringMap = Field(default={}, max_length=32, description="Annotations added to the pods.")
    env: list[EnvVar] = Field(
        default=[], max_length=64, json_schema_extra=LIST_MAP, description="Environment of the trainer."
    )
    env_from: list[EnvFromSource] = Field(
        default=[],
        max_length=16,
        description="Secrets and ConfigMaps whose keys become variables. What `env` or the operator sets goes before.",
    )
    image_pull_secrets: list[PullSecret] = Field(
        default=[],
        max_length=16,
        json_schema_extra=LIST_MAP,
        description="Secrets of the job's namespace with which the image is pulled.",
    )
    volumes: list[Volume] = Field(
        default=[],
        max_length=16,
        json_schema_extra=LIST_MAP,
        description="Volumes added to the pods: scratch space, shared memory, Secrets, ConfigMaps, claims.",
    )
    resources: Resources = Field(default=Resources(), description="CPU and memory of each pod.")
    service_account_name: str | None = Field(
        default=None,
        max_length=253,
        pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$",
        description="Service account of the pods; only those that the operator's values allow.",
    )
    run_as_user: UserId | None = Field(
        default=None,
        description="Id of the user that the trainer runs as. Absent: the chart's value trainer.runAsUser. 0, root, "
        "only where the chart's value trainer.allowRoot is true.",
    )
    run_as_group: UserId | None = Field(
        default=None, description="Id of its group. Absent: the chart's value trainer.runAsGroup."
    )
    read_only_root_filesystem: bool | None = Field(
        default=None,
        description="Whether the image's own files are read-only for the trainer, which writes to /tmp and to volumes "
        "alone. Absent: the chart's value trainer.readOnlyRootFilesystem. false: for an image that writes elsewhere.",
    )
    fs_group: Whole = whole(
        "Group that owns the files of mounted volumes, so that a trainer that is not root can write to them. The group "
        "of a volume is changed at its first mount only (OnRootMismatch).",
        ge=0,
        default=10001,
    )
    termination_grace_period_seconds: Whole = whole(
        "Seconds that a pod gets to commit its state when it is told to go; no more than the notice where capacity is "
        "taken away, and all of it, up to an hour, in a maintenance. Larger for a model whose checkpoint takes longer.",
        ge=5,
        le=3600,
        default=30,
    )
    priority_class_name: str | None = Field(
        default=None,
        max_length=253,
        pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$",
        description="PriorityClass of the pods; absent: the cluster's default.",
    )
