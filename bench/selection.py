"""What a selection costs on a data set of a million items: seconds of a step, of an epoch's first, and bytes.

A step is `plan` and `observe` with 64 prompts of 8 responses each, on the processor alone. The first step of an epoch
finds the order of its items.

    .venv/bin/python bench/selection.py [--items N] [--steps N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "trainer"))

from drawing_path import Path as DataPath
from drawing_path import by_chance, rl

from ratchet_trainer.algorithm.slots import DataFacts
from ratchet_trainer.data import epochs

KINDS = {
    "uniform": {},
    "lilo": {"method": "lilo"},
    "sfl": {"method": "sfl"},
    "historyResampling": {"method": "srpo"},
    "difficultyBand": {"selection": {"kind": "difficultyBand"}},
}


class Timed(DataPath):
    """Counts the seconds of the selection's own code, without those of the made-up policy."""

    spent = 0.0

    def answered(self, requests):
        began = time.perf_counter()
        found = super().answered(requests)
        self.spent -= time.perf_counter() - began
        return found


def measured(kind: str, items: int, steps: int) -> dict[str, float]:
    epochs._latest.clear()
    one = Timed(rl(64, 8, **KINDS[kind]), DataFacts("many", items), by_chance(lambda item: (item % 7) / 6))
    seconds = []
    for _ in range(steps):
        one.spent, began = 0.0, time.perf_counter()
        one.advance()
        seconds.append(time.perf_counter() - began + one.spent)
    return {
        "first step, s": round(seconds[0], 3),
        "later steps, median ms": round(1e3 * statistics.median(seconds[1:]), 2),
        "later steps, largest ms": round(1e3 * max(seconds[1:]), 2),
        "MB in a checkpoint": round(sum(a.nbytes for a in one.state.arrays.values()) / 1e6, 1),
        "MB remembered": round(sum(order.nbytes for _, order in epochs._latest.values()) / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=30)
    wanted = parser.parse_args()
    found = {kind: measured(kind, wanted.items, wanted.steps) for kind in KINDS}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
