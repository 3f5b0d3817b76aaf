"""A generation and three updates of a small policy on a mesh of this process, as numbers: a program of the tests, which
set the number of devices.

    spread.py FSDP TENSOR DTYPE RECOMPUTE PASSES
"""

from __future__ import annotations

import json
import re
import sys

import jax
import numpy as np

from ratchet_api.job import Parallelism
from ratchet_api.stages import Rl
from ratchet_trainer.algorithm import keys
from ratchet_trainer.algorithm.methods import resolve
from ratchet_trainer.learning.critic import Critic
from ratchet_trainer.learning.learner import Layout, Learner, Row
from ratchet_trainer.model.architecture import Architecture, Layer
from ratchet_trainer.model.computation import Computation
from ratchet_trainer.model.policy import Policy, lay_out_prompts
from ratchet_trainer.process import distributed
from ratchet_trainer.rollout.sampler import Sampler

FSDP, TENSOR, DTYPE, RECOMPUTE, PASSES = sys.argv[1:]
SHAPE = Architecture(vocabulary=64, width=32, heads=4, kv_heads=2, hidden=48, layers=(Layer(),) * 2, tied=False)
PROMPTS, SAMPLES, SLOTS, TOKENS = 8, 2, 8, 12
OBJECTIVE = resolve(Rl.model_validate({"dataset": "none", "kl": {"coefficient": "0.1"}})).objective
NUMBERS = {"learning_rate": 1e-3, "weight_decay": 0.1, "clip_norm": 1.0}


def main() -> None:
    mesh = distributed.mesh(Parallelism(fsdp=int(FSDP), tensor=int(TENSOR)))
    policy = Policy(SHAPE, Computation.on(mesh, DTYPE, RECOMPUTE == "recompute"))
    sampler, learner, critic = Sampler(policy, mesh, ()), Learner(policy, mesh), Critic(policy, mesh)
    params, moments = learner.init(keys.seed_words(0))
    held = dict.fromkeys(mesh.devices.flat, 0)
    for leaf in jax.tree.leaves((params, moments)):
        for piece in leaf.addressable_shards:
            held[piece.device] += piece.data.nbytes
    draw = np.random.default_rng(0)
    prompts = [tuple(int(t) for t in draw.integers(3, 60, 1 + SLOTS)) for _ in range(PROMPTS)]
    words = keys.row_words(0, list(range(PROMPTS)), [0] * PROMPTS)
    laid_out, samples = lay_out_prompts(prompts, PROMPTS, SLOTS), np.arange(SAMPLES)
    sampled = sampler.begin(params, keys.seed_words(0), laid_out, words, samples, TOKENS, 1.0).finish()
    own = sampler.weights(params)
    state = sampler.start(own, keys.seed_words(0), laid_out, words, samples, TOKENS)
    decode = sampler._decode.lower(own, state, np.int32(0), np.float32(1), None, count=TOKENS).compile().as_text()
    in_loop = [line for line in decode.splitlines() if "while/body" in line]
    assert any(" dot(" in line for line in in_loop)
    waits = sum(bool(re.search(r" (all-\w+|reduce-scatter|collective-permute)(-start)?\(", line)) for line in in_loop)
    tokens, behaviour = sampled.tokens.reshape(-1, TOKENS), sampled.log_probs.reshape(-1, TOKENS)
    rows = [Row(prompts[i // SAMPLES], tuple(map(int, tokens[i])), behaviour[i]) for i in range(PROMPTS * SAMPLES)]
    layout = Layout.of(len(rows), SAMPLES, learner.parts, SLOTS, TOKENS, len(rows) // learner.parts // int(PASSES))
    old = learner.log_probs(learner.copied(params), layout, rows, 1.0)
    worth = critic.init(params)
    values = critic.values(worth, layout, rows)
    advantages, found = draw.normal(size=(len(rows), TOKENS)), []
    for _ in range(3):
        params, moments, of_policy = learner.update(
            params, moments, layout, rows, advantages, old, 1.0, OBJECTIVE, NUMBERS, old
        )
        worth, of_critic = critic.update(worth, layout, rows, values, advantages, 0.2, NUMBERS)
        found.append([of_policy[k] for k in ("loss", "gradient_norm", "kl", "ratio")] + [*of_critic.values()])
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves((params, moments)))
    said = {
        "passes": layout.passes,
        "held": max(held.values()) / whole,
        "tokens": tokens.tolist(),
        "mismatch": float(np.abs(behaviour - layout.of_rows(np.asarray(old), rows)).max()),
        "updates": found,
        "collectivesPerToken": waits,
        "weights": float(sum(np.abs(np.asarray(x)).sum() for x in jax.tree.leaves(params))),
    }
    print(json.dumps(said))


main()
