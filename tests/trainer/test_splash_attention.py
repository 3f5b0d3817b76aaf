"""Attention on a TPU is the splash kernel: in interpret mode it says what the plain path says, gradients included."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from four_devices import run_on_four_devices

from ratchet_trainer.model import plain, tpu
from ratchet_trainer.model.visibility import Sight

P, G, N, M, K = 2, 2, 4, 2, 64


def arrays(t: int, c: int | None):
    """Query, own and prompt keys and values, and how long the prompts are."""
    made = iter(jax.random.split(jax.random.key(3), 8))
    normal = lambda *shape: jax.random.normal(next(made), shape, jnp.float32)  # noqa: E731
    query, own = normal(P, G, t, N, K) / K**0.5, (normal(P, M, G, t, K), normal(P, M, G, t, K))
    prompt = None if c is None else (normal(P, M, c, K), normal(P, M, c, K))
    return query, own, prompt, None if c is None else jnp.array([c, max(0, c - 5)])


@pytest.mark.parametrize(
    ("tokens", "prompt_slots", "cap"),
    [(128, 24, None), (200, 8, None), (130, None, None), (128, 128, 5.0)],
    ids=["with prompts", "no whole blocks", "prompts themselves", "capped"],
)
def test_the_kernel_says_what_the_plain_path_says(tokens: int, prompt_slots: int | None, cap: float | None) -> None:
    query, own, prompt, length = arrays(tokens, prompt_slots)
    sight = Sight(tokens, tokens, 0, prompt_slots, length)

    def total(attend, query, own, prompt):
        found = attend(query, own, prompt, sight, cap)
        return jnp.sum(found * jnp.cos(jnp.arange(found.size).reshape(found.shape))), found

    both = {}
    for name, attend in (("plain", plain.attend), ("splash", partial(tpu.attend, interpret=True))):
        both[name] = jax.value_and_grad(partial(total, attend), (0, 1, 2) if prompt else (0, 1), has_aux=True)(
            query, own, prompt
        )
    (_, found), gradients = both["splash"]
    (_, wanted), wanted_gradients = both["plain"]
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(wanted_gradients), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(
    "sight",
    [Sight(128, 128, 0, window=16), Sight(128, 256, 0), Sight(128, 128, jnp.zeros(P, jnp.int32)), Sight(64, 64, 0)],
    ids=["a window", "slots to come", "slots of earlier tokens", "few tokens"],
)
def test_what_the_kernel_is_not_for_takes_the_plain_path(sight: Sight, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpu, "_splash", None)  # would fail
    query, *_ = arrays(sight.tokens, None)
    own = tuple(jnp.ones((P, M, G, sight.slots, K)) for _ in range(2))
    found = tpu.attend(query, own, None, sight, None)
    np.testing.assert_allclose(found, plain.attend(query, own, None, sight, None))


WHOLE_MODELS = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh
from ratchet_trainer.learning import row_passes
from ratchet_trainer.model.computation import Computation
from ratchet_trainer.model.policy import Policy, lay_out_prompts
from ratchet_trainer.model.presets import PRESETS
from ratchet_trainer.model.sharding import place, replicated
from ratchet_trainer.process.device_grid import AXES
from ratchet_trainer.rollout.sampler import Sampler

row_passes.KERNELS = ("cpu",)  # what a TPU would be given, on devices that are here
policy = Policy(PRESETS["tiny"], Computation(platform="tpu"))
prompts = lay_out_prompts([(1, 2, 3)] * 4, 4, 130)
words = np.zeros((4, 5), np.uint32)
responses = np.ones((4, 2, 128), np.int32)
numbers, seed = np.arange(2, dtype=np.uint32), np.zeros(2, np.uint32)
for count in (1, 4):
    devices = np.array(jax.devices()[:count]).reshape(count, 1, 1)
    mesh = Mesh(devices, AXES, axis_types=(jax.sharding.AxisType.Auto,) * 3)
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)), policy.abstract)
    sampler = Sampler(policy, mesh, (0,))

    def loss(params, prompts, responses):
        log_probs, entropy = policy.judge(params, prompts, responses, jnp.float32(1))
        return log_probs.sum(), ({}, {})

    gradient = jax.jit(lambda params, *rows: row_passes.row_gradient(mesh, loss, params, rows, 1))
    weights = sampler.weights(params)
    state = jax.eval_shape(lambda *a: sampler._start(*a, slots=16), weights, seed, prompts, words, numbers)
    for name, traced in {
        "update": gradient.trace(params, prompts, responses),
        "prefill": sampler._start.trace(weights, seed, prompts, words, numbers, slots=16),
        "refill": sampler._refill.trace(weights, state, seed, prompts, words, numbers, np.ones(4, bool)),
    }.items():
        text = traced.lower(lowering_platforms=("tpu",)).as_text()
        print(count, name, "kernel" if "tpu_custom_call" in text else "plain")
"""


def test_devices_that_each_hold_the_whole_model_use_the_kernel_for_their_own_rows(tmp_path: Path) -> None:
    """XLA cannot cut a kernel, so a program that leaves an axis of the mesh to it is refused before it is compiled:
    that is what jobs without `parallelism` would have met on their first TPU."""
    said = run_on_four_devices(WHOLE_MODELS, tmp_path).splitlines()
    assert said == [f"{count} {name} kernel" for count in (1, 4) for name in ("update", "prefill", "refill")]
