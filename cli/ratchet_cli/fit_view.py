"""What `ratchet fit` prints for people: a table for each placement, a verdict below it.

Decides words and units. GiB are 2^30 bytes of one device.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

GIB = 2**30
SHOWN = 0.01
"""Share of a program's memory from which a part of it is named."""
COLUMNS = "  {:12} {:20} {:>7} {:>7} {:>8} {:>9} {:>9}  {}".format(
    "stage", "program", "GiB", "of HBM", "compile", "flops", "HBM", "what takes it (GiB)"
)


class FitView:
    """The lines of one manifest's records, in their order."""

    def __init__(self, file: str):
        self.file = file
        self._head: dict[str, Any] = {}

    def lines(self, record: dict[str, Any]) -> Iterator[str]:
        if "skipped" in record:
            yield f"{self.file}: placement {record['placement']}: {record['skipped']}"
        elif "chip" in record:
            self._head = record
            yield _head(self.file, record)
            yield COLUMNS
        elif "program" in record:
            yield _program(record)
        elif "advice" in record:
            yield _advice(record)
        elif "cache" in record:
            yield f"{self.file}: {record['cache']}"


def _head(file: str, record: dict[str, Any]) -> str:
    slices = f"{record['slices']} slices of " if record["slices"] > 1 else ""
    return (
        f"{file}: placement {record['placement']}, {slices}{record['chip']} {record['topology']} "
        f"({record['devices']} devices), {record['parameters']:,} parameters"
    )


def _program(record: dict[str, Any]) -> str:
    parts = sorted(record["parts"].items(), key=lambda part: -part[1])
    shown = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts if size >= SHOWN * record["bytes"])
    share = record["bytes"] / record["hbm"]
    mark = "" if record["fits"] else "  DOES NOT FIT"
    cost = "{:>9} {:>9}".format("-", "-")
    if "flops" in record:
        cost = f"{seconds(record['computeSeconds']):>9} {seconds(record['memorySeconds']):>9}"
    return (
        f"  {record['stage']:12} {record['program']:20} {record['bytes'] / GIB:7.2f} {share:7.0%} "
        f"{record['compileSeconds']:6.1f} s {cost}  {shown}{mark}"
    )


def _advice(record: dict[str, Any]) -> str:
    found = record["advice"]
    if found is None:
        return f"  {record['placement']}: nothing was found with which it fits; take chips with more memory"
    return f"  {record['placement']}: fits with {found['words']} (compiled with it, too)"


def seconds(value: float) -> str:
    """A short time for people."""
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.2f} ms" if value >= 1e-3 else f"{1e6 * value:.0f} us"
