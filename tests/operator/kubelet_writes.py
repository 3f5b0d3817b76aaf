"""What a kubelet writes of its node and its containers, for those who stand in for one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ratchet_cluster.api import MERGE, Api, ApiError

Raw = dict[str, Any]


def now() -> str:
    """The time as metav1.Time has it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def renew_lease(api: Api, node: str) -> None:
    """Says that the node lives; makes its Lease where there is none."""
    path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    spec = {"holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": now()[:-1] + ".000000Z"}
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": node}, "spec": spec}
    try:
        await api.patch(f"{path}/{node}", {"spec": spec}, MERGE)
    except ApiError as error:
        if error.status != 404:
            raise
        await api.create(path, body)


def container_status(pod: Raw, state: Raw, *, ready: bool) -> Raw:
    """The status of a pod's one container."""
    container = pod["spec"]["containers"][0]
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "sha256:" + "0" * 64,
        "restartCount": 0,
        "ready": ready,
        "started": ready,
        "state": state,
    }
