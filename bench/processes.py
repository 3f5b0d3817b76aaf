"""Two processes with one processor each against one process with the same two, in turns; mode Off.

    python bench/processes.py [--rounds N] [--json FILE]

Whole runs of the reference shape (`measuring/work.py`), as `ratchet train` makes them: the processes meet over
loopback, gradients are added by gloo, control values travel over the lines of `peers`. Times are those
of process 0. What two processes lose is what they wait for one another and say to one another.
"""

from __future__ import annotations

from functools import partial

from measuring import rounds
from measuring.runs import run

STEPS = 24
GANGS = {"one process": 1, "two processes": 2}
OFF = {"mode": "Off"}

if __name__ == "__main__":
    rounds.main(
        __doc__,
        lambda model: {k: partial(run, model, steps=STEPS, processes=n, reproducibility=OFF) for k, n in GANGS.items()},
        "one process",
    )
