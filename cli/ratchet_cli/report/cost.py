"""What a run took: chip hours by kind of capacity, and money where the user says what an hour costs.

Chip time of an attempt is the time that its processes ran, by its ledger; without one, from when it was authorized to
when its last pod had ended. What the operator has booked, and what a cloud bills, which counts nodes that wait, are
other numbers; the page says so. Prices are never made up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ratchet_api.placements import Placement
from ratchet_api.validate import chips
from ratchet_cli.report.attempts import Attempt

CPU, HERE, ELSEWHERE = "CPU", "this machine", "not recorded"
"""What is no capacity type: hosts without chips; a run of `ratchet train`; a placement that nobody recorded."""


@dataclass(frozen=True)
class Cost:
    """One kind of capacity."""

    capacity: str
    chips: str
    attempts: int
    hours: float
    """Of chips; of the whole gang where it has none."""
    price: float | None
    """Of one hour, in the user's unit."""

    @property
    def money(self) -> float | None:
        return None if self.price is None else self.price * self.hours


def costs(
    attempts: Sequence[Attempt], spec: Mapping[str, Any], prices: Mapping[str, float], *, local: bool
) -> list[Cost]:
    """By kind of capacity. `local`: the run was one of `ratchet train`, whatever its placements ask for. An attempt
    whose placement nobody recorded is counted as of the only one, if there is one."""
    placements = {p["name"]: Placement.model_validate(p) for p in spec.get("placements") or ()}
    alone = next(iter(placements)) if len(placements) == 1 else None
    hours: dict[tuple[str, str], float] = {}
    counts: dict[tuple[str, str], int] = {}
    for attempt in attempts:
        placement = None if local else placements.get(attempt.placement or alone or "")
        size, key = 1, (HERE if local else ELSEWHERE, "no chips")
        if placement is not None:
            size = chips(placement)
            kind = CPU if placement.accelerator is None else placement.capacity_type or "ComputeClass"
            key = (kind, f"{size} × {placement.accelerator or 'host'}")
        hours[key] = hours.get(key, 0.0) + attempt.wall / 3600 * size
        counts[key] = counts.get(key, 0) + 1
    return [Cost(*key, counts[key], hours[key], prices.get(key[0])) for key in sorted(hours)]
