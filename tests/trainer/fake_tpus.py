"""Stand-ins for the devices of TPU slices: what JAX lays a mesh out by, where each chip stands and whose it is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

KINDS = {
    "tpu-v3-slice": "TPU v3",
    "tpu-v5-lite-podslice": "TPU v5 lite",
    "tpu-v5p-slice": "TPU v5",
    "tpu-v6e-slice": "TPU v6 lite",
    "tpu7x": "TPU7x",
}
"""The label of GKE -> what JAX calls a device of it."""


@dataclass(frozen=True)
class FakeTpu:
    """The attributes of a device that `mesh_utils` and `Mesh` look at."""

    id: int
    device_kind: str
    process_index: int
    coords: tuple[int, int, int]
    core_on_chip: int
    slice_index: int
    platform: str = "tpu"

    @property
    def place(self) -> tuple[int, ...]:
        """Where it stands, whatever its number and its process's."""
        return self.slice_index, *self.coords, self.core_on_chip


def tpus(
    accelerator: str,
    topology: str,
    slices: int = 1,
    *,
    cores: int = 1,
    chips_per_host: int = 4,
    processes: Sequence[int] | None = None,
) -> list[FakeTpu]:
    """All devices in the order of `jax.devices()`: by process, then by number. `processes`: the number of the process
    on each host, in the order of the hosts; absent: 0, 1, ..."""
    sides = [int(side) for side in topology.split("x")]
    x, y, z = (*sides, 1, 1)[:3]
    wide = (2, 2) if chips_per_host == 4 else (x, y)
    hosts = [
        [(slice_index, (i, j, k)) for j in range(v, v + wide[1]) for i in range(u, u + wide[0])]
        for slice_index in range(slices)
        for k, v, u in itertools.product(range(z), range(0, y, wide[1]), range(0, x, wide[0]))
    ]
    numbers = range(len(hosts)) if processes is None else processes
    found = [
        (process, slice_index, coords, core)
        for process, host in zip(numbers, hosts, strict=True)
        for slice_index, coords in host
        for core in range(cores)
    ]
    return [
        FakeTpu(number, KINDS[accelerator], process, coords, core, slice_index)
        for number, (process, slice_index, coords, core) in enumerate(sorted(found, key=lambda each: each[0]))
    ]
