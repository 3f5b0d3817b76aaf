"""How much memory an update takes, as a ratio to what it cannot do without.

    python bench/memory.py [--json FILE]

100 million parameters (vocabulary 32,000, width 640, 16 layers, SwiGLU 1,728), 8 responses of 256 tokens to prompts of
16, float32, activation checkpointing, no reference. A process of its own generates and updates twice; printed is the
peak of its resident set less that after `import jax`, over weights + Adam's moments + gradients + the cache of keys and
values (float32). Then the same without activation checkpointing, and in bfloat16 with it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import measuring.swift  # noqa: F401

os.environ.setdefault("NPROC", str(os.cpu_count()))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from ratchet_trainer.process import distributed

distributed.set_flags()

import jax
import numpy as np

AFTER_IMPORT = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

from ratchet_api.stages import Rl
from ratchet_trainer.algorithm import keys
from ratchet_trainer.algorithm.methods import resolve
from ratchet_trainer.learning import host_memory, optimizer
from ratchet_trainer.learning.learner import Layout, Learner, Row
from ratchet_trainer.model.architecture import Architecture, Layer
from ratchet_trainer.model.computation import Computation
from ratchet_trainer.model.policy import Policy, lay_out_prompts
from ratchet_trainer.model.programs import compile_each
from ratchet_trainer.model.sharding import of_parameters, shapes
from ratchet_trainer.rollout.sampler import Sampler

SHAPE = Architecture(vocabulary=32_000, width=640, heads=10, hidden=1728, layers=(Layer(),) * 16)
PROMPTS, SAMPLES, PROMPT_TOKENS, TOKENS = 2, 4, 16, 256
ROWS = PROMPTS * SAMPLES
VARIANTS = {
    "activation checkpointing": ("float32", True),
    "without": ("float32", False),
    "bfloat16": ("bfloat16", True),
}


def measure(dtype: str, recompute: bool) -> dict[str, float]:
    """Bytes: the peak above `import jax`, and what a step cannot do without."""
    mesh = distributed.one_device()
    policy = Policy(SHAPE, Computation.on(mesh, dtype, recompute))
    host_memory.tune_allocator(sum(4 * leaf.size for leaf in jax.tree.leaves(policy.abstract)))
    sampler, learner = Sampler(policy, mesh, ()), Learner(policy, mesh)
    abstract = policy.abstract, jax.eval_shape(optimizer.init, policy.abstract)
    shaped = shapes(abstract, of_parameters(mesh, abstract))
    tokens = np.random.default_rng(0).integers(3, SHAPE.vocabulary, (ROWS, PROMPT_TOKENS))
    prompts = [tuple(map(int, row)) for row in tokens[::SAMPLES]]
    laid_out = lay_out_prompts(prompts, PROMPTS, PROMPT_TOKENS)
    words = keys.row_words(0, list(range(PROMPTS)), [0] * PROMPTS)
    layout = Layout.of(ROWS, SAMPLES, 1, PROMPT_TOKENS, TOKENS)
    objective = resolve(Rl.model_validate({"dataset": "none", "maxResponseTokens": TOKENS})).objective
    numbers = {"learning_rate": 1e-4, "weight_decay": 0.0, "clip_norm": 1.0}
    # As a stage does: everything is compiled before there is anything else in memory.
    compile_each(sampler.programs(shaped[0], PROMPTS, PROMPT_TOKENS, SAMPLES, TOKENS))
    compile_each(learner.programs(*shaped, layout, objective, numbers, sampled=True, old=False, reference=False))
    host_memory.trim()
    params, moments = learner.init(keys.seed_words(0))
    host_memory.trim()
    for _ in range(2):
        made = sampler.begin(params, keys.seed_words(0), laid_out, words, np.arange(SAMPLES), TOKENS, 1.0).finish()
        answers, told = made.tokens.reshape(ROWS, -1), made.log_probs.reshape(ROWS, -1)
        rows = [Row(prompts[i // SAMPLES], tuple(map(int, answers[i])), told[i]) for i in range(ROWS)]
        params, moments, _ = learner.update(
            params, moments, layout, rows, np.ones((ROWS, TOKENS)), None, 1.0, objective, numbers
        )
    jax.block_until_ready(params)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    slots = PROMPTS * PROMPT_TOKENS + ROWS * TOKENS
    cache = 2 * 4 * len(SHAPE.layers) * slots * SHAPE.kv_heads * SHAPE.head_width
    needed = 4 * weights + cache  # weights, two moments, gradients
    return {"peakBytes": 1024 * (peak - AFTER_IMPORT), "neededBytes": needed, "parameters": weights / 4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        print(json.dumps(measure(*VARIANTS[arguments.variant])))
        return
    found: dict[str, Any] = {}
    for name in VARIANTS:
        done = subprocess.run([sys.executable, __file__, "--variant", name], check=True, capture_output=True)
        found[name] = one = json.loads(done.stdout)
        one["ratio"] = round(one["peakBytes"] / one["neededBytes"], 3)
        size, peak = one["parameters"] / 1e6, one["peakBytes"] / 1e6
        text = f"{one['ratio']:.2f} of weights + moments + gradients + cache"
        print(f"{size:.0f}M parameters, {name:25} {peak:6.0f} MB: {text}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
