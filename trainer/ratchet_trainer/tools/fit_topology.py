"""Devices of a placement that nobody has: the TPU compiler's own description of a slice, and the mesh on it.

Decides how a placement of a manifest becomes a topology that libtpu compiles for, and what is said where it cannot.
Nothing here talks to a TPU. What kinds of chips there are is in `ratchet_api.tpu_chips`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ratchet_api.job import Parallelism
from ratchet_api.placements import Placement
from ratchet_api.tpu_chips import CHIPS, Chip
from ratchet_api.validate import placement_shape
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.process import distributed
from ratchet_trainer.process.device_grid import AXES, device_grid

if TYPE_CHECKING:
    from jax.sharding import Mesh

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",  # of this process itself: no TPU is looked for
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",  # libtpu wants one; what is compiled for, the topology says
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
"""So that libtpu compiles for what is not here."""
FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")


class NoCompiler(Exception):
    """The TPU compiler is not installed here."""


def require_compiler() -> None:
    """Raises NoCompiler with the way out."""
    if importlib.util.find_spec("libtpu") is None:
        raise NoCompiler("there is no TPU compiler here (libtpu); install the extra: pip install 'ratchet-rl[tpu]'")


def set_environment(spec: Mapping[str, Any]) -> None:
    """What has to be set before JAX is imported, with the compiler's flags as pods of this manifest (plain JSON) have
    them: compiled programs and the keys of their cache follow from them."""
    os.environ.update(ENVIRONMENT)
    for variable in spec.get("podTemplate", {}).get("env", ()):
        if variable["name"] in FLAGS:
            os.environ[variable["name"]] = variable.get("value", "")
    distributed.set_flags()


def chip_of(placement: Placement) -> Chip | None:
    """The chip of a TPU placement, None for one on CPUs. Raises ConfigurationInvalid for a kind without a row."""
    if placement.accelerator is None:
        return None
    chip = CHIPS.get(placement.accelerator)
    if chip is None:
        raise ConfigurationInvalid(
            f"placement {placement.name}: memory and speed of {placement.accelerator} are not known here; known are "
            f"{', '.join(CHIPS)}; name placements on these with --placement"
        )
    return chip


def devices_of(placement: Placement) -> list[Any]:
    """The devices of all slices of a TPU placement. Raises ConfigurationInvalid for a topology that the compiler does
    not know."""
    from jax.experimental import topologies

    chip, shape = chip_of(placement), placement_shape(placement)
    assert chip is not None, "asked of placements on TPUs"
    if placement.topology is None:
        raise ConfigurationInvalid(
            f"placement {placement.name}: hosts and chipsPerNode say how many chips a slice has, not how they are "
            "connected, which the TPU compiler must know; add its topology, or name other placements with --placement"
        )
    try:
        sides = [int(side) for side in placement.topology.split("x")]
    except ValueError:
        raise ConfigurationInvalid(
            f"placement {placement.name}: the compiler wants a topology such as 4x4, and it has {placement.topology}; "
            "set it, or name the other placements with --placement"
        ) from None
    bounds = chip.hosts if shape.hosts > 1 else (*sides, *(1,) * (3 - len(sides)))
    options: dict[str, Any] = {"chips_per_host_bounds": bounds}
    if chip.config is not None:
        options["chip_config_name"] = chip.config
    if placement.slices > 1:
        options["num_slices"] = placement.slices
    name = f"{chip.compiler}:{placement.topology}"
    try:
        return list(topologies.get_topology_desc(name, "tpu", **options).devices)
    except Exception as error:  # libtpu raises what it likes
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise ConfigurationInvalid(
            f"placement {placement.name}: the TPU compiler that is installed does not know {name} ({reason}); install "
            "a newer libtpu, take a topology that it knows, or name the other placements with --placement"
        ) from None


def mesh_on(devices: Sequence[Any], parallelism: Parallelism) -> Mesh:
    """The mesh that a trainer makes of these devices. Raises ConfigurationInvalid."""
    import jax

    grid = device_grid(devices, parallelism)
    return jax.sharding.Mesh(grid, AXES, axis_types=(jax.sharding.AxisType.Auto,) * len(AXES))
