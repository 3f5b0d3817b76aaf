"""On the real scheduler: each slice of several hosts gets a node pool of its own."""

from __future__ import annotations

from running_operator import until
from scripted_trainer import Pace

SLICE = {"name": "spot", "accelerator": "tpu-v6e-slice", "topology": "2x4", "chipsPerNode": 4, "capacity": "Spot"}


async def pools(world, name: str) -> dict[str, set[str]]:
    """Slice -> node pools that its pods are bound to."""
    found: dict[str, set[str]] = {}
    for pod in await world.items("pods"):
        labels = pod["metadata"]["labels"]
        node = pod["spec"].get("nodeName")
        if labels["ratchet.dev/job-name"] == name and node:
            found.setdefault(labels["jobset.sigs.k8s.io/job-index"], set()).add(node.rsplit("-", 1)[0])
    return found


async def test_each_slice_has_a_pool_of_its_own_and_jobs_do_not_share_pools(world):
    await (await world.operator()).leads()
    await world.kubelet.add_pool("b")
    world.kubelet.pace["wide"] = Pace(stop_at=3)
    await world.apply("wide", placements=[{**SLICE, "slices": 2}])
    await until("four pods run", lambda: len(world.kubelet.running) == 4)
    taken = await pools(world, "wide")
    assert sorted(map(len, taken.values())) == [1, 1], taken
    assert len(set.union(*taken.values())) == 2, taken
    await world.apply("other", placements=[SLICE])
    await world.until(
        "the other job waits",
        lambda s: any(c["reason"] == "WaitingForCapacity" for c in s.get("conditions", ())),
        "other",
    )
    await world.kubelet.add_pool("c")
    await world.completed("other")
    world.kubelet.pace["wide"].stop_at = None
    await world.completed("wide")
