"""One model, several ways to compute it: layers as a loop or one by one, as accelerators do it or as CPUs do. They give
the same numbers but for rounding, in training and through the caches."""

from __future__ import annotations

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ratchet_trainer.algorithm import keys
from ratchet_trainer.model.architecture import Adapters, Architecture, Layer, Rope
from ratchet_trainer.model.computation import Computation
from ratchet_trainer.model.depth import Run, runs
from ratchet_trainer.model.policy import Policy, lay_out_prompts
from ratchet_trainer.rollout import decoding

NEAR, FAR = Layer(Rope(100.0), 5), Layer(Rope(10_000.0))
LLAMA = Architecture(vocabulary=64, width=32, heads=4, kv_heads=2, hidden=48, layers=(FAR,) * 3, tied=False)
GEMMA = replace(
    LLAMA,
    layers=(NEAR, FAR) * 2,
    tied=True,
    norm_offset=1.0,
    post_norms=True,
    head_norms=True,
    attention_bias=(True, True),
    mlp_bias=True,
    activation="gelu_tanh",
    attention_cap=3.0,
    adapters=Adapters(("q_proj", "up_proj", "down_proj"), 2, 2.0),
)
MODELS = {"llama": LLAMA, "gemma": GEMMA}
CPU = Computation(platform="cpu", scanned=False)
AGAIN = replace(CPU, scanned=True, recompute=True)
ACCELERATOR = replace(AGAIN, platform="other")
QUICK = {"xla_llvm_disable_expensive_passes": True, "xla_backend_optimization_level": 0}
PROMPTS = lay_out_prompts([(1, 2, 3, 4, 5), (7,), (9, 8, 7, 6, 5, 4, 3, 2)], 3, 8)


@functools.cache
def trained(model: str, how: Computation):
    """Log-probabilities and gradient of some responses."""
    policy = Policy(MODELS[model], how)
    params = jax.tree.map(lambda x: x + 0.01, jax.jit(policy.init)(keys.seed_words(5)))
    responses = np.random.default_rng(0).integers(0, 64, (3, 2, 6)).astype(np.int32)

    def loss(params):
        log_probs, entropy = policy.judge(params, PROMPTS, responses, np.float32(0.7))
        return jnp.mean(log_probs * jnp.arange(1.0, 7) + entropy), log_probs

    return jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=QUICK)(params)


@functools.cache
def sampled(model: str, how: Computation):
    """Ten tokens and their log-probabilities, in chunks of which the second begins at a position of each prompt's."""
    policy = Policy(MODELS[model], how)
    params = policy.weights(jax.jit(policy.init)(keys.seed_words(5)))
    rows = jnp.asarray(keys.row_words(0, [0, 1, 2], [0, 0, 0]))
    state = decoding.start(policy, params, keys.seed_words(1), PROMPTS, rows, jnp.arange(2, dtype=jnp.uint32), 10)
    made = []
    for at in (jnp.int32(0), jnp.full(3, 5, jnp.int32)):
        state, chunk = decoding.decode(policy, (), params, state, at, jnp.float32(1), None, 5)
        made.append(np.asarray(chunk))
    return np.concatenate(made, -1)


@pytest.mark.parametrize(
    ("model", "way"),
    [("llama", AGAIN), ("llama", replace(ACCELERATOR, scanned=False)), ("gemma", ACCELERATOR)],
    ids=["a loop, activations again", "accelerators", "accelerators, a loop, activations again"],
)
def test_training_gives_the_same_numbers(model: str, way: Computation) -> None:
    expected, found = trained(model, CPU), trained(model, way)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), expected, found)


def test_sampling_gives_the_same_tokens() -> None:
    expected, found = sampled("llama", CPU), sampled("llama", ACCELERATOR)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1:], expected[1:], atol=1e-5)


def test_layers_that_repeat_are_one_run() -> None:
    assert runs((FAR,) * 30, scanned=True) == (Run(0, 1, 30),)
    assert runs((FAR,) * 3, scanned=False) == (Run(0, 1, 1), Run(1, 1, 1), Run(2, 1, 1))
    assert runs((NEAR, FAR) * 13, scanned=True) == (Run(0, 2, 13),)  # Gemma 2
    assert runs(((NEAR,) * 5 + (FAR,)) * 4 + (NEAR, NEAR), scanned=True) == (Run(0, 6, 4), Run(24, 1, 2))  # Gemma 3
    assert runs((FAR,) * 28 + (NEAR,) * 8, scanned=True) == (Run(0, 1, 28), Run(28, 1, 8))  # Qwen 2
    assert runs((FAR, NEAR, NEAR), scanned=True) == (Run(0, 1, 1), Run(1, 1, 2))


def test_a_deep_model_is_no_larger_a_program() -> None:
    def size(layers: int) -> int:
        policy = Policy(replace(LLAMA, layers=(FAR,) * layers), replace(CPU, scanned=True, platform="other"))
        loss = lambda params: policy.judge(params, PROMPTS, np.ones((3, 2, 6), np.int32), np.float32(1))[0].sum()  # noqa: E731
        text = jax.jit(jax.grad(loss)).lower(policy.abstract).as_text()
        return text.count("dot_general")

    assert size(12) == size(3)
