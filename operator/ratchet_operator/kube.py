"""Thin helpers on the official client: plain JSON in and out, with what every request of the operator needs.

Decides how the API is spoken to: explicit time-outs, three kinds of failure, the `Date` header to the clock, and no
write without a Lease that is still held. What is written is `apply`'s, what is read is `observe`'s; watching is kopf's.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_kube_config
from kubernetes.aio.config.incluster_config import InClusterConfigLoader
from kubernetes.aio.dynamic import DynamicClient, Resource
from kubernetes.aio.dynamic.exceptions import DynamicApiError

from ratchet_api import job as api
from ratchet_operator import metrics
from ratchet_operator.clock import Clock

Raw = dict[str, Any]
Items = list[Raw]
Query = list[tuple[str, str]]

TIMEOUT_SECONDS = 10.0
CONNECT_SECONDS = 3.0
PAGE = 500
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"

RESOURCES = {
    # kind -> API group, version, plural, whether it lives in a namespace
    "Pod": ("", "v1", "pods", True),
    "Node": ("", "v1", "nodes", False),
    "ConfigMap": ("", "v1", "configmaps", True),
    "PersistentVolumeClaim": ("", "v1", "persistentvolumeclaims", True),
    "ResourceQuota": ("", "v1", "resourcequotas", True),
    "Event": ("", "v1", "events", True),
    "Lease": ("coordination.k8s.io", "v1", "leases", True),
    "JobSet": ("jobset.x-k8s.io", "v1alpha2", "jobsets", True),
    api.KIND: (api.GROUP, api.VERSION, api.PLURAL, True),
}
"""Said here so that no discovery is needed: it costs requests at every start and a cache file in the temporary
folder.
"""


class Refused(Exception):
    """The API server said no. `status` is the HTTP code; `retry_after` the seconds it asked for, if it did."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None):
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message, self.retry_after = status, reason, message, retry_after


class Unreachable(Exception):
    """There was no answer: what was asked for may have been done or not."""


class Fenced(Exception):
    """The Lease is not certainly ours any more: nothing may be written."""


async def load_configuration() -> Configuration:
    """Credentials of this pod's service account, else of $KUBECONFIG. Raises ValueError that names the way out.

    A bound token changes about hourly; the configuration re-reads its file by itself.
    """
    configuration = Configuration()
    folder = Path(os.environ.get("RATCHET_SERVICE_ACCOUNT_FOLDER", SERVICE_ACCOUNT))
    kubeconfig = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
    try:
        if os.environ.get("KUBERNETES_SERVICE_HOST") and (folder / "token").exists():
            InClusterConfigLoader(str(folder / "token"), str(folder / "ca.crt")).load_and_set(configuration)
        elif kubeconfig.exists():
            await load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
        else:
            raise ValueError(f"this is no pod with a service account, and there is no {kubeconfig}; set KUBECONFIG")
    except ConfigException as problem:
        raise ValueError(f"no usable credentials for the API server: {problem}") from None
    return configuration


class Kube:
    """The API server, object by object.

    `may_write` is called before every write: it returns the seconds for which writing is certainly allowed, or raises
    `Fenced`. Every method raises `Refused` or `Unreachable`.
    """

    def __init__(self, configuration: Configuration, clock: Clock, user_agent: str):
        self.clock = clock
        self.may_write: Callable[[], float] = lambda: TIMEOUT_SECONDS
        self._client = ApiClient(configuration)
        self._client.user_agent = user_agent
        self._dynamic = DynamicClient(self._client)
        self._resources = {
            kind: Resource(
                prefix="apis" if group else "api", group=group, api_version=version, kind=kind, namespaced=namespaced,
                name=plural, client=self._dynamic,
            )
            for kind, (group, version, plural, namespaced) in RESOURCES.items()
        }  # fmt: skip

    async def close(self) -> None:
        await self._client.close()

    async def get(self, kind: str, name: str, namespace: str | None = None) -> Raw | None:
        """One object; None when there is none of that name."""
        try:
            return await self._request("GET", self._path(kind, namespace, name))
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    async def list(
        self,
        kind: str,
        namespace: str | None = None,
        labels: str = "",
        *,
        fields: str = "",
        metadata_only: bool = False,
    ) -> list[Raw]:
        """All objects of a kind as the API server has them now (no resourceVersion: never from a stale cache)."""
        pages = self.pages(kind, namespace, labels, fields=fields, metadata_only=metadata_only)
        return [item async for page in pages for item in page]

    async def pages(
        self,
        kind: str,
        namespace: str | None = None,
        labels: str = "",
        *,
        fields: str = "",
        metadata_only: bool = False,
    ) -> AsyncIterator[Items]:
        """The same, a page at a time."""
        query = [("limit", str(PAGE))] + ([("labelSelector", labels)] if labels else [])
        query += [("fieldSelector", fields)] if fields else []
        accept = METADATA_ONLY if metadata_only else "application/json"
        page = [*query]
        while True:
            answer = await self._request("GET", self._path(kind, namespace), query=page, accept=accept)
            yield answer.get("items") or []
            more = answer.get("metadata", {}).get("continue")
            if not more:
                return
            page = [*query, ("continue", more)]

    async def create(self, body: Raw) -> Raw:
        path = self._path(body["kind"], body["metadata"].get("namespace"))
        return await self._request("POST", path, body=body)

    async def replace(self, body: Raw, *, status: bool = False) -> Raw:
        """PUT of an object, or of its status alone; `metadata.resourceVersion` in the body is the precondition."""
        meta = body["metadata"]
        path = self._path(body["kind"], meta.get("namespace"), meta["name"]) + ("/status" if status else "")
        return await self._request("PUT", path, body=body)

    async def patch(self, kind: str, namespace: str | None, name: str, body: Raw) -> Raw:
        """Merge patch; uid and resourceVersion in the body's metadata are preconditions."""
        path = self._path(kind, namespace, name)
        return await self._request("PATCH", path, body=body, content_type="application/merge-patch+json")

    async def delete(
        self,
        kind: str,
        namespace: str | None,
        name: str,
        uid: str,
        grace_seconds: int | None = None,
        propagation: str | None = None,
    ) -> None:
        """Deletes the object if it still has this uid."""
        options: Raw = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        if propagation is not None:
            options["propagationPolicy"] = propagation
        await self._request("DELETE", self._path(kind, namespace, name), body=options)

    async def serves(self, kind: str) -> bool:
        """Whether the API server knows the kind: its CRD is installed."""
        group, version, plural, _ = RESOURCES[kind]
        try:
            found = await self._request("GET", f"/apis/{group}/{version}")
        except Refused as refused:
            if refused.status == 404:
                return False
            raise
        return any(resource["name"] == plural for resource in found.get("resources", ()))

    def _path(self, kind: str, namespace: str | None, name: str | None = None) -> str:
        return str(self._resources[kind].path(name=name, namespace=namespace))

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Raw | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Raw:
        seconds = TIMEOUT_SECONDS
        if method != "GET":
            seconds = min(seconds, self.may_write())
        sent = time.monotonic()
        code = "none"
        try:
            response = await self._dynamic.request(
                method, path, body=body, serialize=False, query_params=query or [], content_type=content_type,
                header_params={"Accept": accept},
                _request_timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS),
            )  # fmt: skip
            code = str(response.status)
            answer: Raw = await response.json()
            self.clock.hear(response.headers.get("Date"), sent, time.monotonic())
        except DynamicApiError as error:
            code = str(error.status)
            self.clock.hear((error.headers or {}).get("Date"), sent, time.monotonic())
            raise _refused(error) from None
        except (aiohttp.ClientError, TimeoutError, OSError, json.JSONDecodeError) as error:
            raise Unreachable(f"{method} {path}: {type(error).__name__} {error}".rstrip()) from None
        finally:
            metrics.API_REQUESTS.labels(method, code).inc()
            metrics.API_REQUEST_SECONDS.labels(method).observe(time.monotonic() - sent)
        return answer


def _refused(error: DynamicApiError) -> Refused:
    headers = error.headers or {}
    try:
        retry_after = float(headers.get("Retry-After", ""))
    except ValueError:
        retry_after = None
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body or "")
    try:
        said = json.loads(body)
        reason, message = said.get("reason") or error.reason, said.get("message") or body
    except (ValueError, AttributeError):
        reason, message = error.reason, body
    return Refused(int(error.status), str(reason or ""), str(message)[:2000], retry_after)
