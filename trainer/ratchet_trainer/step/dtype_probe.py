"""`model.dtype: auto`: which number format makes steps faster on this device.

Decides by measuring, not by tables: on some CPUs bfloat16 is the slower one. What is measured are the sampler's and the
learner's own programs at the shapes of the job's first stage, for a model of few layers and a small vocabulary; the
rest of a step does not depend on the format. The answer belongs to the identity of a run: it is asked for once, before
the first step, and every later attempt takes what the checkpoint says.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from ratchet_api import stages as api
from ratchet_trainer.algorithm import keys
from ratchet_trainer.algorithm.methods import resolve
from ratchet_trainer.learning import optimizer
from ratchet_trainer.learning.learner import Layout, Learner, Row
from ratchet_trainer.model.architecture import Architecture
from ratchet_trainer.model.computation import Computation
from ratchet_trainer.model.policy import Policy, lay_out_prompts
from ratchet_trainer.process import distributed
from ratchet_trainer.rollout.engine import slots
from ratchet_trainer.rollout.sampler import CHUNK, Sampler
from ratchet_trainer.step import sft

log = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16")
LAYERS, VOCABULARY, ROWS, TOKENS = 2, 4096, 64, 256
"""The probe's model and batch are no larger than this."""
SECONDS = 0.2
"""For which each program is run again and again in each format; the fastest run counts."""


def faster(architecture: Architecture, stage: api.Stage) -> str:
    """The format in which a step of `stage` is faster on this process's first device."""
    trials = {dtype: _Trial(architecture, stage, dtype) for dtype in DTYPES}
    found = dict.fromkeys(DTYPES, 0.0)
    for name, times in (("generate", trials["float32"].chunks), ("update", 1)):
        if not times:
            continue
        programs = {dtype: getattr(trial, name) for dtype, trial in trials.items()}
        for dtype, seconds in _least(programs).items():
            found[dtype] += times * seconds
    log.info("dtype auto: a step takes %s", ", ".join(f"{found[d] * 1e3:.1f} ms in {d}" for d in DTYPES))
    return min(DTYPES, key=lambda dtype: found[dtype])


def _least(programs: dict[str, Any]) -> dict[str, float]:
    """Seconds of the fastest run of each; they take turns, so that other load on the machine meets all of them."""
    for run in programs.values():
        run()
    least, until = dict.fromkeys(programs, float("inf")), time.perf_counter() + SECONDS * len(programs)
    while time.perf_counter() < until:
        for name, run in programs.items():
            began = time.perf_counter()
            run()
            least[name] = min(least[name], time.perf_counter() - began)
    return least


class _Trial:
    """A small model of the architecture in one format, and a batch of the stage's shape."""

    def __init__(self, architecture: Architecture, stage: api.Stage, dtype: str):
        small = replace(
            architecture,
            layers=architecture.layers[:LAYERS],
            vocabulary=min(architecture.vocabulary, VOCABULARY),
            adapters=None,
        )
        policy, mesh = Policy(small, Computation(dtype)), distributed.one_device()
        self.sampler, self.learner = Sampler(policy, mesh, ends=()), Learner(policy, mesh)
        self.params, self.moments = self.learner.init(keys.seed_words(0))
        settings = stage.rl or stage.sft
        assert settings is not None, "the type's rules"
        group = stage.rl.group_size if stage.rl else 1
        self.group = min(group, ROWS)
        self.prompts = max(1, min(settings.prompts_per_step if stage.rl else settings.batch_size, ROWS // self.group))
        self.response = min(settings.max_response_tokens, TOKENS)
        self.chunks = -(-self.response // CHUNK) if stage.rl else 0
        self.prompt_slots = min(slots(settings.max_prompt_tokens), TOKENS)
        self.objective = resolve(stage.rl).objective if stage.rl else sft.CrossEntropy()
        self.numbers = optimizer.numbers(settings.optimizer, 0)
        rows = self.prompts * self.group
        self.layout = Layout.of(rows, self.group, 1, self.prompt_slots, self.response, settings.rows_per_pass)
        tokens = np.random.default_rng(0).integers(0, small.vocabulary, (rows, self.prompt_slots + self.response))
        told = np.zeros(self.response, np.float32) if stage.rl else None
        texts = [tuple(int(t) for t in row) for row in tokens]
        self.rows = [Row(t[: self.prompt_slots], t[self.prompt_slots :], told) for t in texts]
        self.advantages = np.ones((rows, self.response))

    def generate(self) -> None:
        """One prefill and one chunk."""
        laid_out = lay_out_prompts([row.prompt for row in self.rows[:: self.group]], self.prompts, self.prompt_slots)
        words = keys.row_words(0, list(range(self.prompts)), [0] * self.prompts)
        samples = np.arange(self.group)
        self.sampler.begin(
            self.params, keys.seed_words(0), laid_out, words, samples, min(CHUNK, self.response), 1.0
        ).finish()

    def update(self) -> None:
        self.params, self.moments, _ = self.learner.update(
            self.params, self.moments, self.layout, self.rows, self.advantages, None, 1.0, self.objective, self.numbers
        )
        jax.block_until_ready(self.params)
