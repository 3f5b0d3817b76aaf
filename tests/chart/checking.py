"""What `helm test` runs in a pod, as a process of this machine that looks once."""

from __future__ import annotations

import os
import subprocess
import sys

from ratchet_cluster.cluster import Cluster


def check(cluster: Cluster, namespace: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Its exit code and words on an installation in this namespace."""
    asked = {
        "RATCHET_OPERATOR_NAMESPACE": namespace,
        "RATCHET_OPERATOR_SELECTOR": "app.kubernetes.io/name=ratchet",
        "RATCHET_PATIENCE_SECONDS": "0.01",
    }
    return subprocess.run(
        [sys.executable, "-m", "ratchet_operator.installation_check"], capture_output=True, text=True,
        env={**os.environ, **cluster.env(), **asked, **env},
    )  # fmt: skip
