"""The control plane: etcd, API server, controller manager, scheduler and the JobSet controller as child processes.

Decides their flags, ports and certificates, the order of starting, and when the plane counts as up. The programs come
from `build.py`; nodes are the matter of `agent.py`; the whole life of a cluster that of `cluster.py`.

Two families of flags need a reason. EndpointSlices refuse loopback addresses, so whatever writes endpoints is off.
And the node life cycle runs on seconds instead of minutes, so that a lost node is seen while somebody watches;
nothing else differs in meaning from a cluster in a cloud.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from ratchet_cluster import certificates, installed, processes
from ratchet_cluster.api import Api, ApiError
from ratchet_cluster.objects import Object
from ratchet_cluster.ports import free_ports

ORDER = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "jobset")
PORTS = ("etcd", "etcd-peer", "api", "controller-manager", "scheduler", "jobset-webhook", "jobset-health")
SERVICE_ADDRESSES = "10.96.0.0/16"


class PlaneError(RuntimeError):
    """The control plane did not come up; the message holds the last words of the program that failed."""


@dataclass(frozen=True)
class Plane:
    """Where one control plane lives: its state folder, the folder of its programs, the ports it was given."""

    folder: Path
    programs: Path
    ports: dict[str, int]

    @property
    def server(self) -> str:
        return f"https://127.0.0.1:{self.ports['api']}"

    @property
    def pki(self) -> Path:
        return self.folder / "pki"

    def api(self, client: str = "admin") -> Api:
        return Api(self.server, self.pki, client)

    # -- flags ---------------------------------------------------------------------------------------------------------

    def command(self, name: str) -> list[str]:
        """The command line of one program of `ORDER`."""
        flags = {
            "etcd": self._etcd,
            "kube-apiserver": self._api_server,
            "kube-controller-manager": self._controller_manager,
            "kube-scheduler": self._scheduler,
            "jobset": self._jobset,
        }[name]()
        return [str(self.programs / name), *(f"--{flag}={value}" for flag, value in flags.items())]

    def _etcd(self) -> dict[str, object]:
        client = f"https://127.0.0.1:{self.ports['etcd']}"
        peer = f"http://127.0.0.1:{self.ports['etcd-peer']}"
        return {
            "name": "ratchet",
            "data-dir": self.folder / "etcd",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"ratchet={peer}",
            "cert-file": self.pki / "serving/tls.crt",
            "key-file": self.pki / "serving/tls.key",
            "trusted-ca-file": self.pki / "ca.crt",
            "client-cert-auth": "true",
            "unsafe-no-fsync": "true",  # a killed process loses nothing by it, a killed machine may
            "log-level": "warn",
        }

    def _api_server(self) -> dict[str, object]:
        return {
            "secure-port": self.ports["api"],
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",
            "etcd-servers": f"https://127.0.0.1:{self.ports['etcd']}",
            "etcd-cafile": self.pki / "ca.crt",
            "etcd-certfile": self.pki / "kubelet-client.crt",
            "etcd-keyfile": self.pki / "kubelet-client.key",
            "tls-cert-file": self.pki / "serving/tls.crt",
            "tls-private-key-file": self.pki / "serving/tls.key",
            "client-ca-file": self.pki / "ca.crt",
            "kubelet-client-certificate": self.pki / "kubelet-client.crt",
            "kubelet-client-key": self.pki / "kubelet-client.key",
            "kubelet-preferred-address-types": "InternalIP",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-signing-key-file": self.pki / "service-accounts.key",
            "service-account-key-file": self.pki / "service-accounts.pub",
            "service-cluster-ip-range": SERVICE_ADDRESSES,
            "authorization-mode": "RBAC",
            "endpoint-reconciler-type": "none",
            "allow-privileged": "true",
            "profiling": "false",
            "v": 1,
        }

    def _controller_manager(self) -> dict[str, object]:
        return {
            "kubeconfig": self.folder / "kubeconfigs/controller-manager",
            "secure-port": self.ports["controller-manager"],
            "bind-address": "127.0.0.1",
            "tls-cert-file": self.pki / "serving/tls.crt",
            "tls-private-key-file": self.pki / "serving/tls.key",
            "root-ca-file": self.pki / "ca.crt",
            "service-account-private-key-file": self.pki / "service-accounts.key",
            "leader-elect": "false",
            "use-service-account-credentials": "true",  # RBAC has a role for each controller, none for all of them
            "controllers": "*,-endpoints-controller,-endpointslice-controller,-endpointslice-mirroring-controller",
            "kube-api-qps": 1000,
            "kube-api-burst": 1000,
            "concurrent-job-syncs": 10,
            "node-monitor-period": "1s",
            "node-monitor-grace-period": "8s",
            "node-startup-grace-period": "8s",
            "node-eviction-rate": 100,
            "secondary-node-eviction-rate": 100,
            "large-cluster-size-threshold": 0,
            "profiling": "false",
        }

    def _scheduler(self) -> dict[str, object]:
        return {
            "kubeconfig": self.folder / "kubeconfigs/scheduler",
            "secure-port": self.ports["scheduler"],
            "bind-address": "127.0.0.1",
            "tls-cert-file": self.pki / "serving/tls.crt",
            "tls-private-key-file": self.pki / "serving/tls.key",
            "leader-elect": "false",
            "kube-api-qps": 1000,
            "kube-api-burst": 1000,
            "profiling": "false",
        }

    def _jobset(self) -> dict[str, object]:
        return {
            "kubeconfig": self.folder / "kubeconfigs/jobset",
            "config": self.folder / "jobset.yaml",
            "zap-log-level": "error",
        }

    def _jobset_configuration(self) -> Object:
        return {
            "apiVersion": "config.jobset.x-k8s.io/v1alpha1",
            "kind": "Configuration",
            "leaderElection": {"leaderElect": False},
            "internalCertManagement": {"enable": False},
            "webhook": {
                "host": "127.0.0.1",
                "port": self.ports["jobset-webhook"],
                "certDir": str(self.pki / "serving"),
            },
            "metrics": {"bindAddress": "0"},
            "health": {"healthProbeBindAddress": f"127.0.0.1:{self.ports['jobset-health']}"},
        }

    # -- starting ------------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Writes certificates, kubeconfigs and JobSet's configuration."""
        certificates.ensure(self.pki)
        (self.folder / "kubeconfigs").mkdir(exist_ok=True, mode=0o700)
        for client in ("controller-manager", "scheduler", "jobset"):
            self.write(f"kubeconfigs/{client}", certificates.kubeconfig(self.pki, client, self.server))
        self.write("kubeconfig", certificates.kubeconfig(self.pki, "admin", self.server))
        self.write("jobset.yaml", json.dumps(self._jobset_configuration()))

    async def start(self, timeout: float = 60.0) -> None:
        """Starts what does not run yet and returns when everything answers. Raises `PlaneError`."""
        deadline = time.monotonic() + timeout
        self._launch("etcd", "kube-apiserver")
        await self.until_healthy("kube-apiserver", f"{self.server}/readyz", deadline)
        self._launch("kube-controller-manager", "kube-scheduler")
        async with self.api() as api:
            await self._install_jobset(api, deadline)
            self._launch("jobset")
            await asyncio.gather(
                self.until_healthy(
                    "kube-controller-manager", f"https://127.0.0.1:{self.ports['controller-manager']}/healthz", deadline
                ),
                self.until_healthy("kube-scheduler", f"https://127.0.0.1:{self.ports['scheduler']}/readyz", deadline),
                self.until_healthy("jobset", f"http://127.0.0.1:{self.ports['jobset-health']}/readyz", deadline),
            )
            await self._install_webhooks(api)
            await self._until_accounts_exist(api, deadline)

    def _launch(self, *names: str) -> None:
        alive = processes.running(self.folder)
        for name in names:
            if name not in alive:
                processes.start(self.folder, name, self.command(name))

    async def _install_jobset(self, api: Api, deadline: float) -> None:
        """The controller exits when it starts before its CRD is established."""
        (definition,) = installed.shipped(self.programs / "jobset.json", "CustomResourceDefinition")
        try:
            await installed.apply_definition(api, definition, deadline)
        except TimeoutError as error:
            raise PlaneError(str(error)) from None

    async def _install_webhooks(self, api: Api) -> None:
        authority = certificates.base64_of(self.pki / "ca.crt")
        for kind in installed.CONFIGURATIONS:
            (configuration,) = installed.shipped(self.programs / "jobset.json", kind)
            for webhook in configuration["webhooks"]:
                if "pods" in webhook["rules"][0]["resources"]:  # else no pod of anybody starts while JobSet is away
                    key = {"key": "jobset.sigs.k8s.io/jobset-name", "operator": "Exists"}
                    webhook["objectSelector"] = {"matchExpressions": [key]}
            await installed.apply_webhooks(api, configuration, "jobset", self.ports["jobset-webhook"], authority)

    async def _until_accounts_exist(self, api: Api, deadline: float) -> None:
        while True:
            try:
                await api.get("/api/v1/namespaces/default/serviceaccounts/default")
                await api.get("/api/v1/namespaces/default/configmaps/kube-root-ca.crt")
                return
            except ApiError as error:
                if time.monotonic() > deadline:
                    raise PlaneError(f"namespace default did not get its service account: {error}") from None
            await asyncio.sleep(0.05)

    async def until_healthy(self, name: str, url: str, deadline: float) -> None:
        """Waits until a program of the plane, or one beside it, answers there. Raises `PlaneError` with last words."""
        needed = ORDER[: ORDER.index(name) + 1] if name in ORDER else (*ORDER, name)
        while not await asyncio.to_thread(self.answers, url):
            alive = processes.running(self.folder)
            for one in needed:  # what it needs may have ended as well
                if one not in alive:
                    raise PlaneError(f"{one} ended while it was starting. Its last words:\n{self.last_words(one)}")
            if time.monotonic() > deadline:
                raise PlaneError(f"{name} did not become healthy in time. Its last words:\n{self.last_words(name)}")
            await asyncio.sleep(0.05)

    def answers(self, url: str) -> bool:
        """Whether a health address says 200."""
        tls = ssl.create_default_context(cafile=str(self.pki / "ca.crt")) if url.startswith("https") else None
        try:
            with urllib.request.urlopen(url, timeout=2, context=tls) as answer:
                status: int = answer.status
                return status == 200
        except (urllib.error.URLError, OSError):
            return False

    def last_words(self, name: str, lines: int = 12) -> str:
        """The end of a program's log."""
        path = self.folder / "logs" / f"{name}.log"
        text = path.read_text(errors="replace") if path.exists() else ""
        return "\n".join(text.splitlines()[-lines:]) + f"\n(all of it: {path})"

    def write(self, name: str, text: str) -> None:
        """Writes a file of the state folder that only its owner may read."""
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text)


def choose_ports() -> dict[str, int]:
    """A free port for every name of `PORTS`."""
    return dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
