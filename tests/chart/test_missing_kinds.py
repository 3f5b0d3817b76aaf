"""Objects of kinds that the cluster does not have: refused in one line, with the ways out."""

from __future__ import annotations

import os
import subprocess

import pytest
from rendering import CHART, render

from ratchet_cluster.cluster import Cluster

MONITORING = "monitoring.coreos.com/v1"
NEEDS = {
    # value that asks for objects -> the API that they are of, the way out beside installing it
    "metrics.serviceMonitor.enabled": (MONITORING, "metrics.serviceMonitor.enabled=auto"),
    "metrics.podMonitor.enabled": (MONITORING, "metrics.podMonitor.enabled=auto"),
    "metrics.prometheusRule.enabled": (MONITORING, "metrics.prometheusRule.enabled=auto"),
    "metrics.podMonitoring.enabled": ("monitoring.googleapis.com/v1", "metrics.podMonitoring.enabled=auto"),
    "webhook.certificate.certManager": ("cert-manager.io/v1", "webhook.certificate.certManager=false"),
}


@pytest.mark.parametrize("value", NEEDS)
def test_what_the_cluster_does_not_serve_is_refused_with_both_ways_out(value: str, api_server: Cluster) -> None:
    version, way = NEEDS[value]
    settings = [f"--set={value}=true", "--set=webhook.enabled=true", "--set=watchNamespaces={nobody}"]
    done = subprocess.run(
        [api_server.bin / "helm", "install", "x", CHART, "--dry-run=server", "--set=crds.install=false", *settings],
        env={**os.environ, **api_server.env()}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert f"{value}: this cluster does not serve {version}. Either install " in done.stderr
    assert f", or take {way}" in done.stderr


@pytest.mark.parametrize("value", NEEDS)
def test_without_a_cluster_to_ask_they_are_rendered(value: str) -> None:
    assert any(d["apiVersion"] == NEEDS[value][0] for d in render(f"{value}=true", "webhook.enabled=true"))
