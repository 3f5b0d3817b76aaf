"""What to change in a manifest that does not fit: the first knob of a ladder with which every program does.

Decides the ladder, cheapest first: rows a pass, activation checkpointing, parameters spread further, a larger slice;
each alone, then together. A rung with several sizes is tried at its most saving one, then the least saving that still
fits is looked for. Whether a change fits, the compiler says: the programs that were too large are compiled again, then
all others. Advice that was not compiled is never given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ratchet_api.job import Spec
from ratchet_api.placements import Placement
from ratchet_api.tpu_topologies import ACCELERATORS, ImpossibleShape
from ratchet_api.validate import devices, placement_shape, semantic_problems

LARGER = 3
"""Larger slices that are looked at."""


@dataclass(frozen=True)
class Change:
    """A manifest and its placement with some knobs turned: `knobs` names them, path -> value."""

    spec: Spec
    placement: Placement
    knobs: dict[str, Any] = field(default_factory=dict)

    @property
    def words(self) -> str:
        return ", ".join(f"{path}: {str(value).lower()}" for path, value in self.knobs.items())

    def rows(self, rows: int, stages: Sequence[int]) -> Change:
        """With at most `rows` rows a pass in these stages."""
        changed, knobs = list(self.spec.stages), {}
        for i in stages:
            kind = "rl" if changed[i].rl is not None else "sft"
            settings = getattr(changed[i], kind).model_copy(update={"rows_per_pass": rows})
            changed[i] = changed[i].model_copy(update={kind: settings})
            knobs[f"stages[{i}].{kind}.rowsPerPass"] = rows
        return self._with(knobs, stages=changed)

    def checkpointing(self) -> Change:
        model = self.spec.model.model_copy(update={"activation_checkpointing": True})
        return self._with({"model.activationCheckpointing": True}, model=model)

    def fsdp(self, size: int) -> Change:
        """With parameters spread over so many devices."""
        parallelism = self.spec.parallelism.model_copy(update={"fsdp": size, "data": None})
        return self._with({"parallelism.fsdp": size}, parallelism=parallelism)

    def topology(self, topology: str) -> Change:
        """On a slice of that topology, of the machines that it is made of."""
        place = next(i for i, p in enumerate(self.spec.placements) if p.name == self.placement.name)
        known: dict[str, Any] = {"topology": topology, "chips_per_node": None, "hosts": None, "devices_per_chip": None}
        new = self.placement.model_copy(update=known)
        try:
            placement_shape(new)
        except ImpossibleShape:
            new = new.model_copy(update={"chips_per_node": 4})
        changed = [new if i == place else p for i, p in enumerate(self.spec.placements)]
        return replace(self._with({f"placements[{place}].topology": topology}, placements=changed), placement=new)

    def _with(self, knobs: dict[str, Any], **parts: Any) -> Change:
        return replace(self, spec=self.spec.model_copy(update=parts), knobs=self.knobs | knobs)

    @property
    def valid(self) -> bool:
        """Whether this placement of the manifest would be accepted; others are not looked at."""
        alone = self.spec.model_copy(update={"placements": [self.placement]})
        return not semantic_problems(alone)


def advice(start: Change, stages: Sequence[int], rows: int, fits: Callable[[Change], bool]) -> Change | None:
    """The first change that fits, None if none of the ladder does. `stages`: those whose updates are too large; `rows`:
    how many rows a device learns from at a time now."""
    for rung in ladder(start, stages, rows):
        sizes = [change for change in rung if change.valid]
        if not sizes or not fits(sizes[-1]):
            continue
        low, high = 0, len(sizes) - 1  # the least saving one that fits is not behind `high`
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(sizes[middle]) else (middle + 1, high)
        return sizes[high]
    return None


def ladder(start: Change, stages: Sequence[int], rows: int) -> Iterator[list[Change]]:
    """Rungs, cheapest first; of each its sizes, the least saving first."""
    yield from _of_updates(start, stages, rows)
    for wider in (start, *map(start.topology, larger(start.placement))):
        there = devices(wider.placement)
        sizes = [start.spec.parallelism.fsdp * 2**i for i in range(1, there.bit_length())]
        spread = [wider.fsdp(size) for size in sizes if there % (size * start.spec.parallelism.tensor) == 0]
        if wider is not start:
            yield [wider]
        if spread:
            yield spread
            yield from _of_updates(spread[-1], stages, rows)


def _of_updates(start: Change, stages: Sequence[int], rows: int) -> Iterator[list[Change]]:
    """What makes updates smaller and nothing else."""
    if not stages:
        return
    halves = [rows >> i for i in range(1, rows.bit_length())]
    yield [start.rows(n, stages) for n in halves]
    if not start.spec.model.activation_checkpointing:
        yield [start.checkpointing()]
        yield [start.checkpointing().rows(n, stages) for n in halves]


def larger(placement: Placement) -> list[str]:
    """The next topologies of the accelerator with more chips."""
    kind = ACCELERATORS[placement.accelerator or ""]
    now = placement_shape(placement).chips
    names = [*kind.single_host.values(), *kind.multi_host]
    if kind.max_cubes:
        names += [
            name for n, name in enumerate(("4x4x4", "4x4x8", "4x8x8", "8x8x8"), 1) if 2 ** (n - 1) <= kind.max_cubes
        ]
    sizes = {name: _chips(name) for name in names}
    return sorted((name for name, size in sizes.items() if size > now), key=lambda name: sizes[name])[:LARGER]


def _chips(topology: str) -> int:
    chips = 1
    for side in topology.split("x"):
        chips *= int(side)
    return chips
