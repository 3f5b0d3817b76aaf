"""What `helm test` runs in a pod: whether an installation works. It reads and changes nothing.

It is configured by the environment: RATCHET_OPERATOR_NAMESPACE, RATCHET_OPERATOR_SELECTOR (labels of the operator's
pods), RATCHET_METRICS_PORT, RATCHET_PATIENCE_SECONDS.

Decides what is asked (are the kinds served, is the Lease held, is each replica healthy) and how long it waits for good
answers: an operator that has just started holds no Lease yet. Its exit code is 0 when all is well, else 1.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import aiohttp

from ratchet_api import job as api
from ratchet_operator.clock import Clock
from ratchet_operator.kube import Kube, Refused, Unreachable, load_configuration
from ratchet_operator.lease import NAME

Raw = dict[str, Any]

PATIENCE = 60.0
AGAIN_SECONDS = 1.0
HEALTH_SECONDS = 3.0


def kind_problem(kind: str, served: bool) -> str | None:
    """What is wrong with a kind, and the way out."""
    ways = {
        api.KIND: "install the chart with crds.install=true, or: ratchet crd | kubectl apply --server-side -f -",
        "JobSet": "install JobSet 0.12 or newer; until then jobs stay in phase Pending",
    }
    return None if served else f"the API server does not know {kind}: {ways[kind]}"


def lease_problem(lease: Raw | None, now: datetime) -> str | None:
    """What is wrong with the Lease, as it is at `now` by the API server's clock."""
    logs = "the operator's log says why"
    if lease is None:
        return f"there is no Lease {NAME}: no replica has started; {logs}"
    spec = lease.get("spec") or {}
    if not spec.get("holderIdentity") or not spec.get("renewTime"):
        return f"nobody holds Lease {NAME}: no replica works; {logs}"
    age = (now - datetime.fromisoformat(spec["renewTime"])).total_seconds()
    if age > float(spec.get("leaseDurationSeconds") or 0):
        return f"{spec['holderIdentity']} has not renewed Lease {NAME} for {age:.0f} s; {logs}"
    return None


def pods_problem(pods: list[Raw], health: Mapping[str, str]) -> str | None:
    """What is wrong with the replicas; `health` is what each pod's /healthz said, by name: `ok`, or a problem."""
    if not pods:
        return "there is no pod of the operator: kubectl describe its Deployment and ReplicaSet"
    ill = [f"{name}: {said}" for name, said in sorted(health.items()) if said != "ok"]
    return f"not healthy: {'; '.join(ill)}" if ill else None


async def look(kube: Kube, namespace: str, selector: str, port: int) -> dict[str, str | None]:
    """What was asked -> what is wrong with it, None where nothing is."""
    found: dict[str, str | None] = {}
    for kind in (api.KIND, "JobSet"):
        found[f"{kind} is served"] = kind_problem(kind, await kube.serves(kind))
    lease = await kube.get("Lease", NAME, namespace)
    found[f"Lease {namespace}/{NAME} is held"] = lease_problem(lease, datetime.fromisoformat(kube.clock.now()))
    pods = [pod for pod in await kube.list("Pod", namespace, selector) if "deletionTimestamp" not in pod["metadata"]]
    health = {pod["metadata"]["name"]: await _health((pod.get("status") or {}).get("podIP"), port) for pod in pods}
    found[f"{len(pods)} replica(s) are healthy"] = pods_problem(pods, health)
    return found


async def _health(address: str | None, port: int) -> str:
    if not address:
        return "it has no address yet"
    host = f"[{address}]" if ":" in address else address
    try:
        timeout = aiohttp.ClientTimeout(total=HEALTH_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://{host}:{port}/healthz") as it,
        ):
            return (await it.text()).strip()[:200] if it.status in (200, 500) else f"HTTP {it.status}"
    except (aiohttp.ClientError, TimeoutError, OSError) as problem:
        return f"{type(problem).__name__} {problem}".strip()


async def run(env: Mapping[str, str]) -> int:
    """Looks until all is well or patience is over; prints a line for each question and returns the exit code."""
    try:
        kube = Kube(await load_configuration(), Clock(), "ratchet-installation-check")
    except ValueError as error:
        print(f"FAIL {error}")
        return 1
    namespace, selector = env["RATCHET_OPERATOR_NAMESPACE"], env["RATCHET_OPERATOR_SELECTOR"]
    port, patience = int(env.get("RATCHET_METRICS_PORT", "8080")), float(env.get("RATCHET_PATIENCE_SECONDS", PATIENCE))
    until = time.monotonic() + patience
    while True:
        try:
            found = await look(kube, namespace, selector, port)
        except (Refused, Unreachable) as error:
            found = {"the API server answers": str(error)}
        if not any(found.values()) or time.monotonic() > until:
            break
        await asyncio.sleep(AGAIN_SECONDS)
    await kube.close()
    for what, problem in found.items():
        print(f"ok   {what}" if problem is None else f"FAIL {what}: {problem}")
    return int(any(found.values()))


if __name__ == "__main__":
    sys.exit(asyncio.run(run(os.environ)))
