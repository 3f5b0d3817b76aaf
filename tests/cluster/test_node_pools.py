"""Pools: how they are written, which are refused, what their nodes look like."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratchet_cluster import pools


@pytest.mark.parametrize(
    ("text", "hosts", "chips", "spot"),
    [
        ("a=tpu-v6e-slice:2x4:4:spot", 2, 4, True),
        ("a=tpu-v6e-slice:1x1", 1, 1, False),
        ("a=tpu-v6e-slice:4x4", 4, 4, False),
        ("a=tpu-v6e-slice:2x4:8", 1, 8, False),
        ("a=tpu-v5p-slice:2x2x2", 2, 4, False),
        ("a=cpu:3:spot", 3, None, True),
    ],
)
def test_pools_on_the_command_line(text: str, hosts: int, chips: int | None, spot: bool) -> None:
    pool = pools.parse(text)
    assert (pool.hosts, pool.chips_per_node, pool.spot) == (hosts, chips, spot)
    assert pool.nodes == [f"a-{index}" for index in range(hosts)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pool-a", "NAME=ACCELERATOR:TOPOLOGY"),
        ("a=tpu-v9:2x4", "unknown accelerator 'tpu-v9'"),
        ("a=tpu-v6e-slice:3x3", "3x3"),
        ("a=cpu:many", "number of hosts"),
        ("a=tpu-v6e-slice:2x4:four", "NAME=ACCELERATOR:TOPOLOGY"),
    ],
)
def test_impossible_pools_are_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(pools.PoolError, match=words):
        pools.parse(text)


def test_pools_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "pools.yaml"
    file.write_text(
        "- {name: a, accelerator: tpu-v6e-slice, topology: 2x4, chipsPerNode: 4, spot: true, taintSpot: true}\n"
        "- {name: b, hosts: 2}\n"
    )
    first, second = pools.load(file)
    assert (first.hosts, first.taint_spot, second.hosts) == (2, True, 2)
    file.write_text("- {name: a, colour: red}\n")
    with pytest.raises(pools.PoolError, match="colour"):
        pools.load(file)


@pytest.mark.parametrize("names", [("a", "a"), ("system",)])
def test_names_are_unique_and_not_reserved(names: tuple[str, ...]) -> None:
    with pytest.raises(pools.PoolError, match=names[-1]):
        pools.by_name([pools.make(name) for name in names])


def test_a_spot_tpu_node_looks_like_one_of_gke() -> None:
    pool = pools.make("pool-a", "tpu-v6e-slice", "2x4", 4, spot=True, taint_spot=True)
    node = pools.node_object(pool, "pool-a-1")
    expected = {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
        "cloud.google.com/gke-tpu-topology": "2x4",
        "cloud.google.com/gke-accelerator-count": "4",
        "cloud.google.com/gke-nodepool": "pool-a",
        "cloud.google.com/gke-spot": "true",
        "cloud.google.com/gke-provisioning": "spot",
        "node.kubernetes.io/instance-type": "ct6e-standard-4t",
        "kubernetes.io/hostname": "pool-a-1",
    }
    assert expected.items() <= node["metadata"]["labels"].items()
    assert {(taint["key"], taint["effect"]) for taint in node["spec"]["taints"]} == {
        ("google.com/tpu", "NoSchedule"),
        ("cloud.google.com/gke-spot", "NoSchedule"),
    }
    assert pools.capacity(pool)["google.com/tpu"] == "4"


def test_a_node_without_chips_has_neither_taint_nor_capacity_for_them() -> None:
    pool = pools.make("cpus", hosts=1)
    assert pools.node_object(pool, "cpus-0")["spec"]["taints"] == []
    assert "google.com/tpu" not in pools.capacity(pool)
