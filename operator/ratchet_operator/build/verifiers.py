"""What verifiers and rewards of the user's own need in a pod: ConfigMaps with code, Secrets for endpoints.

Decides their volumes and variables. The names are the API's (`ratchet_api.verifiers`), so the trainer finds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ratchet_api.job import Spec
from ratchet_api.verifiers import (
    CONFIG_MAP_FOLDER,
    HttpVerifier,
    PythonVerifier,
    reward_secret_variable,
    secret_variable,
)


def verifier_volumes(spec: Spec) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(volume, its mount) of each ConfigMap that holds a function of the user's, in the order of the manifest."""
    own = [dataset.python for dataset in spec.datasets]
    own += [checker for _, _, checker in _checkers(spec) if isinstance(checker, PythonVerifier)]
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
    told = [(secret_variable(dataset.name), dataset.http) for dataset in spec.datasets if dataset.http is not None]
    told += [
        (reward_secret_variable(i, name), checker)
        for i, name, checker in _checkers(spec)
        if isinstance(checker, HttpVerifier)
    ]
    return [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": http.secret.name, "key": http.secret.key}}}
        for name, http in told
        if http.secret is not None
    ]


def _checkers(spec: Spec) -> Iterator[tuple[int, str, PythonVerifier | HttpVerifier]]:
    """(index of the stage, name of the reward, what it asks), of rewards that ask somebody."""
    for i, stage in enumerate(spec.stages):
        for reward in stage.rl.rewards if stage.rl is not None else ():
            if reward.checker is not None:
                yield i, reward.name, reward.checker
