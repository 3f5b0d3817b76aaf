"""What a TPU chip has: memory, its bandwidth, and the peak of its matrix units; by the label of its nodes.

Decides numbers alone, each as its maker publishes it (`source`); which slices there are is in `tpu_topologies`. A
device is what JAX calls one: a whole chip, or one of two halves of it.
"""

from __future__ import annotations

from dataclasses import dataclass

DOCS = "https://docs.cloud.google.com/tpu/docs/"


@dataclass(frozen=True)
class Chip:
    """One kind of chip. hbm: GiB of a device that programs can have, which is less than the chip is sold with, as the
    compiler says when it refuses one; bandwidth: GB/s of HBM; teraflops: peak of bfloat16 matrix products.
    compiler: what libtpu calls the kind when it makes a topology; kind: what JAX calls a device of it; hosts: the sides
    of one machine's part of a slice of several machines; config: what libtpu calls the use of its cores, where it takes
    another one than GKE by itself."""

    compiler: str
    kind: str
    hbm: float
    bandwidth: float
    teraflops: float
    source: str
    hosts: tuple[int, int, int]
    devices: int = 1
    config: str | None = None

    @property
    def hbm_bytes(self) -> int:
        """That programs can have of a device."""
        return int(self.hbm * 2**30)

    @property
    def bytes_per_second(self) -> float:
        """Of a device."""
        return self.bandwidth * 1e9 / self.devices

    @property
    def flops_per_second(self) -> float:
        """Of a device."""
        return self.teraflops * 1e12 / self.devices


V4 = Chip("v4", "TPU v4", 30.75, 1200, 275, f"{DOCS}v4", (2, 2, 1), config="megacore")
V5E = Chip("v5e", "TPU v5 lite", 15.75, 819, 197, f"{DOCS}v5e", (2, 2, 1))
V5P = Chip("v5p", "TPU v5", 95, 2765, 459, f"{DOCS}v5p", (2, 2, 1))
V6E = Chip("v6e", "TPU v6 lite", 31.24, 1638, 918, f"{DOCS}v6e", (2, 2, 1))
V7X = Chip("tpu7x", "TPU7x", 94.74, 7380, 2307, f"{DOCS}tpu7x", (2, 2, 1), devices=2)

CHIPS: dict[str, Chip] = {
    "tpu-v4-lite-device": V4,
    "tpu-v4-podslice": V4,
    "tpu-v5-lite-device": V5E,
    "tpu-v5-lite-podslice": V5E,
    "tpu-v5p-slice": V5P,
    "tpu-v6e-slice": V6E,
    "tpu7x": V7X,
}
"""Value of the node label cloud.google.com/gke-tpu-accelerator -> chip."""

OF_KIND = {chip.kind: chip for chip in (V4, V5E, V5P, V6E, V7X)}
"""By what JAX calls a device, `device_kind`."""
