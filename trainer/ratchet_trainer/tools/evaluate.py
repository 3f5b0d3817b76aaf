"""How good a checkpoint is: accuracy on held-out items, computed apart from the run.

Decides which items and keys an evaluation uses (purpose EVAL: ordinal = item index, tag = step), so that the same
checkpoint always gets the same number, wherever it is computed. One device is enough; nothing here influences a run.
"""

from __future__ import annotations

import logging
from typing import Any

import jax
import numpy as np

from ratchet_api.job import Spec
from ratchet_api.stages import Rl
from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.types import Draw, Request
from ratchet_trainer.algorithm.verifiers.registry import resolve
from ratchet_trainer.data.evaluation_items import held_out
from ratchet_trainer.errors import CheckpointUnreadable, ConfigurationInvalid
from ratchet_trainer.model.lora import trained
from ratchet_trainer.process import distributed
from ratchet_trainer.rollout.engine import Engine, Shape
from ratchet_trainer.rollout.verification import Judges, Verification
from ratchet_trainer.step.stage import programs_of
from ratchet_trainer.step.state import flat_paths

log = logging.getLogger(__name__)

PROMPTS = 64
"""Prompts of one sampling call."""


class Alone:
    """A group of one process, which nobody interrupts."""

    process = 0
    processes = 1
    rollouts = None
    directory = data_cache = None

    def broadcast(self, value: Any) -> Any:
        return value

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def enter(self, phase: str) -> None:
        """Nobody watches."""

    def spend(self, category: str) -> None:
        """Nobody keeps books."""

    def safe_point(self) -> None:
        """Nobody drains."""

    def alive(self) -> None:
        """Nobody waits."""


def evaluate_checkpoint(spec: Spec, saved: Any, dataset: str, items: int) -> float:
    """Share of right answers of a saved state (`step`, `arrays` by path) on `items` held-out items, temperature 1.

    Lengths and stop strings are those of the last stage that uses the data set; all tokens are drawn from. Raises
    ConfigurationInvalid if there are not that many items or the data set has none held out, CheckpointUnreadable if
    the arrays are another model's.
    """
    source = held_out(spec, dataset, items)
    users = [stage.settings for stage in spec.stages if dataset in stage.dataset_names]
    if not users:
        raise ConfigurationInvalid(f"no stage uses data set {dataset}, so its lengths are unknown")
    one = programs_of(spec.model, distributed.one_device())
    kept = trained(one.policy.abstract)
    wanted = flat_paths({"params": kept})
    arrays = {path: np.asarray(saved.arrays[path]) for path in wanted if path in saved.arrays}
    if any(path not in arrays or arrays[path].shape != shape.shape for path, shape in wanted.items()):
        model = spec.model.path or f"preset {spec.model.preset}"
        raise CheckpointUnreadable(f"the arrays of step {saved.step} are not those of model {model}")
    params = jax.tree.unflatten(jax.tree.structure(kept), [arrays[path] for path in wanted])
    params = one.whole(params, spec.seed)
    shape = Shape(PROMPTS, users[-1].max_prompt_tokens, users[-1].max_response_tokens)
    stop = users[-1].sampling.stop if isinstance(users[-1], Rl) else ()
    verification = Verification(Judges((resolve(spec.dataset(dataset)),)))
    engine = Engine(
        Alone(),
        one.sampler,
        one.tokenizer,
        source,
        spec.seed,
        shape,
        temperature=1.0,
        stop=stop,
        verification=verification,
    )
    requests = [Request(Draw(index, index), Purpose.EVAL, n=1, tag=saved.step) for index in source.items]
    rollouts = engine.sample(requests, params, saved.step)
    return sum(r.outcome.accuracy for r in rollouts) / len(rollouts)
