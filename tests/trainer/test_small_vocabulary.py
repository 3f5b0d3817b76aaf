"""A vocabulary smaller than the built-in tokenizer's: what fills fixed shapes is a token of every vocabulary."""

from __future__ import annotations

import jax
import numpy as np

from ratchet_api.stages import Optimizer, Rl
from ratchet_trainer.algorithm import keys
from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.methods import resolve
from ratchet_trainer.learning import optimizer
from ratchet_trainer.learning.learner import Layout, Learner, Row
from ratchet_trainer.model.architecture import Architecture, Layer
from ratchet_trainer.model.policy import Policy, lay_out_prompts
from ratchet_trainer.process import distributed
from ratchet_trainer.rollout.sampler import CHUNK, Sampler

TINY = Architecture(vocabulary=11, width=16, heads=2, hidden=16, layers=(Layer(),), tied=False)
ENDS = (3, 0)
SLOTS = CHUNK + 4
RL = Rl.model_validate({"dataset": "d", "promptsPerStep": 2, "groupSize": 4, "maxResponseTokens": SLOTS})


def test_dummies_and_what_follows_an_end_have_numbers() -> None:
    """Sampling with a dummy prompt, judging and an update with dummy rows and rows of every length."""
    policy, mesh = Policy(TINY), distributed.one_device()
    learner, sampler = Learner(policy, mesh), Sampler(policy, mesh, ENDS)
    params, state = learner.init(keys.seed_words(1))
    prompts = [(1, 4, 5), (10,)]
    words = keys.row_words(Purpose.TRAIN, [0, 1, 0], [0, 0, 0])
    laid_out = lay_out_prompts(prompts, 3, 8)
    sampled = sampler.begin(params, keys.seed_words(2), laid_out, words, np.arange(4), SLOTS, 1.0).finish()
    assert ((sampled.tokens >= 0) & (sampled.tokens < TINY.vocabulary)).all()
    assert np.isfinite(sampled.log_probs).all()
    rows = []
    for prompt, tokens, said in zip(prompts, sampled.tokens, sampled.log_probs, strict=False):
        for one, log_probs in zip(tokens, said, strict=True):
            ended = np.isin(one, ENDS)
            length = int(ended.argmax()) + 1 if ended.any() else SLOTS
            rows.append(Row(prompt, tuple(one[:length].tolist()), log_probs[:length]))
    assert len({len(row.response) for row in rows}) > 3, "they end at different places"
    rows = rows[:7]  # the eighth is a dummy
    layout = Layout(2, 4, 8, SLOTS)
    judged = learner.log_probs(params, layout, rows, 1.0)
    assert np.isfinite(judged).all()
    real = np.arange(SLOTS) < np.array([len(row.response) for row in rows])[:, None]
    advantages = np.where(real, np.linspace(-1, 1, 7)[:, None], 0.0)
    numbers = optimizer.numbers(Optimizer(learningRate="0.001"), 0)
    before = jax.device_get(params)
    objective = resolve(RL).objective
    params, _, found = learner.update(params, state, layout, rows, advantages, judged, 1.0, objective, numbers, judged)
    assert all(np.isfinite(value) for value in found.values()), found
    assert found["old_gap"] <= 2e-6
    assert found["sampler_gap"] <= 2e-6
    moved = jax.tree.map(lambda new, old: bool((np.asarray(new) != old).any()), params, before)
    assert all(jax.tree.leaves(moved)), moved
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
