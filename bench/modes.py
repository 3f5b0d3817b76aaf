"""What the modes of `spec.reproducibility` cost: PerTopology and Exact as ratios to Off, in turns.

    python bench/modes.py [--rounds N] [--json FILE]

Whole runs of the reference shape (`measuring/work.py`) with one process on two processors, as `ratchet train` makes
them; medians of a run's steps after the first. Exact with 8 virtual shards, its default, and so with the 8 threads that
it asks for. Off and PerTopology run the same programs today, they differ in what is promised and recorded: their ratio
says how far ratios of this benchmark can be believed.
"""

from __future__ import annotations

from functools import partial

from measuring import rounds
from measuring.runs import run

MODES = ("Off", "PerTopology", "Exact")
STEPS = 16

if __name__ == "__main__":
    rounds.main(
        __doc__,
        lambda model: {mode: partial(run, model, steps=STEPS, reproducibility={"mode": mode}) for mode in MODES},
        "Off",
    )
