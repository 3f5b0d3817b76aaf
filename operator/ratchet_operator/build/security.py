"""As whom a trainer runs, and what of its container it may write to.

Decides what the Pod Security Standard `restricted` asks of a pod: no root, no new privileges, no capabilities, the
runtime's seccomp profile. It holds for every job; what the manifest says of user, group and root file system goes
before the operator's values, and whether it may be root is theirs (`decide/acceptance`).
"""

from __future__ import annotations

from typing import Any

from ratchet_api.pod_template import PodTemplate
from ratchet_operator.snapshot import Values


def user(template: PodTemplate, values: Values) -> int:
    """Id of the user that the trainer runs as."""
    return values.run_as_user if template.run_as_user is None else template.run_as_user


def pod_security(template: PodTemplate, values: Values) -> dict[str, Any]:
    """`securityContext` of the pod."""
    uid = user(template, values)
    return {
        "runAsNonRoot": uid != 0,
        "runAsUser": uid,
        "runAsGroup": values.run_as_group if template.run_as_group is None else template.run_as_group,
        "fsGroup": template.fs_group,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security(template: PodTemplate, values: Values) -> dict[str, Any]:
    """`securityContext` of the container."""
    given = template.read_only_root_filesystem
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": values.read_only_root if given is None else given,
    }
