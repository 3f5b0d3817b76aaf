"""The committed metric stream as records: the only thing that trackers are told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class StepRecord:
    """The metrics of one committed step. Values may be NaN or infinite."""

    step: int
    stage: str
    metrics: dict[str, float]


def records(data: bytes) -> Iterator[StepRecord]:
    """One for each whole line; blank ones, and what is no record, are left out."""
    for line in data.splitlines():
        try:
            said = json.loads(line)
            metrics = {str(name): float(value) for name, value in said.get("metrics", {}).items()}
            yield StepRecord(int(said["step"]), str(said.get("stage", "")), metrics)
        except (ValueError, LookupError, TypeError, AttributeError):
            continue


def whole(data: bytes) -> int:
    """How many bytes of it are whole lines."""
    return data.rfind(b"\n") + 1
