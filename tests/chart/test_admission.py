"""The real API server takes every object of every value set (server-side dry run), and its pods are `restricted`.

The Prometheus operator's definitions are its own. Google's PodMonitoring is of no module that can be had, and
cert-manager's module ships its definitions as templates only: their kinds are compared with golden files alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rendering import NAMESPACE, VALUE_SETS, Raw, of_kind, operator_pod, render

from ratchet_cluster.build import find_go
from ratchet_cluster.cluster import Cluster, ClusterError

MODULE = "github.com/prometheus-operator/prometheus-operator"
KINDS = ("podmonitors", "servicemonitors", "prometheusrules")
NOT_SERVED = ("monitoring.googleapis.com/v1", "cert-manager.io/v1")
NAMESPACES = (NAMESPACE, "team-a", "team-b", "monitoring")
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"


def shipped_definitions() -> list[Path]:
    """Files of the Prometheus operator's module, of the version in `prometheus_operator/go.mod`."""
    go, _ = find_go()
    done = subprocess.run(
        [go, "mod", "download", "-json", MODULE], cwd=Path(__file__).parent / "prometheus_operator",
        env={**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    folder = Path(json.loads(done.stdout)["Dir"]) / "example/prometheus-operator-crd"
    return [folder / f"monitoring.coreos.com_{kind}.yaml" for kind in KINDS]


@pytest.fixture(scope="module")
def monitored(api_server: Cluster) -> Iterator[Cluster]:
    """The control plane with the Prometheus operator's kinds and the namespaces of the value sets."""
    names = [f"{kind}.monitoring.coreos.com" for kind in KINDS]
    for path in shipped_definitions():
        api_server.kubectl("apply", "--server-side", "-f", str(path))
    for name in NAMESPACES:
        api_server.kubectl("create", "namespace", name)
    deadline = time.monotonic() + 60
    while "podmonitors" not in api_server.kubectl("api-resources", "-o", "name", check=False):
        assert time.monotonic() < deadline, "the definitions are not served"
        time.sleep(0.2)
    yield api_server
    api_server.kubectl("delete", "crd", *names)
    api_server.kubectl("delete", "namespace", *NAMESPACES, "--wait=false")


def dry_run(cluster: Cluster, documents: list[Raw]) -> str:
    listed = {"apiVersion": "v1", "kind": "List", "items": documents}
    return cluster.kubectl(
        "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-", stdin=json.dumps(listed)
    )


@pytest.mark.parametrize("name", VALUE_SETS)
def test_the_api_server_takes_every_object(monitored, name):
    documents = [it for it in render(values=VALUE_SETS[name]) if it["apiVersion"] not in NOT_SERVED]
    accounts = of_kind(documents, "ServiceAccount")  # a pod is refused while its service account is not there
    if accounts:
        monitored.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": accounts}))
    said = dry_run(monitored, documents)
    assert len(said.splitlines()) == len(documents)
    assert said.count("serverside-applied (server dry run)") == len(documents)


def test_a_wrong_object_would_be_refused(monitored):
    (monitor,) = of_kind(render(values=VALUE_SETS["monitoring"]), "PodMonitor")
    monitor["spec"]["podMetricsEndpoints"][0]["interval"] = "often"
    with pytest.raises(ClusterError, match="interval"):
        dry_run(monitored, [monitor])


@pytest.mark.parametrize("name", ["default", "full"])
def test_the_pods_meet_the_standard_restricted(monitored, name):
    monitored.kubectl("label", "namespace", "team-b", RESTRICTED, "--overwrite")
    documents = render(values=VALUE_SETS[name])
    (test_pod,) = of_kind(documents, "Pod")
    for what, spec in (("operator", operator_pod(documents)["spec"]), ("test", test_pod["spec"])):
        spec = {**spec, "serviceAccountName": "default", "priorityClassName": ""}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": what, "namespace": "team-b"}, "spec": spec}
        assert "dry run" in dry_run(monitored, [pod])
        spec["securityContext"] = {}
        with pytest.raises(ClusterError, match="violates PodSecurity"):
            dry_run(monitored, [pod])
