"""Kueue on the local cluster: an option, because building it takes minutes and most jobs stand in no queue.

Decides its configuration, its certificates, which of its webhooks are installed, and when it counts as up. Only JobSets
are queued, so of its webhooks only those for JobSets and for its own kinds are there: the others would stand in the way
of every pod while Kueue is away.

Kueue manages its own certificates: it reads them from a Secret, makes new ones if that does not suit it, and writes the
authority into its CRDs and webhooks. Without that it insists on a file below /etc. So the Secret is made here, with an
authority of the form that it accepts (RSA, its own names), and a certificate that is also valid for loopback.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from ratchet_cluster import build, certificates, installed, processes
from ratchet_cluster.api import Api
from ratchet_cluster.objects import Object
from ratchet_cluster.plane import Plane, PlaneError
from ratchet_cluster.ports import free_ports, is_free

NAME = "kueue"
PORTS = ("webhook", "health")
NAMESPACE = "kueue-system"
SECRET = "kueue-webhook-server-cert"
SERVICE = "kueue-webhook-service.kueue-system.svc"
AUTHORITY = "kueue-ca"
QUEUED_GROUPS = ("kueue.x-k8s.io", "jobset.x-k8s.io")
CONVERTED = ("clusterqueues", "cohorts", "localqueues", "multikueueclusters", "workloads")
"""Kinds with two versions, whose CRDs name a webhook that converts them."""


@dataclass(frozen=True)
class Kueue:
    """Kueue beside one control plane: the folder of its program, the ports it was given."""

    plane: Plane
    programs: Path
    ports: dict[str, int]

    @property
    def pki(self) -> Path:
        return self.plane.pki / NAME

    def command(self) -> list[str]:
        """Its command line."""
        config, kubeconfig = self.plane.folder / "kueue.yaml", self.plane.folder / "kubeconfigs/kueue"
        return [str(self.programs / NAME), f"--config={config}", f"--kubeconfig={kubeconfig}", "--zap-log-level=info"]

    def configuration(self) -> Object:
        """What Kueue is told; what is not here is as in its own release."""
        return {
            "apiVersion": "config.kueue.x-k8s.io/v1beta2",
            "kind": "Configuration",
            "namespace": NAMESPACE,
            "leaderElection": {"leaderElect": False},
            "internalCertManagement": {"enable": True},
            "webhook": {"host": "127.0.0.1", "port": self.ports["webhook"], "certDir": str(self.pki)},
            "metrics": {"bindAddress": "0"},
            "health": {"healthProbeBindAddress": f"127.0.0.1:{self.ports['health']}"},
            "integrations": {"frameworks": ["jobset.x-k8s.io/jobset"]},
            "featureGates": {"VisibilityOnDemand": False},  # another API server, which wants a folder below /
        }

    async def start(self, api: Api, timeout: float = 90.0) -> None:
        """Starts it unless it runs, and returns when it queues JobSets. Raises `PlaneError`."""
        deadline = time.monotonic() + timeout
        certificates.ensure_rotated(self.pki, AUTHORITY, SERVICE)
        self.plane.write("kubeconfigs/kueue", certificates.kubeconfig(self.plane.pki, "kueue", self.plane.server))
        self.plane.write("kueue.yaml", json.dumps(self.configuration()))
        await self._install(api, deadline)
        if NAME not in processes.running(self.plane.folder):
            processes.start(self.plane.folder, NAME, self.command())
        await self.plane.until_healthy(NAME, f"http://127.0.0.1:{self.ports['health']}/readyz", deadline)
        await self._install_webhooks(api)

    async def _install(self, api: Api, deadline: float) -> None:
        """Namespace, Secret and CRDs: Kueue ends when they are not there."""
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        await api.apply(f"/api/v1/namespaces/{NAMESPACE}", space)
        files = {name: certificates.base64_of(self.pki / name) for name in ("ca.crt", "ca.key", "tls.crt", "tls.key")}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET, "namespace": NAMESPACE}}
        await api.apply(f"/api/v1/namespaces/{NAMESPACE}/secrets/{SECRET}", {**secret, "data": files})
        for definition in self._shipped("CustomResourceDefinition"):
            if definition["spec"]["names"]["plural"] in CONVERTED:
                call = installed.by_url(self.ports["webhook"], "/convert", self._authority)
                webhook = {"clientConfig": call, "conversionReviewVersions": ["v1"]}
                definition["spec"]["conversion"] = {"strategy": "Webhook", "webhook": webhook}
            try:
                await installed.apply_definition(api, definition, deadline)
            except TimeoutError as error:
                raise PlaneError(str(error)) from None

    async def _install_webhooks(self, api: Api) -> None:
        for kind in installed.CONFIGURATIONS:
            for configuration in self._shipped(kind):
                configuration["webhooks"] = [
                    webhook
                    for webhook in configuration["webhooks"]
                    if all(group in QUEUED_GROUPS for rule in webhook["rules"] for group in rule["apiGroups"])
                ]
                await installed.apply_webhooks(api, configuration, NAME, self.ports["webhook"], self._authority)

    @property
    def _authority(self) -> str:
        return certificates.base64_of(self.pki / "ca.crt")

    def _shipped(self, kind: str) -> list[Object]:
        return installed.shipped(self.programs / build.KUEUE.objects, kind)


def ports_for(plane: Plane, before: dict[str, int]) -> dict[str, int]:
    """Those that Kueue has or had, or others where one of them is taken."""
    running = NAME in processes.running(plane.folder)
    if set(before) == set(PORTS) and (running or all(map(is_free, before.values()))):
        return before
    return dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
