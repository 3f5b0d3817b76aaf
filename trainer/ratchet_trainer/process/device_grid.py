"""How the devices of an attempt are laid out on the axes of the mesh: data x fsdp x tensor.

Decides the order of devices, from where they stand in the machine and never from the numbers of their processes:
`jax.process_index()` follows neither the pod's index nor `TPU_WORKER_ID`, and may change at a restart. Slices, which
have the slow data-center network between them, lie on the axis `data`; within a slice JAX's `mesh_utils` lays the axes
on the torus. Which sizes fit is the API's (`Parallelism.data_on`); making a `Mesh` of the grid is in `distributed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ratchet_trainer.errors import ConfigurationInvalid

if TYPE_CHECKING:
    import numpy as np

    from ratchet_api.job import Parallelism

AXES = ("data", "fsdp", "tensor")

HOST_SIDE = 2
"""Chips of a host of a larger slice stand 2 x 2."""


def slices_of(devices: Sequence[Any]) -> int:
    """The number of TPU slices that devices are of; 1 where there are none."""
    return len({getattr(device, "slice_index", 0) for device in devices}) if devices[0].platform == "tpu" else 1


def device_grid(devices: Sequence[Any], parallelism: Parallelism) -> np.ndarray:
    """The devices as an object array [data, fsdp, tensor].

    `devices`: all of them, as `jax.devices()` gives them. Raises ConfigurationInvalid if the sizes do not fit.
    """
    from jax.experimental import mesh_utils

    count, slices = len(devices), slices_of(devices)
    data = parallelism.data_on(count, slices)
    if data is None:
        each = f"the {count} devices that are here" + (f", {slices} slices of {count // slices}" if slices > 1 else "")
        raise ConfigurationInvalid(
            f"spec.parallelism: {parallelism.data or 'data'} x {parallelism.fsdp} x {parallelism.tensor} (data x fsdp "
            f"x tensor) does not fit {each}; fsdp x tensor must divide "
            + ("those of a slice" if slices > 1 else "them")
            + ", and data is best left out"
        )
    if devices[0].platform == "tpu":
        devices = sorted(devices, key=_place)  # some of the layouts below follow the order that they are given
    within = data // slices, parallelism.fsdp, parallelism.tensor
    # Without splitting, most meshes that are no products of whole sides of the torus are refused.
    if slices > 1:
        return mesh_utils.create_hybrid_device_mesh(within, (slices, 1, 1), devices, allow_split_physical_axes=True)
    return mesh_utils.create_device_mesh(within, devices, allow_split_physical_axes=True)


def _place(device: Any) -> tuple[int, ...]:
    """Where a chip stands: its slice, then host by host, as `jax.devices()` has them when processes are numbered so."""
    (x, y, z), core = device.coords, device.core_on_chip
    return getattr(device, "slice_index", 0), z, y // HOST_SIDE, x // HOST_SIDE, y, x, core
