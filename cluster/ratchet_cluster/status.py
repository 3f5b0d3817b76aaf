"""The status of a pod as a kubelet writes it, from what its containers are doing. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ratchet_cluster.container import Container, timestamp
from ratchet_cluster.objects import Object

REPLACE = {"$patch": "replace"}  # these lists would be merged: a pod whose node came back would have two addresses


@dataclass
class Conditions:
    """Pod conditions with the time each of them last turned."""

    _held: dict[str, Object] = field(default_factory=dict)

    def set(self, kind: str, truth: bool, reason: str = "", message: str = "") -> None:
        status = "True" if truth else "False"
        old = self._held.get(kind)
        since = old["lastTransitionTime"] if old and old["status"] == status else timestamp()
        found = {"type": kind, "status": status, "lastProbeTime": None, "lastTransitionTime": since}
        self._held[kind] = found | ({"reason": reason} if reason else {}) | ({"message": message} if message else {})

    def list(self) -> list[Object]:
        return list(self._held.values())

    def denied_by(self, pod: Object) -> bool:
        """Whether somebody else wrote that the pod is not Ready though it is: the node controller does in an outage."""
        said = {one["type"]: one["status"] for one in pod.get("status", {}).get("conditions") or []}
        return said.get("Ready") == "False" and self._held.get("Ready", {}).get("status") == "True"


def phase(restart_policy: str, initial: Sequence[Container], main: Sequence[Container], *, ending: bool) -> str:
    """Pending, Running, Succeeded or Failed. `ending`: nothing starts again, whatever the restart policy says."""
    codes = [container.exit_code for container in main]
    if any(one.exit_code for one in initial) and (restart_policy == "Never" or ending):
        return "Failed"
    if all(one.restarts == 0 and "waiting" in one.state for one in main):
        return "Failed" if ending else "Pending"
    if all(code is not None for code in codes) and (ending or not _again(restart_policy, codes)):
        return "Succeeded" if not any(codes) else "Failed"
    return "Failed" if ending and not any("running" in one.state for one in main) else "Running"


def _again(restart_policy: str, codes: Sequence[int | None]) -> bool:
    return restart_policy == "Always" or (restart_policy == "OnFailure" and any(codes))


def restarts(restart_policy: str, code: int) -> bool:
    """Whether a container that ended with `code` starts again."""
    return _again(restart_policy, [code])


def container_status(container: Container) -> Object:
    """One entry of `containerStatuses`."""
    image = container.spec.get("image", "")
    identity = f"ratchet://{container.identity}/{container.restarts}"
    state = {kind: dict(value) for kind, value in container.state.items()}
    if "terminated" in state:
        state["terminated"]["containerID"] = identity
    return {
        "name": container.name,
        "state": state,
        "lastState": container.last,
        "ready": container.ready,
        "started": container.started,
        "restartCount": container.restarts,
        "image": image,
        "imageID": "" if "waiting" in state and not container.restarts else image_id(image),
        "containerID": "" if "waiting" in state and not container.restarts else identity,
    }


def image_id(image: str) -> str:
    """What `imageID` says of an image that nobody pulls: its repository, with the SHA-256 of its name as digest."""
    if "@sha256:" in image:
        return image
    repository, colon, tag = image.rpartition(":")
    name = repository if colon and "/" not in tag else image
    return f"{name}@sha256:{hashlib.sha256(image.encode()).hexdigest()}"


def pod_status(
    conditions: Conditions, found: str, initial: Sequence[Container], main: Sequence[Container],
    address: str, host_address: str, start_time: str, override: Mapping[str, str],
) -> Object:  # fmt: skip
    """The `status` to patch. `override` holds phase, reason and message of a pod that its node ended."""
    over = found in ("Succeeded", "Failed")
    reason = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(found, "")
    unready = [one.name for one in main if not one.ready]
    message = f"containers with unready status: [{' '.join(unready)}]" if unready and not over else ""
    begun = not initial or all(one.exit_code == 0 for one in initial)
    conditions.set("PodReadyToStartContainers", not over)
    conditions.set("Initialized", begun, "" if begun else "ContainersNotInitialized")
    for kind in ("ContainersReady", "Ready"):
        conditions.set(kind, not unready and not over, reason or ("ContainersNotReady" if unready else ""), message)
    status = {
        "phase": found,
        "startTime": start_time,
        "hostIP": host_address,
        "hostIPs": [{"ip": host_address}, REPLACE],
        "podIP": address,
        "podIPs": [{"ip": address}, REPLACE],
        "conditions": conditions.list(),
        "containerStatuses": [container_status(one) for one in main],
    }
    if initial:
        status["initContainerStatuses"] = [container_status(one) for one in initial]
    return status | dict(override)
