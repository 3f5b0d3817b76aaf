"""How what other projects ship gets into the cluster: their CRDs, and their webhooks reached by URL.

Services cannot be reached here (there is no kube-proxy), so whatever refers to one is given a URL on loopback with the
certificate authority that signed what listens there.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from ratchet_cluster.api import Api
from ratchet_cluster.objects import Object

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1"
CONFIGURATIONS = {
    "MutatingWebhookConfiguration": "mutatingwebhookconfigurations",
    "ValidatingWebhookConfiguration": "validatingwebhookconfigurations",
}


def shipped(file: Path, kind: str) -> list[Object]:
    """The objects of that kind in a file that `build` wrote, without what the API server fills in."""
    objects: list[Object] = [item for item in json.loads(file.read_text()) if item["kind"] == kind]
    for found in objects:
        found["metadata"].pop("creationTimestamp", None)
        found.pop("status", None)
    return objects


async def apply_definition(api: Api, definition: Object, deadline: float) -> None:
    """Applies a CRD and waits until it is established. Raises TimeoutError when it is not by `deadline`."""
    name = definition["metadata"]["name"]
    await api.apply(f"{DEFINITIONS}/{name}", definition)
    while True:
        found = await api.get(f"{DEFINITIONS}/{name}")
        conditions = {c["type"]: c["status"] for c in found.get("status", {}).get("conditions") or []}
        if conditions.get("Established") == "True":
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"the CRD {name} was not established; its conditions: {conditions}")
        await asyncio.sleep(0.05)


async def apply_webhooks(api: Api, configuration: Object, prefix: str, port: int, authority: str) -> None:
    """Applies a webhook configuration, named PREFIX-NAME, that is reached on loopback.

    `authority`: base64 of the PEM of who signed the certificate on `port`.
    """
    name = f"{prefix}-{configuration['metadata']['name']}"
    for webhook in configuration["webhooks"]:
        webhook["clientConfig"] = by_url(port, webhook["clientConfig"]["service"]["path"], authority)
    await api.apply(
        f"{WEBHOOKS}/{CONFIGURATIONS[configuration['kind']]}/{name}", {**configuration, "metadata": {"name": name}}
    )


def by_url(port: int, path: str, authority: str) -> Object:
    """A clientConfig for what listens on loopback."""
    return {"url": f"https://127.0.0.1:{port}{path}", "caBundle": authority}
