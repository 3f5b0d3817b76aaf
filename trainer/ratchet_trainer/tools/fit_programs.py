"""The programs of a job on one placement, lowered for devices that nobody has.

Decides how a manifest becomes a stage without data, cluster or weights: shapes come from the manifest and from the
model's config.json alone. What differs from a real start is named: an evaluation is taken to have all the items that it
asks for, and `dtype: auto`, which only a measurement on the chip decides, is taken for bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
from jax.sharding import Mesh

from ratchet_api.job import Model, Spec
from ratchet_trainer.algorithm.slots import DataFacts
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.model import families
from ratchet_trainer.model.architecture import Architecture
from ratchet_trainer.model.lora import trained
from ratchet_trainer.model.programs import Program
from ratchet_trainer.step.stage import Programs, Stage
from ratchet_trainer.step.stage_programs import of_stage
from ratchet_trainer.tools.evaluate import Alone
from ratchet_trainer.tools.fit_memory import CRITIC, MOMENTS, REFERENCE, SAMPLING, WEIGHT, on_device

NAME = "config.json"
"""What errors of an architecture begin with; which one it is, where there are several, is said by its path."""
Absent = tuple[Architecture, tuple[int, ...]]
END_UNKNOWN = (0,)
"""Taken for the token that ends a response where a config names none: it changes no shape."""


def absent_model(config: Path) -> Absent:
    """Architecture, and tokens that end a response, of a config.json. Raises ConfigurationInvalid."""
    content = families.json_object(config)
    try:
        architecture = families.architecture(content)
    except ConfigurationInvalid as error:
        raise ConfigurationInvalid(str(error).replace(NAME, str(config), 1)) from None
    end = families.text_config(content).get("eos_token_id")
    ends = tuple(end) if isinstance(end, list) else END_UNKNOWN if end is None else (end,)
    if not ends or not all(type(token) is int and 0 <= token < architecture.vocabulary for token in ends):
        raise ConfigurationInvalid(f"{config}: eos_token_id is {end!r}; it is a token's number, or a list of some")
    return architecture, ends


def dtype_of(model: Model) -> str:
    """The number format that the programs are compiled in."""
    return "bfloat16" if model.dtype == "auto" else model.dtype or "float32"


@dataclass(frozen=True)
class Job:
    """A job's programs on one mesh."""

    spec: Spec
    programs: Programs

    @classmethod
    def on(cls, spec: Spec, mesh: Mesh, absent: Absent | None = None) -> Job:
        """`absent`: what a model is whose folder is not here. Raises ConfigurationInvalid."""
        shards = spec.reproducibility.exact_shards
        return cls(spec, Programs(spec.model, mesh, shards, dtype_of(spec.model), absent))

    def stage(self, index: int) -> Stage:
        """A stage that can be compiled, not run: it has no data."""
        one, rows = self.spec.stages[index], self.spec.reproducibility.rows_per_shard
        nothing = DataFacts("", 1)
        return Stage(index, one, "", self.spec.seed, None, nothing, self.programs, Alone(), self.spec, rows)

    def programs_of(self, index: int) -> Iterator[Program]:
        """Every program of a stage, each lowered when it is asked for."""
        for some in of_stage(self.stage(index), lambda evaluation: evaluation.items):
            yield from some()

    def state_of(self, index: int) -> dict[str, int]:
        """Bytes of a device that the state takes in a stage, by part."""
        params, moments = self.programs.template
        arrays = self.programs.arrays_of(self.spec.stages, index)
        state = {WEIGHT: params, MOMENTS: moments, REFERENCE: arrays["reference"], CRITIC: arrays["critic"]}
        found = {part: on_device(tree) for part, tree in state.items() if tree is not None}
        return found | {SAMPLING: on_device(self.programs.policy.weights(params))}

    @property
    def trained(self) -> int:
        """Bytes of a device that a gradient takes."""
        return on_device(trained(self.programs.template[0]))

    @property
    def parameters(self) -> int:
        """How many there are."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.programs.policy.abstract))
