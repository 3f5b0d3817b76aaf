"""`model.dtype`: float32, bfloat16 and auto on the same two processors, in turns; mode Off.

    python bench/dtypes.py [--rounds N] [--json FILE]

Whole runs of the reference shape (`measuring/work.py`), as `ratchet train` makes them. `auto` times a step of each at
the start and takes the faster (`dtype_probe.py`); its runs are those of what it took.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from measuring import rounds
from measuring.runs import run

STEPS = 24
DTYPES = "float32", "bfloat16", "auto"


def runs_of(model: Path) -> rounds.Runs:
    of = {name: {"path": str(model), "dtype": name} for name in DTYPES}
    return {name: partial(run, model, steps=STEPS, reproducibility={"mode": "Off"}, model=of[name]) for name in DTYPES}


if __name__ == "__main__":
    rounds.main(__doc__, runs_of, "auto")
