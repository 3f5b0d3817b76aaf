"""Whether what JAX found at the start is what the placement asked for.

A wrong start is cheap to see here and dear later: an image without libtpu would train on CPUs, a slice that is missing
would halve every batch. Decides what is compared and the words; what was asked for comes from the operator by the
environment (`Environment.asked`), and what is not said is not compared.
"""

from __future__ import annotations

import logging
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.process.device_grid import slices_of

log = logging.getLogger(__name__)

LOCKED_BYTES = 8 << 30
"""A TPU's driver locks the memory that it copies from; below so much it has failed to start elsewhere."""


@dataclass(frozen=True)
class Asked:
    """What an attempt is to run on; None: whatever is there."""

    platform: str | None = None  # tpu or cpu
    devices_per_process: int | None = None
    slices: int | None = None


@dataclass(frozen=True)
class Found:
    """What JAX found, all processes together."""

    platform: str
    processes: int
    devices_per_process: tuple[int, ...]  # every number that occurs, sorted
    slices: int

    @classmethod
    def of(cls, devices: Sequence[Any]) -> Found:
        """From `jax.devices()`."""
        each: dict[int, int] = {}
        for device in devices:
            each[device.process_index] = each.get(device.process_index, 0) + 1
        return cls(devices[0].platform, len(each), tuple(sorted(set(each.values()))), slices_of(devices))


def check(asked: Asked, processes: int, found: Found, environment: Mapping[str, str]) -> None:
    """Raises ConfigurationInvalid, in words that say what to do, if `found` is not what `asked` and `processes`, the
    number of pods, call for. `environment`: the variables of this process."""
    if asked.platform is not None and found.platform != asked.platform:
        raise ConfigurationInvalid(_wrong_platform(asked.platform, found.platform, environment))
    if found.processes != processes:
        raise ConfigurationInvalid(
            f"JAX sees devices of {found.processes} processes, the attempt has {processes} pods; accelerator, topology "
            "and chipsPerNode of the placement must be those of the node pool"
        )
    if asked.devices_per_process is not None and found.devices_per_process != (asked.devices_per_process,):
        there = " or ".join(map(str, found.devices_per_process))
        raise ConfigurationInvalid(
            f"JAX sees {there} devices in a process, the placement has {asked.devices_per_process}; chipsPerNode (and "
            "devicesPerChip, where hosts is given) of the placement must be those of the node pool's machines"
        )
    if asked.slices is not None and found.slices != asked.slices:
        numbers = [name for name in ("MEGASCALE_NUM_SLICES", "MEGASCALE_COORDINATOR_ADDRESS") if name in environment]
        told = ", ".join(f"{name}={environment[name]}" for name in numbers) or "no MEGASCALE variable is set"
        raise ConfigurationInvalid(
            f"JAX sees {found.slices} slice{'s' if found.slices > 1 else ''}, the placement has {asked.slices} "
            f"({told}); podTemplate.env must not set MEGASCALE variables, and every slice is a node pool of its own"
        )


def _wrong_platform(asked: str, found: str, environment: Mapping[str, str]) -> str:
    text = f"the placement asks for {asked.upper()}s, but JAX runs on {found}; "
    told = environment.get("JAX_PLATFORMS", "")
    if told and asked not in told.split(","):
        return text + f"JAX_PLATFORMS is {told}: take it out of podTemplate.env"
    if asked == "tpu":
        return text + "the image has no libtpu: take one that was built with this package's extra `tpu` (spec.image)"
    return text + f"set JAX_PLATFORMS to {asked} in podTemplate.env"


def log_locked_memory() -> None:
    """Says how much memory this process may lock, and warns where a TPU is likely to want more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    shown = ["unlimited" if limit == resource.RLIM_INFINITY else f"{limit / 2**20:.0f} MiB" for limit in (soft, hard)]
    log.info("memory that may be locked (RLIMIT_MEMLOCK): %s, at most %s", *shown)
    if soft != resource.RLIM_INFINITY and soft < LOCKED_BYTES:
        log.warning(
            "RLIMIT_MEMLOCK is %s: if the TPU does not start, raise it for the node pool's container runtime", shown[0]
        )
