"""One placement, compiled: of every program its memory, its traffic and how long the compiler took.

Decides what is measured of a program and how it becomes a plain record. Programs that are the same to the last letter
are compiled once. A program that the compiler refuses for its memory is a finding, not an error.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax

from ratchet_api.tpu_chips import Chip
from ratchet_trainer.model.programs import Program
from ratchet_trainer.tools import fit_memory
from ratchet_trainer.tools.fit_memory import Need
from ratchet_trainer.tools.fit_programs import Job
from ratchet_trainer.tools.hlo import parsed
from ratchet_trainer.tools.hlo_traffic import traffic

log = logging.getLogger(__name__)

Record = dict[str, Any]


@dataclass
class Compiler:
    """Compiles for one kind of chip and remembers what it has compiled."""

    chip: Chip
    _known: dict[str, Record] = field(default_factory=dict)

    def stage(self, job: Job, index: int, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[Record]:
        """A record of each program of a stage whose name is wanted, as soon as it is compiled."""
        state = job.state_of(index)
        for name, lowered in job.programs_of(index):
            if wanted(name):
                yield {"stage": job.spec.stages[index].name} | self.program((name, lowered), state, job.trained)

    def program(self, program: Program, state: dict[str, int], trained: int) -> Record:
        """A record of one program."""
        name, lowered = program
        text = lowered.as_text()
        key = hashlib.sha256(f"{name}\0{sorted(state.items())}\0{text}".encode()).hexdigest()
        if key not in self._known:
            self._known[key] = self._compiled(name, lowered, state, trained)
        return self._known[key]

    def _compiled(self, name: str, lowered: jax.stages.Lowered, state: dict[str, int], trained: int) -> Record:
        began = time.perf_counter(), time.process_time()
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            need = fit_memory.of_refusal(name, error, state)
            if need is None:
                raise
            return _record(name, need, self.chip, began)
        taken = _record(name, fit_memory.of_program(name, compiled, state, trained), self.chip, began)
        found = traffic(parsed(compiled.as_text() or ""))
        if found.unknown:
            log.info("%s: trips of %s are not known; their bodies count once", name, ", ".join(found.unknown))
        return taken | {
            "flops": found.flops,
            "hbmBytes": found.bytes,
            "computeSeconds": found.flops / self.chip.flops_per_second,
            "memorySeconds": found.bytes / self.chip.bytes_per_second,
        }


def _record(name: str, need: Need, chip: Chip, began: tuple[float, float]) -> Record:
    """`began`: when compiling did, by the clock and in the time of processors."""
    return {
        "program": name,
        "compileSeconds": round(time.perf_counter() - began[0], 2),
        "processorSeconds": round(time.process_time() - began[1], 2),
        "bytes": need.total,
        "hbm": chip.hbm_bytes,
        "fits": need.exact and need.total <= chip.hbm_bytes,
        "parts": need.parts,
    }
