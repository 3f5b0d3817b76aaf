"""The way without kubectl: the official Python client, from the extras `operator` and `local`.

Decides how the client is configured: from the kubeconfig, or from the service account of the pod that this is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ratchet_cli.kube.ask import Answer, Place
from ratchet_cli.kube.errors import Unreachable, unreachable

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class PythonClient:
    """The client of the kubeconfig's context, or of the pod. Raises Unreachable; ImportError without the package."""

    def __init__(self, context: str | None):
        from kubernetes import config
        from kubernetes.client import ApiClient, Configuration

        try:
            if context is None and not _has_kubeconfig() and "KUBERNETES_SERVICE_HOST" in os.environ:
                settings = Configuration()
                config.load_incluster_config(client_configuration=settings)
                self._client: Any = ApiClient(settings)
                self.place = Place((ACCOUNT / "namespace").read_text().strip(), None, settings.host)
            else:
                contexts, active = config.list_kube_config_contexts(config_file=_kubeconfig())
                chosen = active if context is None else next((c for c in contexts if c["name"] == context), None)
                if chosen is None:
                    raise Unreachable(
                        f"kubeconfig: no context {context}; it has {', '.join(c['name'] for c in contexts)}"
                    )
                self._client = config.new_client_from_config(config_file=_kubeconfig(), context=chosen["name"])
                namespace = chosen["context"].get("namespace") or "default"
                self.place = Place(namespace, chosen["name"], self._client.configuration.host)
        except (config.ConfigException, OSError) as error:
            raise Unreachable(
                f"no cluster is chosen, and there is no kubectl to say more: {error}; set KUBECONFIG, or "
                'eval "$(ratchet cluster env)"'
            ) from None

    @contextlib.contextmanager
    def open(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str], seconds: float | None
    ) -> Iterator[Answer]:
        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError

        sent = {**self._client.default_headers, **headers}
        self._client.update_params_for_auth(sent, [], ["BearerToken"], target, method, body)
        try:
            answer: Any = self._client.rest_client.pool_manager.request(
                method,
                f"{self._client.configuration.host.rstrip('/')}{target}",
                body=body,
                headers=sent,
                timeout=Timeout(total=None, connect=seconds, read=seconds),
                preload_content=False,
                retries=False,
                redirect=False,
            )
        except HTTPError as error:
            raise unreachable(str(self.place), str(error)) from None
        try:
            yield answer
        finally:
            answer.close()

    def close(self) -> None:
        self._client.close()


def _kubeconfig() -> str:
    """As kubectl finds it, now: the client's own default is that of the moment at which it was imported."""
    return os.environ.get("KUBECONFIG") or "~/.kube/config"


def _has_kubeconfig() -> bool:
    named = os.environ.get("KUBECONFIG", "").split(os.pathsep)
    return any(Path(one).is_file() for one in named if one) or Path("~/.kube/config").expanduser().is_file()
