"""How fast the trainer is, as ratios to what this machine can do, measured in the same process.

    python bench/trainer.py [--json FILE]

The reference shape: 2.5 million parameters (vocabulary 512, width 256, 3 layers, 8 heads, SwiGLU 704), 8 prompts of 16
tokens with 8 responses of 32 each, float32. Printed are

* the matmul peak (2048 x 2048 x 2048) and the memory bandwidth (reading 256 MiB);
* generation: tokens/s, and its share of the same weight matmuls alone, at the same shapes, one after the other;
* the same with top-k and top-p, as a ratio to its time;
* 32 prompts with limits between 8 and 128 tokens: tokens/s of 8 slots that are refilled, as ratios to those of 8 slots
  that are not, and of 32 slots at once;
* the update: its floating-point operations (6 a parameter and token; 2 forward, 4 backward) over its time, as a share
  of the peak;
* a whole step, of both and what lies between them;
* a save: how long it holds the step up, and how long it takes in all;
* a process's start to its first step, with a cold and with a warm compilation cache.

Best of several runs: other load on the machine only makes numbers worse. Absolute numbers differ from machine to
machine, ratios should not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import measuring.swift  # noqa: F401

os.environ.setdefault("NPROC", str(os.cpu_count()))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from ratchet_trainer.process import distributed

distributed.set_flags()

import jax
import jax.numpy as jnp
import numpy as np

from ratchet_api.sampling import Sampling
from ratchet_api.stages import Rl
from ratchet_trainer.algorithm import keys
from ratchet_trainer.algorithm.methods import resolve
from ratchet_trainer.checkpoints import parts
from ratchet_trainer.checkpoints.checkpoint import Checkpoints
from ratchet_trainer.checkpoints.journal import Claim
from ratchet_trainer.checkpoints.trusted_step import Content
from ratchet_trainer.learning.learner import Layout, Learner, Row
from ratchet_trainer.model.architecture import Architecture, Layer
from ratchet_trainer.model.policy import Policy, lay_out_prompts
from ratchet_trainer.rollout.batch_slots import BatchSlots
from ratchet_trainer.rollout.endings import Endings
from ratchet_trainer.rollout.refill import Refilling
from ratchet_trainer.rollout.sampler import Sampler
from ratchet_trainer.rollout.truncation import Truncation
from ratchet_trainer.step.state import flat_paths

SHAPE = Architecture(vocabulary=512, width=256, heads=8, hidden=704, layers=(Layer(),) * 3)
PROMPTS, SAMPLES, PROMPT_TOKENS, RESPONSE_TOKENS = 8, 8, 16, 32
ROWS = PROMPTS * SAMPLES
RUNS = 9
OBJECTIVE = resolve(Rl.model_validate({"dataset": "none", "maxResponseTokens": RESPONSE_TOKENS})).objective
OPTIMIzER = {"learning_rate": 1e-4, "weight_decay": 0.0, "clip_norm": 1.0}


def best(run: Callable[[], Any], runs: int = RUNS) -> float:
    """The least seconds of several runs, after one that does not count."""
    jax.block_until_ready(run())
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def side_by_side(one: Callable[[], Any], other: Callable[[], Any], runs: int = 3 * RUNS) -> tuple[float, float]:
    """The least seconds of each, measured in turn: a disturbance that lasts hits both."""
    seconds = [(best(one, 1), best(other, 1)) for _ in range(runs)]
    return min(a for a, _ in seconds), min(b for _, b in seconds)


PEAK_OPERATIONS = 2 * 2048**3


def large_matmul() -> Callable[[], Any]:
    """A large float32 matmul, of PEAK_OPERATIONS."""
    square = jnp.ones((2048, 2048), jnp.float32)
    product = jax.jit(jnp.matmul)
    return lambda: product(square, square)


def bandwidth() -> float:
    """Bytes a second that are read by a sum over 256 MiB."""
    block = jnp.ones((64 << 20,), jnp.float32)
    total = jax.jit(jnp.sum)
    return block.nbytes / best(lambda: total(block))


class Reference:
    """The policy of the reference shape with data that is drawn once."""

    def __init__(self) -> None:
        mesh = distributed.mesh()
        policy = Policy(SHAPE)
        self.sampler, self.learner = Sampler(policy, mesh, (2,)), Learner(policy, mesh)
        self.params, self.moments = self.learner.init(keys.seed_words(0))
        draw = np.random.default_rng(0)
        tokens = lambda n: tuple(int(t) for t in draw.integers(3, 500, n))  # noqa: E731
        prompts = [tokens(PROMPT_TOKENS) for _ in range(PROMPTS)]
        self.prompts = lay_out_prompts(prompts, PROMPTS, PROMPT_TOKENS)
        self.words = keys.row_words(0, list(range(PROMPTS)), [0] * PROMPTS)
        self.layout = Layout.of(ROWS, SAMPLES, 1, PROMPT_TOKENS, RESPONSE_TOKENS)
        zeros = np.zeros(RESPONSE_TOKENS, np.float32)
        self.rows = [Row(prompts[i // SAMPLES], tokens(RESPONSE_TOKENS), zeros) for i in range(ROWS)]
        self.advantages = draw.normal(size=(ROWS, RESPONSE_TOKENS))

    def generate(self, cut: Truncation | None = None) -> Any:
        samples = np.arange(SAMPLES)
        return self.sampler.begin(
            self.params, keys.seed_words(0), self.prompts, self.words, samples, RESPONSE_TOKENS, 1.0, cut=cut
        ).finish()

    def generate_by_limits(self, limits: np.ndarray, slots: int, refills: bool) -> Any:
        """Responses to as many prompts as there are limits, so many at a time."""
        n, most = len(limits), int(limits.max())
        prompts = jax.tree.map(lambda x: np.resize(x, (n, *x.shape[1:])), self.prompts)
        words, samples = keys.row_words(0, list(range(n)), [0] * n), np.arange(SAMPLES)
        asked = self.params, keys.seed_words(0), prompts, words, samples, most, 1.0
        if slots == n:
            return self.sampler.begin(*asked, limits=limits).finish()
        endings = [Endings((2,), np.full((1, SAMPLES), limit)) for limit in limits]
        return Refilling(self.sampler, *asked, BatchSlots(n, slots, refills), endings).finish()

    def update(self) -> Any:
        self.params, self.moments, found = self.learner.update(
            self.params, self.moments, self.layout, self.rows, self.advantages, None, 1.0, OBJECTIVE,
            OPTIMIzER,
        )  # fmt: skip
        return found

    def step(self) -> Any:
        self.generate()
        return self.update()


def matmuls_of_generation() -> Callable[[], Any]:
    """The weight matmuls of one generation, prefill included, with nothing in between but what keeps them in order."""
    a = SHAPE
    sizes = ((a.width, 3 * a.width), (a.width, a.width), (a.width, 2 * a.hidden), (a.hidden, a.width))
    weights = [jnp.full(size, 1e-3, jnp.float32) for size in sizes]
    head = jnp.full((a.width, a.vocabulary), 1e-3, jnp.float32)

    def layers(x: jax.Array) -> jax.Array:
        for _ in a.layers:
            x = (x @ weights[0])[:, : a.width] @ weights[1]
            x = (x @ weights[2])[:, : a.hidden] @ weights[3]
        return x

    @jax.jit
    def run(prompt: jax.Array, row: jax.Array) -> jax.Array:
        read = layers(prompt)
        decode = lambda x, _: ((layers(x) @ head)[:, : a.width], ())  # noqa: E731
        return jax.lax.scan(decode, row + read[:1], None, length=RESPONSE_TOKENS)[0]

    prompt, row = jnp.ones((PROMPTS * PROMPT_TOKENS, a.width)), jnp.ones((ROWS, a.width))
    return lambda: run(prompt, row)


def operations_of_update() -> float:
    """6 x parameters x tokens: prompts are read once for their group and need no head."""
    a = SHAPE
    layer = a.width * (3 * a.width) + a.width**2 + a.width * 2 * a.hidden + a.hidden * a.width
    read = PROMPTS * (PROMPT_TOKENS - 1)
    return 6.0 * (
        len(a.layers) * layer * (read + ROWS * RESPONSE_TOKENS) + a.width * a.vocabulary * ROWS * RESPONSE_TOKENS
    )


def save(reference: Reference) -> dict[str, float]:
    """Seconds for which a save holds the step up (host copies), and in all (durable and journalled); median of 5."""
    state = flat_paths({"params": reference.params, "optimizer": reference.moments})
    blocking, whole = [], []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), "a1-bench000", 2, {})
        claim = Claim(0, "bench", "bench", "bench", "0" * 64, 1, "bench")
        checkpoints.journal.claim(claim, None, 0)
        for step in range(1, 6):
            began = time.perf_counter()
            arrays = parts.host_part(state)
            blocking.append(time.perf_counter() - began)
            checkpoints.write(Content(step, arrays, {"stage": {"index": 0}}, []))
            whole.append(time.perf_counter() - began)
    return {"blockingSeconds": sorted(blocking)[2], "wholeSeconds": sorted(whole)[2]}


def start(cache: Path) -> float:
    """Seconds from a process's start to the end of its first step; what it compiles goes to the cache."""
    began = time.perf_counter()
    subprocess.run([sys.executable, __file__, "--first-step", str(cache)], check=True)
    return time.perf_counter() - began


def measure() -> dict[str, Any]:
    """Every figure, printed as it comes."""
    found: dict[str, Any] = {"threads": int(os.environ["NPROC"])}

    def say(text: str, **figures: float) -> None:
        found.update({k: float(f"{v:.4g}") for k, v in figures.items()})
        print(text, flush=True)

    peak, reference = PEAK_OPERATIONS / best(large_matmul()), Reference()
    say(f"matmul peak         {peak / 1e9:8.0f} GFLOP/s, {found['threads']} threads", peakFlops=peak)
    moved = bandwidth()
    say(f"memory bandwidth    {moved / 1e9:8.1f} GB/s", bandwidthBytes=moved)

    seconds, alone = side_by_side(reference.generate, matmuls_of_generation())
    tokens = ROWS * RESPONSE_TOKENS / seconds
    say(
        f"generation          {tokens:8.0f} tokens/s: {alone / seconds:.2f} of the same matmuls alone",
        generationTokensPerSecond=tokens,
        generationOfMatmuls=alone / seconds,
    )
    cut = Truncation.of(Sampling.model_validate({"topK": 50, "topP": "0.9"}))
    truncated = best(lambda: reference.generate(cut))
    say(f"  top-k and top-p   {truncated / seconds:8.2f} of its time", truncationOfGeneration=truncated / seconds)
    limits = np.exp(np.random.default_rng(1).uniform(np.log(8), np.log(128), 32)).astype(int)
    refilled, turns, at_once = (
        best(partial(reference.generate_by_limits, limits, slots, refills), 3)
        for slots, refills in ((PROMPTS, True), (PROMPTS, False), (len(limits), False))
    )
    say(
        f"  refilled slots    {turns / refilled:8.2f} of the tokens/s of slots that are not, "
        f"{at_once / refilled:.2f} of those of all prompts at once",
        refillOfTurns=turns / refilled,
        refillOfAllAtOnce=at_once / refilled,
    )
    seconds, square = side_by_side(reference.update, large_matmul())
    share = operations_of_update() / seconds / (PEAK_OPERATIONS / square)
    say(
        f"update              {1e3 * seconds:8.1f} ms: {share:.2f} of the peak",
        updateSeconds=seconds,
        updateOfPeak=share,
    )
    seconds = best(reference.step)
    say(f"step                {1e3 * seconds:8.1f} ms", stepSeconds=seconds)

    times = save(reference)
    say(
        f"save                {1e3 * times['blockingSeconds']:8.1f} ms of the step "
        f"({times['blockingSeconds'] / seconds:.3f} of it), {1e3 * times['wholeSeconds']:.0f} ms in all",
        saveBlockingSeconds=times["blockingSeconds"],
        saveWholeSeconds=times["wholeSeconds"],
    )
    with tempfile.TemporaryDirectory() as cache:
        cold, warm = start(Path(cache)), min(start(Path(cache)) for _ in range(3))
    say(
        f"start to first step {cold:8.1f} s cold, {warm:.1f} s warm",
        coldStartSeconds=cold,
        warmStartSeconds=warm,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--first-step", type=Path, metavar="CACHE", help="make one step with this compilation cache")
    arguments = parser.parse_args()
    if arguments.first_step:
        jax.config.update("jax_compilation_cache_dir", str(arguments.first_step))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        Reference().step()
        return
    found = measure()
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
