"""Volumes that a manifest may add to the trainer's pods: scratch space, shared memory, Secrets, ConfigMaps, claims.

Decides which kinds there are (those that the Pod Security Standard `restricted` admits; no folder of the node) and
where they may be mounted. Whether they would cover what the operator mounts itself is `decide/acceptance`'s matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from ratchet_api.base import ApiModel, Name, Rule

QUANTITY = r"^[0-9]{1,9}(\.[0-9]{1,9})?(m|k|[MGTPE]|[KMGTPE]i)?$"
OBJECT_NAME = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"
KINDS = ("emptyDir", "ephemeral", "secret", "configMap", "persistentVolumeClaim")
SHARED_MEMORY, SCRATCH = "/dev/shm", "/tmp"
"""The two folders of the system over which a volume may lie."""
SYSTEM_FOLDERS = (
    "bin", "boot", "dev", "etc", "lib", "lib64", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "var",
)  # fmt: skip
RESERVED = ("/dev", "/proc", "/sys", "/etc/ratchet", "/run/secrets", "/var/run/secrets")
"""Folders in which nothing may be mounted: of the kernel, of the container runtime, and of the operator."""


class EmptyDir(ApiModel):
    """Room on the node that goes with the pod."""

    medium: Literal["", "Memory"] = Field(
        default="", description="Memory: it lies in memory, and counts for the pod's memory limit. Absent: on a disk."
    )
    size_limit: str | None = Field(
        default=None,
        pattern=QUANTITY,
        max_length=32,
        description="A pod that puts more into it is evicted, for example 20Gi. Absent: no limit; in memory: half of "
        "the node's.",
    )


class EphemeralVolume(ApiModel):
    """A volume that is made for the pod and goes with it."""

    storage: str = Field(pattern=QUANTITY, max_length=32, description="Its size, for example 200Gi.")
    storage_class_name: str | None = Field(
        default=None, max_length=253, pattern=OBJECT_NAME, description="Its class; absent: the cluster's default."
    )


class SecretVolume(ApiModel):
    """The keys of a Secret as files."""

    secret_name: str = Field(max_length=253, pattern=OBJECT_NAME, description="Name of the Secret.")


class ConfigMapVolume(ApiModel):
    """The keys of a ConfigMap as files."""

    name: str = Field(max_length=253, pattern=OBJECT_NAME, description="Name of the ConfigMap.")


class ClaimVolume(ApiModel):
    """A volume that stays."""

    claim_name: str = Field(max_length=253, pattern=OBJECT_NAME, description="Name of the PersistentVolumeClaim.")
    read_only: bool = Field(default=False, description="Whether the trainer can only read it.")


class Volume(ApiModel):
    """One volume and where it is mounted; exactly one kind."""

    rules: ClassVar = (
        Rule(
            "[has(self.emptyDir), has(self.ephemeral), has(self.secret), has(self.configMap), "
            "has(self.persistentVolumeClaim)].filter(x, x).size() == 1",
            f"a volume is exactly one of {', '.join(KINDS)}",
            lambda v: (
                sum(
                    x is not None for x in (v.empty_dir, v.ephemeral, v.secret, v.config_map, v.persistent_volume_claim)
                )
                == 1
            ),
        ),
    )
    name: Name = Field(description="Name of the volume.")
    mount_path: str = Field(
        min_length=2,
        max_length=1024,
        pattern=r"^/.*$",
        description="Folder where it is mounted. /dev/shm and /tmp may be named; other folders of the system not.",
    )
    empty_dir: EmptyDir | None = Field(default=None, description="Room on the node that goes with the pod.")
    ephemeral: EphemeralVolume | None = Field(
        default=None, description="A volume of a storage class, made for each pod and gone with it."
    )
    secret: SecretVolume | None = Field(default=None, description="A Secret as files; read-only.")
    config_map: ConfigMapVolume | None = Field(default=None, description="A ConfigMap as files; read-only.")
    persistent_volume_claim: ClaimVolume | None = Field(default=None, description="A claim that is there.")


def impossible_mounts(where: str, volumes: list[Volume]) -> Iterator[tuple[str, str]]:
    """Path and message of each volume of the pod template `where` that cannot be mounted where it is wanted."""
    places: dict[str, str] = {}
    for i, volume in enumerate(volumes):
        path, place = f"{where}.volumes[{i}].mountPath", volume.mount_path
        if any(part in ("", ".", "..") for part in place.split("/")[1:]) or not place.isprintable() or ":" in place:
            yield path, f"{place!r} has an empty part, . or .., a colon or a control character; write it without"
        elif not mountable(place):
            yield path, f"{place} is a folder that the system needs; use /scratch, /dev/shm, /tmp or another of yours"
        if place in places:
            yield path, f"volume {places[place]} is mounted at {place}, too; use another folder"
        places[place] = volume.name


def mountable(place: str) -> bool:
    """Whether a volume may lie over this folder of the image."""
    if place in (SHARED_MEMORY, SCRATCH):
        return True
    return place[1:] not in SYSTEM_FOLDERS and not any(f"{place}/".startswith(f"{one}/") for one in RESERVED)
