"""What a program needs of a device's memory, and what else lies there while it runs.

Decides how the compiler's figures for one program (arguments, results, temporaries, code) and the state that stays on
the devices meanwhile become one sum, and what each part of it is called. A program that is larger than the memory is
not compiled at all: the compiler says what it would have needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import jax

from ratchet_trainer.model.programs import CRITIC_UPDATE, DECODE, LOG_PROBS, PREFILL, REFILL, UPDATE, VALUES, WEIGHTS

WEIGHT, MOMENTS, REFERENCE, CRITIC, SAMPLING = "weights", "moments", "reference", "critic", "sampling weights"
CACHE, GRADIENTS, TEMPORARIES, CODE, OTHER = "cache", "gradients", "temporaries", "code", "rows and others"

TAKES: dict[str, tuple[str, ...]] = {
    WEIGHTS: (WEIGHT,),
    PREFILL: (SAMPLING,),
    REFILL: (SAMPLING,),
    DECODE: (SAMPLING,),
    LOG_PROBS: (WEIGHT,),
    UPDATE: (WEIGHT, MOMENTS),
    VALUES: (CRITIC,),
    CRITIC_UPDATE: (CRITIC,),
}
"""Which parts of the state are arguments of a program; the others lie beside it."""

NEEDED = re.compile(
    r"(?:Used |memory required for HLO temporaries \()([0-9.]+)([KMGT]?)\)? (?:of|exceeds available HBM)"
)
"""The compiler refuses a program before or after it has laid out its memory, in other words each time; both count what
the program takes and gives, too."""
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Need:
    """Bytes of a device by what takes them. `exact`: whether they are the compiler's, of a program that it made."""

    parts: dict[str, int] = field(default_factory=dict)
    exact: bool = True

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def on_device(tree: Any) -> int:
    """Bytes of a tree of shapes on one device."""
    return sum(_bytes(leaf, leaf.sharding) for leaf in jax.tree.leaves(tree))


def _bytes(leaf: Any, sharding: Any) -> int:
    shape = leaf.shape if sharding is None else sharding.shard_shape(tuple(leaf.shape))
    return int(prod(shape) * leaf.dtype.itemsize)


def of_program(name: str, compiled: Any, state: Mapping[str, int], trained: int) -> Need:
    """`state`: bytes of each part of the state; `trained`: of what has a gradient."""
    found = compiled.memory_analysis()
    kind = name.split(",")[0]
    taken = {part: state[part] for part in TAKES[kind] if part in state}
    parts = {part: size for part, size in state.items() if part not in taken and part != SAMPLING} | taken
    arguments = found.argument_size_in_bytes
    results = found.output_size_in_bytes - found.alias_size_in_bytes
    rest = max(0, arguments - sum(taken.values()))
    if kind in (DECODE, REFILL):
        parts |= {CACHE: rest, OTHER: results}
    elif kind == PREFILL:
        parts |= {CACHE: results, OTHER: rest}
    elif kind == WEIGHTS:
        parts |= {SAMPLING: results, OTHER: rest}
    else:
        parts |= {OTHER: rest + results}
    temporaries = found.temp_size_in_bytes
    if kind in (UPDATE, CRITIC_UPDATE) and not name.endswith("optimizer"):
        gradients = min(trained, temporaries)
        parts[GRADIENTS], temporaries = gradients, temporaries - gradients
    parts |= {TEMPORARIES: temporaries, CODE: found.generated_code_size_in_bytes}
    return Need({part: size for part, size in parts.items() if size > 0})


def of_refusal(name: str, error: Exception, state: Mapping[str, int]) -> Need | None:
    """Of a program that the compiler refused for its memory; None if it did for something else."""
    said = NEEDED.search(str(error))
    if said is None:
        return None
    kind = name.split(",")[0]
    beside = {part: size for part, size in state.items() if part not in TAKES[kind] and part != SAMPLING}
    taken = {part: state[part] for part in TAKES[kind] if part in state}
    rest = max(0, int(float(said[1]) * UNITS[said[2]]) - sum(taken.values()))
    return Need(beside | taken | {TEMPORARIES: rest}, exact=False)
