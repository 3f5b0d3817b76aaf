"""How devices lie on the mesh: whatever admission accepts can be laid out, slices on the axis `data`, and no order
follows from the numbers of processes."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import numpy as np
import pytest
from fake_tpus import FakeTpu, tpus

from ratchet_api.job import Parallelism, Spec, parse_spec
from ratchet_api.validate import devices, semantic_problems
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.model.sharding import by_rows
from ratchet_trainer.process import distributed
from ratchet_trainer.process.device_grid import AXES, device_grid

TOPOLOGIES = [
    ("tpu-v5-lite-podslice", "2x4", 4),
    ("tpu-v6e-slice", "4x4", 4),
    ("tpu-v6e-slice", "8x8", 4),
    ("tpu-v5p-slice", "4x4x4", 4),
    ("tpu-v5p-slice", "2x2x2", 4),
    ("tpu7x", "2x2x2", 4),
    ("tpu7x", "4x4x4", 4),
]
SINGLE_HOSTS = [("tpu-v6e-slice", "2x4", 8), ("tpu-v5-lite-podslice", "2x2", 4)]
CASES = [(*kind, slices) for kind in TOPOLOGIES for slices in (1, 2, 4)] + [(*kind, 1) for kind in SINGLE_HOSTS]
IDS = ["-".join(map(str, case)) for case in CASES]


def admitted(accelerator: str, topology: str, chips: int, slices: int, parallelism: dict[str, int]) -> Spec | None:
    """The spec with that placement and mesh, if it is accepted."""
    placement = {"accelerator": accelerator, "topology": topology, "chipsPerNode": chips, "slices": slices}
    spec = parse_spec(
        {
            "model": {"preset": "tiny"},
            "datasets": [{"name": "d", "jsonl": {"path": "/unused"}}],
            "stages": [{"name": "only", "sft": {"dataset": "d", "batchSize": 1024}, "advance": {"steps": 1}}],
            "checkpoint": {"directory": "/checkpoints/x"},
            "placements": [{"name": "here", **placement}],
            "parallelism": parallelism,
        }
    )
    return None if semantic_problems(spec) else spec


def there(accelerator: str, topology: str, chips: int, slices: int) -> list[FakeTpu]:
    return tpus(accelerator, topology, slices, cores=1 + (accelerator == "tpu7x"), chips_per_host=chips)


@pytest.mark.parametrize(("accelerator", "topology", "chips", "slices"), CASES, ids=IDS)
def test_every_mesh_that_admission_accepts_is_built(accelerator: str, topology: str, chips: int, slices: int) -> None:
    found = there(accelerator, topology, chips, slices)
    powers = [2**i for i in range(len(found).bit_length())]
    accepted = 0
    for fsdp, tensor in itertools.product(powers, powers):
        wanted = {"fsdp": fsdp, "tensor": tensor}
        spec = admitted(accelerator, topology, chips, slices, wanted)
        if spec is None:
            assert fsdp * tensor > len(found) // slices, "nothing else is a reason"
            with pytest.raises(ConfigurationInvalid, match="does not fit"):
                device_grid(found, Parallelism.model_validate(wanted))
            continue
        accepted += 1
        assert devices(spec.placements[0]) == len(found)
        grid = device_grid(found, spec.parallelism)
        data = len(found) // (fsdp * tensor)
        assert grid.shape == (data, fsdp, tensor)
        assert set(grid.flat) == set(found)
        for each in np.split(grid, slices):
            assert len({device.slice_index for device in each.flat}) == 1, "neither fsdp nor tensor leaves a slice"
    each = (len(found) // slices).bit_length()
    assert accepted == each * (each + 1) // 2


@pytest.mark.parametrize(("accelerator", "topology", "slices"), [(c[0], c[1], c[3]) for c in CASES[:-2]], ids=IDS[:-2])
def test_the_numbers_of_processes_decide_nothing(accelerator: str, topology: str, slices: int) -> None:
    cores = 1 + (accelerator == "tpu7x")
    calm = tpus(accelerator, topology, slices, cores=cores)
    hosts = calm[-1].process_index + 1
    others = [*range(1, hosts), 0]
    permuted = tpus(accelerator, topology, slices, cores=cores, processes=others)
    assert [d.place for d in permuted] != [d.place for d in calm]
    for sizes in ({}, {"fsdp": 4}, {"fsdp": 2, "tensor": 2}):
        wanted = Parallelism.model_validate(sizes)
        one, other = device_grid(calm, wanted), device_grid(permuted, wanted)
        assert [d.place for d in other.flat] == [d.place for d in one.flat]
        assert [d.process_index for d in other.flat] != [d.process_index for d in one.flat]


def test_a_mesh_over_slices_is_refused_with_a_way_out() -> None:
    with pytest.raises(ConfigurationInvalid, match=r"32 devices .* 2 slices of 16; .* must divide those of a slice"):
        device_grid(tpus("tpu-v6e-slice", "4x4", 2), Parallelism(fsdp=32))


def test_the_mesh_of_this_machine_has_pinned_axes() -> None:
    for mesh in (distributed.mesh(), distributed.one_device()):
        assert mesh.axis_names == AXES
        assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


def test_rows_of_a_permuted_mesh_are_those_of_the_places() -> None:
    """A real mesh of fake devices: which rows a chip has follows from where it stands."""

    def rows(found: list[FakeTpu]) -> dict[tuple[int, ...], Any]:
        mesh: Any = jax.sharding.Mesh(device_grid(found, Parallelism(fsdp=2)), AXES)
        return {d.place: index for d, index in by_rows(mesh).devices_indices_map((32,)).items()}

    one, other = (tpus("tpu-v6e-slice", "4x4", processes=order) for order in ((0, 1, 2, 3), (2, 0, 3, 1)))
    assert rows(one) == rows(other)
