"""The operator on the local cluster, installed the way a platform engineer would: by helm, from the chart.

Decides the release's name and namespace and where the chart is found (the checkout, or the copy inside the package).
"""

from __future__ import annotations

import time
from pathlib import Path

from ratchet_api import job
from ratchet_cluster.cluster import Cluster, ClusterError

RELEASE = "ratchet"
NAMESPACE = "ratchet-system"
TIMEOUT = "90s"
DISCOVERY_SECONDS = 20.0


def chart() -> Path:
    """The chart's folder."""
    here = Path(__file__).resolve()
    candidates = [here.parents[2] / "helm" / "ratchet", here.parents[1] / "ratchet_cli" / "chart"]
    for folder in candidates:
        if (folder / "Chart.yaml").is_file():
            return folder
    raise ClusterError(f"the chart is in none of {', '.join(map(str, candidates))}; is the installation complete?")


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
