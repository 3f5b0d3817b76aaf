"""The operator on the local cluster, installed the way a platform engineer would: by helm, from the chart.

Decides the release's name and namespace. Where the chart lies: `chart_folder`.
"""

from __future__ import annotations

import time
from pathlib import Path

from ratchet_api import job
from ratchet_cluster.chart_folder import chart_folder
from ratchet_cluster.cluster import Cluster, ClusterError

RELEASE = "ratchet"
NAMESPACE = "ratchet-system"
TIMEOUT = "90s"
DISCOVERY_SECONDS = 20.0


def chart() -> Path:
    """The chart's folder. Raises `ClusterError` for an installation that has none."""
    try:
        return chart_folder()
    except FileNotFoundError as problem:
        raise ClusterError(str(problem)) from None


def install(cluster: Cluster, *settings: str) -> None:
    """Installs or upgrades the release and waits until the operator is ready. `settings` are `--set` arguments of helm.

    Raises `ClusterError` with helm's words and the operator's last ones.
    """
    flags = [flag for setting in settings for flag in ("--set", setting)]
    try:
        cluster.helm(
            "upgrade", "--install", RELEASE, str(chart()), "--namespace", NAMESPACE, "--create-namespace",
            "--wait", "--timeout", TIMEOUT, *flags,
        )  # fmt: skip
    except ClusterError as error:
        pods = cluster.kubectl("get", "pods", "-n", NAMESPACE, "-o", "wide", check=False)
        logs = cluster.kubectl(
            "logs", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=ratchet", "--tail=20", check=False
        )
        raise ClusterError(f"{error}\n{pods}\n{logs}".strip()) from None
    _until_known(cluster)


def _until_known(cluster: Cluster) -> None:
    """A kind reaches the API server's discovery a moment after its CRD is established; kubectl, which keeps what it was
    told for ten minutes, would deny the kind for so long."""
    deadline = time.monotonic() + DISCOVERY_SECONDS
    while job.PLURAL not in cluster.kubectl("api-resources", "--api-group", job.GROUP, "--output", "name", check=False):
        if time.monotonic() > deadline:
            raise ClusterError(f"the API server does not list {job.PLURAL}.{job.GROUP} though its CRD is installed")
        time.sleep(0.1)
