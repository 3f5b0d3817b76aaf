"""`model.dtype: auto`: which number format makes steps faster on this device.

Decides by measuring, not by tables: on some CPUs bfloat16 is the slower one. What is measured are the sampler's and the
learner's own programs, at the widths of the model and the rows of the job's first stage. Time is the sum of two parts,
so that a deep model need not be compiled: one block with the whole vocabulary, and two blocks with hardly any, which
stand for all the others. The rest of a step does not depend on the format. The answer belongs to the identity of a run:
it is asked for once, before the first step, and every later attempt takes what the checkpoint says.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

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
from ratchet_trainer.model.sharding import of_parameters, place
from ratchet_trainer.process import distributed
from ratchet_trainer.rollout.engine import slots
from ratchet_trainer.rollout.sampler import Sampler, reach_of
from ratchet_trainer.step import sft

log = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16")
LAYERS, VOCABULARY = 2, 512
"""Of the part that stands for all blocks but the first."""
SAMPLED_ROWS, LEARNED_ROWS, TOKENS, DECODED = 64, 16, 64, 8
"""Most rows that are sampled at a time and learned from at a time, tokens of a prompt and of a response, and tokens
that are decoded: what a step has more of takes so much more time."""
DRAWN = 1_000_003
"""Numbers that are drawn for weights, again and again: few, so that it is quick, and no divisor of any width."""
SECONDS = 0.2
"""For which each program is run again and again in each format, once at least; the fastest run counts."""


def faster(architecture: Architecture, stage: api.Stage) -> str:
    """The format in which a step of `stage` is faster on this process's first device."""
    found = dict.fromkeys(DTYPES, 0.0)
    all_trials = [({d: _Trial(part, stage, d) for d in DTYPES}, times) for part, times in parts(architecture)]
    with ThreadPoolExecutor(2, "compile") as threads:  # programs are compiled when they run first
        list(threads.map(_Trial.run, [trial for trials, _ in all_trials for trial in trials.values()]))
    for trials, times in all_trials:
        for name, calls in trials[DTYPES[0]].calls.items():
            for dtype, seconds in _least({dtype: getattr(trial, name) for dtype, trial in trials.items()}).items():
                found[dtype] += times * calls * seconds
    log.info("dtype auto: a step takes about %s", ", ".join(f"{found[d]:.3g} s in {d}" for d in DTYPES))
    return min(DTYPES, key=lambda dtype: found[dtype])


def parts(architecture: Architecture) -> list[tuple[Architecture, float]]:
    """Small models, and how often each must be taken to make up the whole one."""
    plain = replace(architecture, adapters=None)
    whole = replace(plain, layers=plain.layers[:1])
    blocks = replace(plain, layers=plain.layers[:LAYERS], vocabulary=min(plain.vocabulary, VOCABULARY))
    more = (len(plain.layers) - 1) / len(blocks.layers)
    return [(whole, 1.0), (blocks, more)] if more else [(whole, 1.0)]


def _least(programs: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Seconds of the fastest run of each; they take turns, so that other load on the machine meets all of them."""
    least, until = dict.fromkeys(programs, float("inf")), time.perf_counter() + SECONDS * len(programs)
    while max(least.values()) == float("inf") or time.perf_counter() < until:
        for name, run in programs.items():
            began = time.perf_counter()
            run()
            least[name] = min(least[name], time.perf_counter() - began)
    return least


class _Trial:
    """A small model in one format, and batches of the stage's shape. `calls`: how often a step of the stage would run
    each of the programs `decode` and `update`."""

    def __init__(self, architecture: Architecture, stage: api.Stage, dtype: str):
        policy, mesh = Policy(architecture, Computation(dtype)), distributed.one_device()
        self.sampler, self.learner = Sampler(policy, mesh, ends=()), Learner(policy, mesh)
        some = np.random.default_rng(0).normal(0, 0.02, DRAWN).astype(np.float32)
        weights = jax.tree.map(lambda leaf: np.resize(some, leaf.shape), policy.abstract)
        self.params = place(weights, of_parameters(mesh, weights))
        self.moments = self.learner.fresh_optimizer(self.params)
        settings = stage.rl or stage.sft
        assert settings is not None, "the type's rules"
        group = stage.rl.group_size if stage.rl else 1
        prompts = stage.rl.prompts_per_step if stage.rl else stage.sft.batch_size if stage.sft else 1
        prompt, response = slots(settings.max_prompt_tokens), settings.max_response_tokens
        self.prompt, self.response = min(prompt, TOKENS), min(response, TOKENS)
        at_a_time = (stage.rl.prompts_in_flight if stage.rl else None) or prompts
        self.sampled = max(1, min(at_a_time, SAMPLED_ROWS // group)), min(group, SAMPLED_ROWS)
        self.learned = max(1, min(prompts, LEARNED_ROWS // group)), min(group, LEARNED_ROWS)
        self.objective = resolve(stage.rl).objective if stage.rl else sft.CrossEntropy()
        self.numbers = optimizer.numbers(settings.optimizer.model_copy(update={"learning_rate": "0.001"}), 0)
        whole, here = _tokens(prompts, group, prompt, response), _tokens(*self.learned, self.prompt, self.response)
        self.words = min(architecture.vocabulary, VOCABULARY)
        self.calls = {"update": whole / here}
        if stage.rl:
            rows = self.sampled[0] * self.sampled[1]
            self.calls["decode"] = (prompts * group / rows) * (response / min(DECODED, response))
        self._rows()

    def _rows(self) -> None:
        """The rows that are learned from."""
        (prompts, group), draw = self.learned, np.random.default_rng(1)
        self.layout = Layout.of(prompts * group, group, 1, self.prompt, self.response)
        told = np.zeros(self.response, np.float32) if "decode" in self.calls else None

        def text(size: int) -> tuple[int, ...]:
            return tuple(int(token) for token in draw.integers(0, self.words, size))

        asked = [text(self.prompt) for _ in range(prompts)]
        self.rows = [Row(question, text(self.response), told) for question in asked for _ in range(group)]
        self.advantages = np.ones((len(self.rows), self.response))

    def run(self) -> None:
        """Every program once."""
        for name in self.calls:
            getattr(self, name)()

    def decode(self) -> None:
        """A few tokens of every row, after a prompt that is taken as read."""
        prompts, group = self.sampled
        own = self.sampler.weights(self.params)
        if not hasattr(self, "state"):
            laid_out = lay_out_prompts([self.rows[0].prompt] * prompts, prompts, self.prompt)
            words = keys.row_words(0, list(range(prompts)), [0] * prompts)
            samples = np.arange(group, dtype=np.uint32)
            self.state = self.sampler.empty(own, keys.seed_words(0), laid_out, words, samples, self.response)
        count = min(DECODED, self.response)
        reach = reach_of(count, self.response)
        self.state, made = self.sampler.decode(own, self.state, 0, 1.0, None, count, reach)
        jax.block_until_ready(made)

    def update(self) -> None:
        self.params, self.moments, _ = self.learner.update(
            self.params, self.moments, self.layout, self.rows, self.advantages, None, 1.0, self.objective, self.numbers
        )
        jax.block_until_ready(self.params)


def _tokens(prompts: int, group: int, prompt: int, response: int) -> int:
    """Of so many groups, each with one prompt."""
    return prompts * (prompt + group * response)
