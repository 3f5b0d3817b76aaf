"""GRPO's numbers: what its preset makes of worked examples."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ratchet_api.stages import Rl
from ratchet_trainer.algorithm.advantage.group import group_advantages
from ratchet_trainer.algorithm.methods import resolve
from ratchet_trainer.algorithm.objective.surrogate import clipped
from ratchet_trainer.algorithm.slots import Micro

LENGTHS = np.array([2, 4, 6, 8])
SLOTS = 10


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective", "moves"),
    [(1.5, 1, 1.2, False), (0.5, 1, 0.5, True), (0.5, -1, -0.8, False), (1.5, -1, -1.5, True), (5, -1, -5, True)],
)
def test_the_surrogate_is_clipped_on_the_side_that_gained(ratio, advantage, objective, moves) -> None:
    value, slope = jax.value_and_grad(lambda x: clipped(x, jnp.float32(advantage), 0.2, 0.2)[0])(jnp.log(ratio))
    assert value == pytest.approx(objective, rel=1e-6)
    assert (slope != 0) == moves


def test_each_response_weighs_the_same_whatever_its_length_and_dummies_nothing() -> None:
    weight = resolve(Rl(dataset="d", method="grpo")).objective.weights(np.array([1, 4, 2, 0]), 5)
    np.testing.assert_allclose(weight.sum(1), [1 / 3, 1 / 3, 1 / 3, 0])
    assert weight[1].tolist() == pytest.approx([1 / 12] * 4 + [0])


def test_on_policy_the_loss_is_zero_but_its_gradient_is_not() -> None:
    objective = resolve(Rl(dataset="d", method="grpo")).objective
    advantages = np.broadcast_to(group_advantages([1, 0, 0, 0])[:, None], (4, SLOTS))
    weight = objective.weights(LENGTHS, SLOTS)
    arrays = (x.astype(np.float32)[:, None] for x in (advantages, weight))
    micro = Micro(*arrays, (weight > 0)[:, None], None, None, None)
    settings = {k: jnp.float32(v) for k, v in objective.settings().items()}

    def loss(x: jax.Array) -> jax.Array:
        return objective.loss(x, jnp.zeros_like(x), micro, settings)[0]

    value, gradient = jax.value_and_grad(loss)(jnp.full((4, 1, SLOTS), -1.3))
    assert abs(float(value)) < 1e-6
    np.testing.assert_allclose(np.asarray(gradient)[:, 0], -advantages * weight, atol=1e-7)
