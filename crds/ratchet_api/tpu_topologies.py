"""What TPU slices exist on GKE: accelerator, topology and machine -> chips and hosts.

The tables follow GKE's machine types and the topology rules of xpk's system characteristics. This module knows shapes;
which placement is tried is decided elsewhere.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from itertools import pairwise

LIST_2D = ("2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
LIST_V3 = ("4x4", "4x8", "8x8", "8x16", "16x16")
LONGEST_SIDE = 256
NEWER = "for a slice that this table does not know give hosts and chipsPerNode"
SMALL_3D = ("2x2x2", "2x2x4", "2x4x4")


@dataclass(frozen=True)
class Accelerator:
    """One value of the label cloud.google.com/gke-tpu-accelerator."""

    machine: str  # GKE's machine type, completed by the chips of one: ct6e-standard-4t
    dims: int
    single_host: dict[int, str]  # chips per machine -> the topology of one machine
    multi_host: tuple[str, ...] = ()  # listed topologies; machines of 4 chips
    max_cubes: int = 0  # 4x4x4 blocks; 0: no cubes
    ordered: bool = False  # dimensions must not decrease
    devices_per_chip: int = 1  # that JAX shows: 2 where the cores of a chip do not act as one
    multislice: bool = True  # whether several slices can work together


ACCELERATORS: dict[str, Accelerator] = {
    "tpu-v3-device": Accelerator("ct3-hightpu", 2, {4: "2x2"}, devices_per_chip=2, multislice=False),
    "tpu-v3-slice": Accelerator("ct3p-hightpu", 2, {}, LIST_V3, devices_per_chip=2, multislice=False),
    "tpu-v4-lite-device": Accelerator("ct4l-hightpu", 2, {4: "2x2"}),
    "tpu-v4-podslice": Accelerator("ct4p-hightpu", 3, {4: "2x2x1"}, SMALL_3D, max_cubes=64),
    "tpu-v5-lite-device": Accelerator("ct5l-hightpu", 2, {1: "1x1", 4: "2x2", 8: "2x4"}),
    "tpu-v5-lite-podslice": Accelerator("ct5lp-hightpu", 2, {1: "1x1", 4: "2x2", 8: "2x4"}, LIST_2D),
    "tpu-v5p-slice": Accelerator("ct5p-hightpu", 3, {4: "2x2x1"}, SMALL_3D, max_cubes=140, ordered=True),
    "tpu-v6e-slice": Accelerator("ct6e-standard", 2, {1: "1x1", 4: "2x2", 8: "2x4"}, LIST_2D),
    "tpu7x": Accelerator(
        "tpu7x-standard", 3, {1: "1x1x1", 4: "2x2x1"}, SMALL_3D, max_cubes=144, ordered=True, devices_per_chip=2
    ),
    "tpu7": Accelerator(
        "tpu7-standard", 3, {1: "1x1x1", 4: "2x2x1"}, SMALL_3D, max_cubes=4, ordered=True, devices_per_chip=2
    ),
}


def machine_type(accelerator: str, chips_per_node: int) -> str | None:
    """GKE's machine type with so many chips; None for an accelerator that is not in the table."""
    kind = ACCELERATORS.get(accelerator)
    return f"{kind.machine}-{chips_per_node}t" if kind is not None else None


@dataclass(frozen=True)
class Shape:
    """One slice: `hosts` machines of `chips_per_node` chips each, every one of which is `devices_per_chip` devices."""

    hosts: int
    chips_per_node: int
    devices_per_chip: int = 1

    @property
    def chips(self) -> int:
        return self.hosts * self.chips_per_node

    @property
    def devices_per_host(self) -> int:
        """A host without chips is one device."""
        return self.chips_per_node * self.devices_per_chip or 1


class ImpossibleShape(ValueError):
    """No such slice exists on GKE; the message says what would be right."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@functools.lru_cache(maxsize=256)
def shape(accelerator: str, topology: str, chips_per_node: int | None = None) -> Shape:
    """The slice that these labels stand for. Raises ImpossibleShape with the offending field and a way out."""
    kind = ACCELERATORS.get(accelerator)
    if kind is None:
        raise ImpossibleShape(
            "accelerator",
            f"unknown accelerator {accelerator!r}; known are {', '.join(ACCELERATORS)}; for another one give hosts and "
            "chipsPerNode as well",
        )
    if not re.fullmatch(r"[1-9][0-9]*(x[1-9][0-9]*){1,2}", topology):
        raise ImpossibleShape("topology", f"{topology!r} is no topology; write it like {_examples(kind)}")
    sides = [int(side) for side in topology.split("x")]
    if len(sides) != kind.dims:
        raise ImpossibleShape(
            "topology",
            f"{accelerator} has {kind.dims} dimensions, {topology} has {len(sides)}; for example {_examples(kind)}",
        )
    machines = sorted(kind.single_host.keys() | ({4} if _has_multi_host(kind) else set()))
    if chips_per_node is not None:
        if chips_per_node not in machines:
            sizes = " or ".join(map(str, machines))
            raise ImpossibleShape("chipsPerNode", f"{accelerator} has machines of {sizes} chips, not {chips_per_node}")
        return _on_machine(accelerator, kind, topology, sides, chips_per_node)
    found, errors = [], {}
    for chips in machines:
        try:
            found.append(_on_machine(accelerator, kind, topology, sides, chips))
        except ImpossibleShape as error:
            errors[chips] = error
    if len(found) > 1:
        ways = " or ".join(f"{s.chips_per_node} ({s.hosts} host{'s' if s.hosts > 1 else ''})" for s in reversed(found))
        raise ImpossibleShape(
            "chipsPerNode", f"{accelerator} {topology} exists in two shapes; set chipsPerNode to {ways}"
        )
    if not found:
        raise errors[4] if 4 in errors else next(iter(errors.values()))
    return found[0]


def given_shape(
    accelerator: str, topology: str | None, hosts: int, chips_per_node: int, devices_per_chip: int = 1
) -> Shape:
    """A slice in the words of the manifest, which must not contradict the tables. Raises ImpossibleShape."""
    given = Shape(hosts, chips_per_node, devices_per_chip)
    if topology is None:
        return given
    try:
        known = shape(accelerator, topology, chips_per_node)
    except ImpossibleShape:
        return given
    if known != given:
        raise ImpossibleShape(
            "hosts",
            f"{accelerator} {topology} on machines of {chips_per_node} chips has {known.hosts} hosts and "
            f"{known.devices_per_chip} devices a chip, not {hosts} and {devices_per_chip}; leave hosts"
            + (" and devicesPerChip out" if known.devices_per_chip != devices_per_chip else " out"),
        )
    return given


def check_slices(accelerator: str, one: Shape, slices: int) -> None:
    """Raises ImpossibleShape where slices of that shape cannot work together."""
    if slices == 1:
        return
    kind = ACCELERATORS.get(accelerator)
    if kind is not None and not kind.multislice:
        raise ImpossibleShape("slices", f"{accelerator} has no multislice; set slices to 1 and take a larger topology")
    if one.hosts == 1:
        raise ImpossibleShape(
            "slices",
            f"{slices} slices of a single host each cannot work together; set slices to 1 and take a topology of "
            "several hosts" + (f" ({_several(kind)})" if kind is not None and kind.multi_host else ""),
        )


def _on_machine(accelerator: str, kind: Accelerator, topology: str, sides: list[int], chips_per_node: int) -> Shape:
    chips = 1
    for side in sides:
        chips *= side
    if kind.single_host.get(chips_per_node) == topology:
        return Shape(1, chips_per_node, kind.devices_per_chip)
    if not _has_multi_host(kind) or chips_per_node != 4:
        single = ", ".join(f"{t} with {c}" for c, t in kind.single_host.items())
        raise ImpossibleShape(
            "topology",
            f"{accelerator} machines of {chips_per_node} chips stand alone and have no slice {topology}; "
            f"there is {single}"
            + (f"; slices of several hosts ({_several(kind)}) need chipsPerNode 4" if _has_multi_host(kind) else ""),
        )
    if topology in kind.multi_host:
        return Shape(chips // 4, 4, kind.devices_per_chip)
    if not kind.max_cubes:
        raise ImpossibleShape(
            "topology",
            f"{accelerator} has no slice {topology}; there is {', '.join(kind.multi_host)}; {NEWER}",
        )
    if any(side % 4 for side in sides):
        raise ImpossibleShape(
            "topology",
            f"{accelerator} has no slice {topology}: above 2x4x4 every side is a multiple of 4; nearest is "
            + "x".join(str(max(4, round(side / 4) * 4)) for side in sorted(sides))
            + f"; {NEWER}",
        )
    if max(sides) > LONGEST_SIDE:
        raise ImpossibleShape("topology", f"{accelerator} has no slice {topology}: a side has at most {LONGEST_SIDE}")
    if kind.ordered and any(a > b for a, b in pairwise(sides)):
        raise ImpossibleShape(
            "topology", f"{accelerator} writes its sides in order: {'x'.join(map(str, sorted(sides)))}"
        )
    cubes = chips // 64
    if cubes > kind.max_cubes:
        raise ImpossibleShape(
            "topology", f"{accelerator} has at most {kind.max_cubes} cubes of 4x4x4; {topology} is {cubes}"
        )
    return Shape(chips // 4, 4, kind.devices_per_chip)


def _has_multi_host(kind: Accelerator) -> bool:
    return bool(kind.multi_host or kind.max_cubes)


def _examples(kind: Accelerator) -> str:
    return ", ".join([*dict.fromkeys([*kind.single_host.values(), *kind.multi_host])][:6])


def _several(kind: Accelerator) -> str:
    return ", ".join(kind.multi_host[:3])
