"""What `spec.podTemplate` adds to a pod beyond single fields: volumes with their mounts, and variables from objects.

Decides their shape in a pod. Names of volumes get a prefix of their own, so that none meets one of the operator's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ratchet_api.pod_template import PodTemplate
from ratchet_api.pod_volumes import SCRATCH, Volume

Part = tuple[dict[str, Any], dict[str, Any]]
"""A volume and its mount."""


def added_volumes(volumes: Iterable[Volume]) -> list[Part]:
    """The volumes of the manifest, and /tmp where it names none there: trainers have a read-only root."""
    given = list(volumes)
    own: list[Part] = []
    if not any(volume.mount_path == SCRATCH for volume in given):
        own.append(({"name": "tmp", "emptyDir": {}}, {"name": "tmp", "mountPath": SCRATCH}))
    return own + [_part(volume) for volume in given]


def _part(volume: Volume) -> Part:
    name = f"template-{volume.name}"
    mount: dict[str, Any] = {"name": name, "mountPath": volume.mount_path}
    if volume.empty_dir is not None:
        medium = {"medium": volume.empty_dir.medium} if volume.empty_dir.medium else {}
        limit = {"sizeLimit": volume.empty_dir.size_limit} if volume.empty_dir.size_limit else {}
        return {"name": name, "emptyDir": medium | limit}, mount
    if volume.ephemeral is not None:
        asked = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": volume.ephemeral.storage}}}
        if volume.ephemeral.storage_class_name is not None:
            asked["storageClassName"] = volume.ephemeral.storage_class_name
        return {"name": name, "ephemeral": {"volumeClaimTemplate": {"spec": asked}}}, mount
    if volume.persistent_volume_claim is not None:
        claim = volume.persistent_volume_claim
        source = {"claimName": claim.claim_name} | ({"readOnly": True} if claim.read_only else {})
        return {"name": name, "persistentVolumeClaim": source}, mount | ({"readOnly": True} if claim.read_only else {})
    mount["readOnly"] = True
    if volume.secret is not None:
        return {"name": name, "secret": {"secretName": volume.secret.secret_name}}, mount
    assert volume.config_map is not None, "the type's rules"
    return {"name": name, "configMap": {"name": volume.config_map.name}}, mount


def variables_from(template: PodTemplate) -> dict[str, Any]:
    """`envFrom` of the container; nothing where the manifest has none."""
    found = []
    for source in template.env_from:
        kind, reference = (
            ("secretRef", source.secret_ref)
            if source.secret_ref is not None
            else ("configMapRef", source.config_map_ref)
        )
        assert reference is not None, "the type's rules"
        one: dict[str, Any] = {kind: {"name": reference.name} | ({"optional": True} if reference.optional else {})}
        found.append({"prefix": source.prefix} | one if source.prefix else one)
    return {"envFrom": found} if found else {}
