"""Two processes with one processor each against one process with the same two, in turns; mode Off.

    python bench/processes.py [--rounds N] [--json FILE]

Whole runs of the reference shape (`measuring/work.py`), as `ratchet train` makes them: the processes meet over
loopback, gradients are added by gloo, control values travel over the lines of `peers`. Times are those
of process 0. What two processes lose is what they wait for one another and say to one another.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from measuring import rounds
from measuring.runs import Times, cores, manifest, run

STEPS = 24


def measured(model: Path, processes: int, folder: Path) -> Times:
    places = [cores()] if processes == 1 else [[core] for core in cores()]
    job = manifest(model, STEPS, len(places[0]), reproducibility={"mode": "Off"})
    return run(folder, job, model.parent / "cache", places)


if __name__ == "__main__":
    gangs = {"one process": 1, "two processes": 2}
    rounds.main(__doc__, lambda model: {k: partial(measured, model, n) for k, n in gangs.items()}, "one process")
