import asyncio
import contextlib
import os
import ssl
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

sys.path.insert(0, str(Path(__file__).parent))  # helpers beside the tests

import invariants
from faultproxy import FaultProxy
from running_operator import World

ROOT = Path(__file__).parents[2]


@pytest.fixture
def chart_values():
    """Values of the chart beyond the defaults; a test that wants others parametrizes this."""
    return ()


@pytest_asyncio.fixture
async def world(api_server, tmp_path, chart_values):
    """A namespace with a pool of two hosts, and the operator's service account with exactly the chart's rights."""
    namespace = f"t-{uuid.uuid4().hex[:8]}"
    await asyncio.to_thread(_install_rights, api_server, namespace, chart_values)
    token = await asyncio.to_thread(api_server.kubectl, "create", "token", "ratchet", "-n", namespace)
    async with contextlib.AsyncExitStack() as stack:
        api = await stack.enter_async_context(api_server.plane.api())
        tls = ssl.create_default_context(cafile=str(api_server.plane.pki / "ca.crt"))  # no client certificate
        proxy = await stack.enter_async_context(FaultProxy(api_server.plane.server, tls))
        it = World(api, proxy, namespace, tmp_path)
        it.kubeconfig.write_text(_kubeconfig(proxy.url, token.strip()))
        await stack.enter_async_context(it.recorder)
        await stack.enter_async_context(it.kubelet)
        await it.kubelet.add_pool("a")
        await _make_claim(api, namespace, tmp_path)
        yield it
        history = await it.history()
        for operator in it.operators:
            await operator.stop(9)
        await api.delete(f"/api/v1/namespaces/{namespace}")
        await api.delete(f"/api/v1/persistentvolumes/{namespace}")
        assert proxy.forbidden <= it.lacks, "the chart does not grant what the operator asks for"
        assert invariants.broken(history, it.excused) == []


async def _make_claim(api, namespace: str, folder: Path) -> None:
    """The claim `checkpoints`, bound: pods with an unbound one are not scheduled."""
    common = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    volume = {**common, "capacity": {"storage": "1Gi"}, "hostPath": {"path": str(folder)},
              "claimRef": {"namespace": namespace, "name": "checkpoints"}}  # fmt: skip
    claim = {**common, "volumeName": namespace, "resources": {"requests": {"storage": "1Gi"}}}
    for path, kind, name, spec in (
        ("/api/v1/persistentvolumes", "PersistentVolume", namespace, volume),
        (f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", "PersistentVolumeClaim", "checkpoints", claim),
    ):
        await api.create(path, {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "spec": spec})


def _install_rights(cluster, namespace: str, values=()) -> None:
    done = subprocess.run(
        [cluster.bin / "helm", "template", "ratchet", ROOT / "helm/ratchet", "--namespace", namespace, "--no-hooks",
         "--set", f"watchNamespaces={{{namespace}}}", "--set", "crds.install=false",
         "--set", "fullnameOverride=ratchet", *(part for value in values for part in ("--set", value))],
        capture_output=True, text=True, check=True, env={**os.environ, **cluster.env()},
    )  # fmt: skip
    rights = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    objects = [o for o in yaml.safe_load_all(done.stdout) if o and o["kind"] in rights]
    for it in objects:  # cluster-wide names are the namespace's own, so that tests do not share them
        if it["kind"].startswith("Cluster"):
            it["metadata"]["name"] += f"-{namespace}"
            if "roleRef" in it:
                it["roleRef"]["name"] += f"-{namespace}"
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all([space, *objects]))


def _kubeconfig(server: str, token: str) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": server}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
    )  # fmt: skip
