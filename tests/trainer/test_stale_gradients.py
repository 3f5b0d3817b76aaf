"""Gradients of rollouts that older weights sampled, against formulas written out in float64.

Decoupled PPO (arXiv 2110.00641): each token's gradient carries sg(min(cap, exp(old - behaviour))), with GSPO one number
a response, exp(mean(old - behaviour)); CISPO clips exp(new - behaviour) and carries nothing else.
"""

from __future__ import annotations

import jax
import numpy as np
import pytest

from ratchet_api.stages import Rl
from ratchet_trainer.algorithm.methods import resolve
from ratchet_trainer.algorithm.slots import Micro

SHAPE = 2, 3, 7
CAP = 1.5


def batch(updates: int) -> dict[str, np.ndarray]:
    """Log-probabilities that are far enough apart for every clip to be met; of one update old is what is learned."""
    draw = np.random.default_rng(7)
    behaviour = draw.normal(-1.5, 0.5, SHAPE)
    old = behaviour + draw.normal(0.0, 0.4, SHAPE) + draw.normal(0.3, 0.5, (*SHAPE[:2], 1))
    new = old if updates == 1 else old + draw.normal(0.0, 0.3, SHAPE) + draw.normal(0.0, 0.3, (*SHAPE[:2], 1))
    lengths = draw.integers(2, SHAPE[-1] + 1, SHAPE[:2])
    real = np.arange(SHAPE[-1]) < lengths[..., None]
    advantages = np.broadcast_to(draw.normal(0.0, 1.0, SHAPE[:2])[..., None], SHAPE)
    weight = np.where(real, draw.uniform(0.1, 1.0, SHAPE), 0.0)
    return {"new": new, "old": old, "behaviour": behaviour, "real": real, "advantages": advantages, "weight": weight}


def mean(values: np.ndarray, real: np.ndarray) -> np.ndarray:
    return (np.where(real, values, 0.0).sum(-1, keepdims=True) / real.sum(-1, keepdims=True)) + np.zeros(SHAPE)


def clipped(ratio: np.ndarray, a: np.ndarray, low: float, high: float) -> np.ndarray:
    """d min(ratio A, clip(ratio) A) / d log ratio."""
    bound = np.clip(ratio, 1 - low, 1 + high) * a
    return np.where(ratio * a <= bound, ratio * a, 0.0)


def wanted(method: str, b: dict[str, np.ndarray], low: float, high: float) -> np.ndarray:
    """d loss / d new, [P, G, T]."""
    gap, a, real = b["old"] - b["behaviour"], b["advantages"], b["real"]
    if method == "cispo":
        gain = np.clip(np.exp(b["new"] - b["behaviour"]), 1 - low, 1 + high) * a
        return np.where(real, -b["weight"] * gain, 0.0)
    ratio = np.exp(b["new"] - b["old"]) if method == "ppo" else np.exp(mean(b["new"] - b["old"], real))
    factor = np.minimum(np.exp(gap if method == "ppo" else mean(gap, real)), CAP)
    return np.where(real, -b["weight"] * factor * clipped(ratio, a, low, high), 0.0)


@pytest.mark.parametrize("updates", [1, 4])
@pytest.mark.parametrize("method", ["ppo", "gspo", "cispo"])
def test_gradients_of_stale_rollouts_are_those_of_the_formulas(method, updates):
    rl = Rl(
        dataset="d", method="gspo" if method == "gspo" else "grpo", updatesPerStep=updates, rollouts={"lag": 1},
        objective={"surrogate": method, "importanceCap": str(CAP), "clipLow": "0.2", "clipHigh": "0.28"},
    )  # fmt: skip
    objective, b = resolve(rl).objective, batch(updates)
    with jax.enable_x64(True):
        micro = Micro(b["advantages"], b["weight"], b["real"], b["old"], None, b["behaviour"])
        settings = {k: np.float64(v) for k, v in objective.settings().items()}

        def loss(new):
            value, sums = objective.loss(new, np.zeros(SHAPE), micro, settings)
            return value, sums

        found, sums = jax.grad(loss, has_aux=True)(b["new"])
    np.testing.assert_allclose(found, wanted(method, b, 0.2, 0.28), rtol=1e-12, atol=1e-14)
    if method != "cispo":
        gap = b["old"] - b["behaviour"]
        over = np.exp(gap if method == "ppo" else mean(gap, b["real"])) > CAP
        assert 0 < float(sums["capped"]) == (over & b["real"]).sum()


def test_the_cap_is_two_where_nobody_says_another():
    assert resolve(Rl(dataset="d", rollouts={"lag": 1})).objective.importance_cap == 2.0
    assert resolve(Rl(dataset="d")).objective.importance_cap is None
