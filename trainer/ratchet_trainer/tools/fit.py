"""`ratchet fit`: whether a manifest's programs fit its placements, by the real TPU compiler and without a TPU.

    python -m ratchet_trainer.tools.fit < request.json

The request: `spec` (a manifest's), `config` (a config.json for a model whose folder is not here, or null), `placements`
(names; null: all), `advise` (whether a way out is looked for), `cache` (a folder for compiled programs, or null). Each
line of standard output is one JSON record: `placement` (one begins; `skipped` says why it is not compiled), `program`
(one is compiled), `advice` (knobs that make a placement fit, or null), `error` (what is wrong and how to mend it).

Decides the order of the work and what is said. What is compiled is in `fit_programs`, for what in `fit_topology`, how
memory is counted in `fit_memory`, what to change in `fit_advice`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ratchet_api.job import Spec
from ratchet_api.placements import Placement
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.process import distributed
from ratchet_trainer.storage import Location
from ratchet_trainer.tools import fit_topology

Record = dict[str, Any]
UPDATES = ("update", "log-probabilities", "values", "critic update")
"""What `rowsPerPass` and activation checkpointing change."""


def main() -> None:
    request = json.load(sys.stdin)
    say = _printer()
    try:
        fit_topology.set_environment(request["spec"])
        for record in fit(request):
            say(record)
    except (fit_topology.NoCompiler, ConfigurationInvalid) as error:
        say({"error": str(error)})
        sys.exit(os.EX_UNAVAILABLE if isinstance(error, fit_topology.NoCompiler) else os.EX_DATAERR)
    except ModuleNotFoundError as error:
        say({"error": f"a library is missing here ({error.name}); install the extra: pip install 'ratchet-rl[tpu]'"})
        sys.exit(os.EX_UNAVAILABLE)


def _printer() -> Callable[[Record], None]:
    """Writes records to what standard output was; from now on that is standard error, as libtpu writes to it."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(record: Record) -> None:
        out.write(json.dumps(record) + "\n")
        out.flush()

    return say


def fit(request: Record) -> Iterator[Record]:
    """The records of a request. Raises ConfigurationInvalid, NoCompiler."""
    from ratchet_trainer.tools.fit_programs import absent_model

    spec = Spec.model_validate(request["spec"])
    absent = absent_model(Path(request["config"])) if request.get("config") else None
    wanted = request.get("placements")
    known: dict[Any, str] = {}
    cache = Path(request["cache"]) if request.get("cache") else None
    if cache is not None:
        distributed.use_cache(Location.parse(cache))
    for placement in spec.placements:
        if wanted is not None and placement.name not in wanted:
            continue
        slice_ = placement.accelerator, placement.topology, placement.chips_per_node, placement.hosts, placement.slices
        if placement.accelerator is None:
            yield {"placement": placement.name, "skipped": "its pods are on CPUs, so there is nothing to fit"}
        elif slice_ in known:
            yield {"placement": placement.name, "skipped": f"the same slice as {known[slice_]}"}
        else:
            fit_topology.require_compiler()
            known[slice_] = placement.name
            yield from _of_placement(spec, placement, absent, advise=request.get("advise", True))
    if cache is not None:
        files = list(cache.glob("*.program"))
        size = sum(file.stat().st_size for file in files) / 2**20
        yield {
            "cache": f"{len(files)} programs ({size:.0f} MiB) are in {cache}: what JAX would have put there for these "
            "programs, topologies and versions. That a TPU loads them was not tried: there is none here. Put the files "
            "into cache/ of the checkpoint directory, with the versions of JAX and libtpu that the image has"
        }


def _of_placement(spec: Spec, placement: Placement, absent: Any, *, advise: bool) -> Iterator[Record]:
    from ratchet_trainer.tools.fit_advice import Change, advice
    from ratchet_trainer.tools.fit_compile import Compiler

    chip = fit_topology.chip_of(placement)
    assert chip is not None, "a placement on TPUs"
    start = Change(spec, placement)
    job, count = _job(start, absent)
    compiler = Compiler(chip)
    yield {
        "placement": placement.name,
        "chip": chip.compiler,
        "topology": placement.topology,
        "slices": placement.slices,
        "devices": count,
        "parameters": job.parameters,
    }
    too_large: dict[int, set[str]] = {}
    for index in range(len(spec.stages)):
        for record in compiler.stage(job, index):
            yield {"placement": placement.name} | record
            if not record["fits"]:
                too_large.setdefault(index, set()).add(record["program"])
    if not too_large or not advise:
        return

    def fits(change: Change) -> bool:
        job, _ = _job(change, absent)
        for first in (True, False):
            for index in range(len(spec.stages)):
                names = too_large.get(index, set())
                some = lambda name, names=names, first=first: (name in names) is first  # noqa: E731
                if not all(record["fits"] for record in compiler.stage(job, index, some)):
                    return False
        return True

    stages = [i for i, names in too_large.items() if any(name.startswith(UPDATES) for name in names)]
    rows = max((_rows_a_pass(job.stage(i).layout, job.programs.learner.parts) for i in stages), default=1)
    found = advice(start, stages, rows, fits)
    yield {
        "placement": placement.name,
        "advice": None if found is None else {"knobs": found.knobs, "words": found.words},
    }


def _job(change: Any, absent: Any) -> tuple[Any, int]:
    """A changed manifest's programs on its placement, and how many devices that has."""
    from ratchet_trainer.tools.fit_programs import Job

    devices = fit_topology.devices_of(change.placement)
    mesh = fit_topology.mesh_on(devices, change.spec.parallelism)
    return Job.on(change.spec, mesh, absent), len(devices)


def _rows_a_pass(layout: Any, parts: int) -> int:
    """Rows that a device learns from at a time."""
    rows: int = layout.prompts * layout.samples // (parts * layout.passes)
    return rows


if __name__ == "__main__":
    main()
