"""Which TPU slices exist: GKE's worked examples, and the counts that xpk's own tests give."""

from __future__ import annotations

from itertools import product

import pytest

from ratchet_api.placements import Placement
from ratchet_api.tpu_topologies import ACCELERATORS, ImpossibleShape, shape
from ratchet_api.validate import chips, devices, placement_shape, processes

VALID = [
    ("tpu-v5-lite-podslice", "2x4", 8, 1),
    ("tpu-v5-lite-podslice", "2x4", 4, 2),
    ("tpu-v6e-slice", "16x16", 4, 64),
    ("tpu-v6e-slice", "4x4", None, 4),
    ("tpu7x", "1x1x1", 1, 1),
    ("tpu7x", "1x1x1", None, 1),
    ("tpu-v5p-slice", "16x16x24", 4, 1536),
    ("tpu-v4-podslice", "8x4x4", 4, 32),
    ("tpu-v3-slice", "4x4", None, 4),
]

IMPOSSIBLE = [
    # accelerator, topology, chipsPerNode, field, a word that the way out must contain
    ("tpu-v6e-slice", "2x4", None, "chipsPerNode", "8 (1 host) or 4 (2 hosts)"),
    ("tpu-v5-lite-podslice", "4x4", 8, "topology", "chipsPerNode 4"),
    ("tpu-v5-lite-device", "2x4", 4, "topology", "2x4 with 8"),
    ("tpu-v4-podslice", "4x4", 4, "topology", "3 dimensions"),
    ("tpu-v5p-slice", "4x4x6", 4, "topology", "multiple of 4"),
    ("tpu-v5p-slice", "8x4x4", 4, "topology", "4x4x8"),
    ("tpu7", "8x8x8", 4, "topology", "at most 4 cubes"),
    ("tpu-v6e-slice", "3x5", None, "topology", "4x4"),
    ("tpu-v6e-slice", "4x", None, "topology", "no topology"),
    ("tpu-v6e-slice", "4x4", 2, "chipsPerNode", "1 or 4 or 8"),
    ("v6e", "4x4", None, "accelerator", "tpu-v6e-slice"),
    ("tpu-v9-slice", "4x4", None, "accelerator", "give hosts and chipsPerNode as well"),
    ("tpu-v6e-slice", "4x16", None, "topology", "give hosts and chipsPerNode"),
    ("tpu-v6e-slice", "2x4", 1, "topology", "several hosts (2x4, 4x4, 4x8) need chipsPerNode 4"),
    ("tpu-v6e-slice", "", None, "topology", "'' is no topology; write it like 1x1, 2x2, 2x4, 4x4, 4x8, 8x8"),
    ("", "2x4", None, "accelerator", "unknown accelerator ''"),
]


@pytest.mark.parametrize(("accelerator", "topology", "chips_per_node", "hosts"), VALID)
def test_a_slice_that_exists_has_its_hosts(accelerator, topology, chips_per_node, hosts):
    found = shape(accelerator, topology, chips_per_node)
    chips = 1
    for side in topology.split("x"):
        chips *= int(side)
    assert (found.hosts, found.chips) == (hosts, chips)


@pytest.mark.parametrize(("accelerator", "topology", "chips_per_node", "field", "way_out"), IMPOSSIBLE)
def test_a_slice_that_does_not_exist_is_refused_with_a_way_out(accelerator, topology, chips_per_node, field, way_out):
    with pytest.raises(ImpossibleShape) as error:
        shape(accelerator, topology, chips_per_node)
    assert error.value.field == field
    assert way_out in str(error.value)


@pytest.mark.parametrize("empty", ["accelerator", "topology"])
def test_a_field_that_is_there_and_empty_is_refused_like_any_other_word(empty):
    with pytest.raises(ImpossibleShape) as error:
        placement_shape(placed(**{"accelerator": "tpu-v6e-slice", "topology": "2x2", empty: ""}))
    assert error.value.field == empty


@pytest.mark.parametrize(("accelerator", "count"), [("tpu-v4-podslice", 800), ("tpu-v5p-slice", 414), ("tpu7x", 432)])
def test_there_are_as_many_topologies_as_xpk_counts(accelerator, count):
    limit = ACCELERATORS[accelerator].max_cubes * 4
    cubes = ("x".join(map(str, sides)) for sides in product(range(4, limit + 1, 4), repeat=3) if _cubes(sides) <= limit)
    candidates = {"2x2x1", "2x2x2", "2x2x4", "2x4x4", *cubes}
    assert sum(_exists(accelerator, topology) for topology in candidates) == count


def _cubes(sides: tuple[int, ...]) -> int:
    return sides[0] * sides[1] * sides[2] // 64


def _exists(accelerator: str, topology: str) -> bool:
    try:
        shape(accelerator, topology, 4)
    except ImpossibleShape:
        return False
    return True


def placed(accelerator: str, **more: object) -> Placement:
    return Placement.model_validate({"name": "p", "accelerator": accelerator, **more})


@pytest.mark.parametrize(
    ("accelerator", "topology", "each"),
    [("tpu7x", "2x2x2", 2), ("tpu7", "2x2x1", 2), ("tpu-v3-slice", "4x4", 2), ("tpu-v5p-slice", "2x2x2", 1)],
)
def test_a_chip_is_as_many_devices_as_jax_shows(accelerator, topology, each):
    placement = placed(accelerator, topology=topology)
    assert devices(placement) == chips(placement) * each
    assert placement_shape(placement).devices_per_host == 4 * each


@pytest.mark.parametrize(
    ("accelerator", "shape_of_it", "way_out"),
    [
        ("tpu-v6e-slice", {"topology": "2x4", "chipsPerNode": 8}, r"single host .* several hosts \(2x4, 4x4, 4x8\)"),
        ("tpu-v5p-slice", {"topology": "2x2x1"}, r"several hosts \(2x2x2"),
        ("tpu-v3-slice", {"topology": "4x4"}, "tpu-v3-slice has no multislice"),
        ("tpu-v9-slice", {"hosts": 1, "chipsPerNode": 4}, "single host"),
    ],
)
def test_slices_that_cannot_work_together_are_refused(accelerator, shape_of_it, way_out):
    assert processes(placed(accelerator, **shape_of_it))
    with pytest.raises(ImpossibleShape, match=way_out) as error:
        placement_shape(placed(accelerator, **shape_of_it, slices=2))
    assert error.value.field == "slices"


def test_a_slice_may_be_given_in_numbers():
    placement = placed("tpu-v9-slice", hosts=4, chipsPerNode=4, devicesPerChip=2, slices=2)
    assert (processes(placement), chips(placement), devices(placement)) == (8, 32, 64)
    assert processes(placed("tpu-v6e-slice", topology="4x16", hosts=16, chipsPerNode=4)) == 16
    assert processes(placed("tpu-v6e-slice", topology="4x4", hosts=4, chipsPerNode=4)) == 4


def test_numbers_that_contradict_the_table_are_refused():
    with pytest.raises(ImpossibleShape, match="has 4 hosts and 1 devices a chip, not 2 and 1; leave hosts out"):
        placement_shape(placed("tpu-v6e-slice", topology="4x4", hosts=2, chipsPerNode=4))
    with pytest.raises(ImpossibleShape, match="not 4 and 2; leave hosts and devicesPerChip out"):
        placement_shape(placed("tpu-v6e-slice", topology="4x4", hosts=4, chipsPerNode=4, devicesPerChip=2))
