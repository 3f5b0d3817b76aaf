"""What verifiers and rewards of the user's own need in a pod: ConfigMaps with code, Secrets for endpoints.

Decides their volumes and variables. The names are the API's (`ratchet_api.verifiers`), so the trainer finds them.
"""

from __future__ import annotations

from typing import Any

from ratchet_api.job import Spec
from ratchet_api.verifiers import CONFIG_MAP_FOLDER, PythonVerifier, secret_variable


def verifier_volumes(spec: Spec) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(volume, its mount) of each ConfigMap that holds a function of the user's, in the order of the manifest."""
    own: list[PythonVerifier | None] = [dataset.python for dataset in spec.datasets]
    own += [reward.python for stage in spec.stages if stage.rl is not None for reward in stage.rl.rewards]
    names = dict.fromkeys(told.config_map for told in own if told is not None and told.config_map is not None)
    return [
        (
            {"name": f"verifier-{i}", "configMap": {"name": name}},
            {"name": f"verifier-{i}", "mountPath": f"{CONFIG_MAP_FOLDER}/{name}", "readOnly": True},
        )
        for i, name in enumerate(names)
    ]


def verifier_secrets(spec: Spec) -> list[dict[str, Any]]:
    """Variables that hold the secrets of endpoints; the kubelet fills them in, the operator never reads one."""
    return [
        {
            "name": secret_variable(dataset.name),
            "valueFrom": {"secretKeyRef": {"name": dataset.http.secret.name, "key": dataset.http.secret.key}},
        }
        for dataset in spec.datasets
        if dataset.http is not None and dataset.http.secret is not None
    ]
