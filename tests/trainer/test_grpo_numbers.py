"""GRPO's numbers: advantages and loss against worked examples and against verl's reference functions."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ratchet_trainer.credit.group import group_advantages
from ratchet_trainer.objective.clipped import ClippedRatio, sequence_mean_token_mean, surrogate
from ratchet_trainer.slots import Micro

GOLDEN = sorted((Path(__file__).parent.parent / "golden" / "policy-loss").glob("case-*.npz"))


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.max(np.abs(a - b)) <= 1e-6 + 1e-5 * np.max(np.abs(b)))


@pytest.mark.parametrize(("delta", "winner", "others"), [(1e-6, 1.499997, -0.499999), (1e-4, 1.499700, -0.499900)])
def test_advantages_of_one_right_answer_in_four(delta: float, winner: float, others: float) -> None:
    np.testing.assert_allclose(group_advantages([1, 0, 0, 0], delta), [winner, others, others, others], atol=5e-7)


@pytest.mark.parametrize("reward", [0.0, 0.3, 1.0, 0.1 + 0.2])
def test_a_constant_group_earns_exactly_nothing(reward: float) -> None:
    assert (group_advantages([reward] * 8, 1e-9) == 0.0).all()


def test_a_group_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to be compared with"):
        group_advantages([1.0], 1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective", "moves"),
    [(1.5, 1, 1.2, False), (0.5, 1, 0.5, True), (0.5, -1, -0.8, False), (1.5, -1, -1.5, True), (5, -1, -5, True)],
)
def test_the_surrogate_is_clipped_on_the_side_that_gained(ratio, advantage, objective, moves) -> None:
    value, slope = jax.value_and_grad(lambda x: surrogate(x, jnp.float32(advantage), 0.2, 0.2))(jnp.log(ratio))
    assert value == pytest.approx(objective, rel=1e-6)
    assert (slope != 0) == moves


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_advantages_equal_the_reference(path: Path) -> None:
    z = np.load(path)
    found = np.zeros_like(z["adv_grpo"])
    for group in np.unique(z["group"]):
        rows = z["group"] == group
        found[rows] = group_advantages(z["rewards"][rows].tolist(), 1e-6)[:, None]
    assert close(found * z["mask"], z["adv_grpo"] * z["mask"])


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_loss_and_gradient_equal_the_reference(path: Path) -> None:
    z = np.load(path)
    names = [n for n in z.files if n.startswith("loss|ppo|seq-mean-token-mean|")]
    assert names, "the golden file has the aggregation that GRPO uses"
    mask = z["mask"].astype(np.float64)
    weight = mask / mask.sum(1, keepdims=True) / len(mask)
    for name in names:
        low, high = map(float, name.split("|")[3:])
        objective = ClippedRatio(low, high)
        micro = Micro(*(x.astype(np.float32)[:, None] for x in (z["adv_grpo"], weight, z["old_log_probs"])))
        settings = {k: jnp.float32(v) for k, v in objective.settings().items()}
        loss, gradient = jax.value_and_grad(lambda x, o=objective, m=micro, s=settings: o.loss(x, m, s)[0])(
            z["log_probs"][:, None]
        )
        assert close(np.asarray(loss), z[name])
        assert close(np.asarray(gradient)[:, 0] * z["mask"], z[name.replace("loss|", "grad|")] * z["mask"])


def test_each_response_weighs_the_same_whatever_its_length_and_dummies_nothing() -> None:
    weight = sequence_mean_token_mean(np.array([1, 4, 2, 0]), 5)
    np.testing.assert_allclose(weight.sum(1), [1 / 3, 1 / 3, 1 / 3, 0])
    assert weight[1].tolist() == pytest.approx([1 / 12] * 4 + [0])


def test_on_policy_the_loss_is_zero_but_its_gradient_is_not() -> None:
    objective = ClippedRatio(0.2, 0.2)
    lengths = np.array([3, 1, 2, 5])
    advantages = np.broadcast_to(group_advantages([1, 0, 0, 0], 1e-6)[:, None], (4, 5))
    weight = sequence_mean_token_mean(lengths, 5)
    micro = Micro(*(x.astype(np.float32)[:, None] for x in (advantages, weight)), None)
    settings = {k: jnp.float32(v) for k, v in objective.settings().items()}
    loss, gradient = jax.value_and_grad(lambda x: objective.loss(x, micro, settings)[0])(jnp.full((4, 1, 5), -1.3))
    assert abs(float(loss)) < 1e-6
    np.testing.assert_allclose(np.asarray(gradient)[:, 0], -advantages * weight, atol=1e-7)
