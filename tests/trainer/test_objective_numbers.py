"""The objective's numbers: worked examples of every surrogate, aggregation and drift term."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ratchet_trainer.algorithm.advantage.group import group_advantages
from ratchet_trainer.algorithm.objective.aggregation import AGGREGATIONS, token_weights
from ratchet_trainer.algorithm.objective.drift import Kl, estimate
from ratchet_trainer.algorithm.objective.policy_gradient import PolicyGradient
from ratchet_trainer.algorithm.objective.surrogate import cispo, gspo, ppo
from ratchet_trainer.algorithm.slots import Micro
from ratchet_trainer.learning.critic import value_loss

LENGTHS = np.array([2, 4, 6, 8])  # one group, of which the first response was right
SLOTS = 10
NO_DRIFT = Kl.of("k3", 0.0, None)


def loss_of(objective: PolicyGradient, log_probs: Any, entropy: Any = None, weight: Any = None, **micro: Any) -> Any:
    """(loss, gradient, sums) at log_probs [R, T]; `micro` as [R, T]."""
    if weight is None:
        weight = objective.weights(np.asarray(micro["real"]).sum(1), np.shape(log_probs)[1])
    given = {"old": None, "reference": None, "behaviour": None, "weight": weight, **micro}
    rows = {
        name: x if x is None else jnp.asarray(x, bool if name == "real" else jnp.float32)[:, None]
        for name, x in given.items()
    }
    settings = {name: jnp.float32(value) for name, value in objective.settings().items()}
    entropy = jnp.zeros(np.shape(log_probs)) if entropy is None else jnp.asarray(entropy, jnp.float32)

    def loss(x: jax.Array) -> Any:
        return objective.loss(x, entropy[:, None], Micro(**rows), settings)

    (value, sums), gradient = jax.value_and_grad(loss, has_aux=True)(jnp.asarray(log_probs, jnp.float32)[:, None])
    return float(value), np.asarray(gradient)[:, 0], {k: float(v) for k, v in sums.items()}


def token(objective: PolicyGradient, log_ratio: Any, advantage: float, **micro: Any) -> Any:
    """The same for one response whose log-probabilities were -1 and rose by `log_ratio`."""
    log_ratio = np.atleast_1d(np.asarray(log_ratio, float))
    ones = np.ones((1, len(log_ratio)))
    return loss_of(objective, -1 + log_ratio[None], real=ones, advantages=advantage * ones, old=-ones, **micro)


def objective(surrogate: str = "ppo", aggregation: str = "seq-mean-token-mean", **changes: Any) -> PolicyGradient:
    return PolicyGradient(
        surrogate, aggregation, SLOTS, **{"clip_low": 0.2, "clip_high": 0.28, "kl": NO_DRIFT} | changes
    )


@pytest.mark.parametrize(
    ("aggregation", "weights", "sum_of_all"),
    [
        ("seq-mean-token-mean", (0.25, 0.125), 1),
        ("token-mean", (1 / 6, 1 / 6), 1),
        ("seq-mean-token-sum", (0.5, 0.5), 3),
        ("seq-mean-token-sum-norm", (0.125, 0.125), 0.75),
    ],
)
def test_the_share_of_a_token(aggregation: str, weights: tuple[float, float], sum_of_all: float) -> None:
    found = token_weights(aggregation, np.array([2, 4]), 5, longest=8)
    np.testing.assert_allclose(found[:, 0], weights)
    assert found.sum() == pytest.approx(sum_of_all)
    assert found.dtype == np.float64


def test_every_aggregation_has_a_worked_number() -> None:
    assert set(AGGREGATIONS) == {"token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"}


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_dummies_padding_and_micro_batches_change_no_share(aggregation: str) -> None:
    whole = token_weights(aggregation, LENGTHS, SLOTS, SLOTS)
    more = token_weights(aggregation, np.array([*LENGTHS, 0, 0]), SLOTS + 6, SLOTS)
    np.testing.assert_array_equal(more[:4, :SLOTS], whole)
    assert (more[4:] == 0).all()
    assert (more[:, SLOTS:] == 0).all()
    # The loss of the whole is the sum over its parts, since shares are of the whole; a mean of means is another number.
    advantages = np.broadcast_to(group_advantages([1, 0, 0, 0])[:, None], whole.shape)
    of_rows = {"real": whole > 0, "advantages": advantages, "weight": whole}
    log_probs = np.full(whole.shape, -1.3)
    all_of_it, gradient, _ = loss_of(objective(aggregation=aggregation), log_probs, **of_rows)
    parts = [
        loss_of(
            objective(aggregation=aggregation), log_probs[i : i + 2], **{k: v[i : i + 2] for k, v in of_rows.items()}
        )
        for i in (0, 2)
    ]
    assert sum(p[0] for p in parts) == pytest.approx(all_of_it, abs=1e-6)
    np.testing.assert_allclose(np.concatenate([p[1] for p in parts]), gradient, atol=1e-9)


@pytest.mark.parametrize(
    ("aggregation", "form", "loss"),
    [
        ("seq-mean-token-mean", "mean-std", 0.0),
        ("token-mean", "mean-std", 0.3),  # an average of the two halves' means would be 0.19
        ("seq-mean-token-sum-norm", "mean", 0.3),  # by the configured length; by the padded width 8 it would be 0.375
    ],
)
def test_the_loss_of_one_right_answer_in_four(aggregation: str, form: str, loss: float) -> None:
    real = np.arange(8) < LENGTHS[:, None]
    advantages = np.broadcast_to(group_advantages([1, 0, 0, 0], form, 1e-9)[:, None], real.shape)
    found, _, _ = loss_of(
        objective(aggregation=aggregation), np.full(real.shape, -1.3), real=real, advantages=advantages
    )
    assert found == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain", "moves"),
    [(1.25, 1, 1.25, True), (1.5, 1, 1.28, False), (0.7, -1, -0.8, False), (1.35, 1, 1.28, False), (5, -1, -5, True)],
)
def test_widths_may_differ(ratio: float, advantage: float, gain: float, moves: bool) -> None:
    loss, gradient, sums = token(objective(), np.log(ratio), advantage)
    assert -loss == pytest.approx(gain, rel=1e-5)
    assert (gradient != 0).all() == moves
    assert (sums["clipped_low"], sums["clipped_high"]) == (not moves and advantage < 0, not moves and advantage > 0)
    assert sums["ratio"] == pytest.approx(ratio, rel=1e-5)


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain", "moves"), [(5, -1, -3, False), (2, -1, -2, True), (5, 1, 1.28, False)]
)
def test_dual_clip_bounds_what_pushes_down(ratio: float, advantage: float, gain: float, moves: bool) -> None:
    loss, gradient, _ = token(objective(dual_clip=3.0), np.log(ratio), advantage)
    assert -loss == pytest.approx(gain, rel=1e-5)
    assert (gradient != 0).all() == moves


def test_the_ratio_of_a_whole_response() -> None:
    narrow = objective("gspo", clip_low=3e-4, clip_high=4e-4)
    loss, gradient, _ = token(narrow, [0.03, -0.01, 0.01], 1)
    assert -loss == pytest.approx(1.0004, rel=1e-6)
    assert (gradient == 0).all()
    loss, gradient, _ = token(narrow, [0.03, -0.01, 0.01], -1)
    assert -loss == pytest.approx(-1.010050, rel=1e-6)
    np.testing.assert_allclose(-gradient, [[-0.336683] * 3], rtol=1e-5)


def test_the_token_form_of_the_response_ratio_is_its_sequence_form() -> None:
    generator = np.random.default_rng(1)
    real = jnp.asarray(np.arange(SLOTS) < LENGTHS[:, None])
    log_ratio = jnp.asarray(generator.normal(0, 0.3, real.shape), jnp.float32)
    advantages = jnp.asarray(generator.normal(size=(4, 1)), jnp.float32)

    def sequences(x: jax.Array) -> jax.Array:
        s = jnp.exp(jnp.sum(jnp.where(real, x, 0), 1) / LENGTHS)
        return jnp.mean(jnp.minimum(s * advantages[:, 0], jnp.clip(s, 0.8, 1.28) * advantages[:, 0]))

    def tokens(x: jax.Array) -> jax.Array:
        gain, _ = gspo(x, x, real, advantages, 0.2, 0.28)
        return jnp.sum(gain * token_weights("seq-mean-token-mean", LENGTHS, SLOTS, SLOTS))

    (a, da), (b, db) = jax.value_and_grad(sequences)(log_ratio), jax.value_and_grad(tokens)(log_ratio)
    assert float(a) == pytest.approx(float(b), rel=1e-5)
    np.testing.assert_allclose(da, db, atol=1e-7)


@pytest.mark.parametrize(
    ("surrogate", "coefficients"), [(cispo, [0.8, 1, 1.28, 1.28]), (ppo, [0.5, 1, 0, 0])], ids=["cispo", "ppo"]
)
def test_which_tokens_keep_their_gradient(surrogate: Any, coefficients: list[float]) -> None:
    log_ratio = jnp.log(jnp.array([0.5, 1, 1.5, 6]))
    slope = jax.grad(lambda x: surrogate(x, x, True, 1.0, 0.2, 0.28)[0].sum())(log_ratio)
    np.testing.assert_allclose(slope, coefficients, rtol=1e-6)


def test_the_unified_form_has_the_gradient_of_the_ratio() -> None:
    """sg(rho) A grad log pi = grad rho A, two tokens in the vocabulary."""

    def log_prob(logits: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(logits)[0]

    logits, old = jnp.array([0.2, 0.0]), jnp.log(0.5)
    wide = {"low": 9.0, "high": 9.0}
    of_ppo = jax.grad(lambda x: ppo(log_prob(x), log_prob(x) - old, True, 1.0, **wide)[0])(logits)
    of_cispo = jax.grad(lambda x: cispo(log_prob(x), log_prob(x) - old, True, 1.0, **wide)[0])(logits)
    assert of_ppo[0] == pytest.approx(0.495033, rel=1e-5)
    np.testing.assert_allclose(of_ppo, of_cispo, rtol=1e-6)


@pytest.mark.parametrize(("estimator", "value"), [("k1", 0.2), ("k2", 0.02), ("k3", 0.018731)])
@pytest.mark.parametrize("xp", [np, jnp], ids=["host", "program"])
def test_estimators_of_drift(estimator: str, value: float, xp: Any) -> None:
    assert float(estimate(estimator, xp.asarray(-1.0), xp.asarray(-1.2), 10.0, xp)) == pytest.approx(value, rel=1e-4)


def test_estimators_in_expectation() -> None:
    pi, reference = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.4, 0.2])
    expected = {"k1": 0.025267, "k2": 0.024862, "k3": 0.025267}  # k1 of swapped arguments would be 0.025815
    for name, value in expected.items():
        found = (pi * estimate(name, np.log(pi), np.log(reference), np.inf, np)).sum()
        assert found == pytest.approx(value, abs=1e-6), name


def test_k3_pulls_with_one_minus_u() -> None:
    slope = jax.grad(lambda x: estimate("k3", x, -1.2, 10.0))(-1.0)
    assert float(slope) == pytest.approx(0.181269, rel=1e-5)


@pytest.mark.parametrize(
    ("estimator", "log_u", "limit", "value"),
    [("k3", 5, 1e9, 142.413159), ("k3", 5, None, 10), ("k3", 30, None, 10), ("k3", -30, None, 10), ("k3", -30, 1e9, 19),
     ("k2", -30, None, 200), ("k1", 30, 5.0, -5)],
)  # fmt: skip
def test_drift_is_bounded_in_value_and_gradient(estimator, log_u, limit, value) -> None:
    limit = Kl.of(estimator, 1.0, limit).limit
    found, slope = jax.value_and_grad(lambda x: estimate(estimator, x, log_u, limit))(jnp.float32(0))
    assert float(found) == pytest.approx(value, rel=1e-5)
    assert np.isfinite(slope)


def test_an_unknown_estimator_is_named() -> None:
    with pytest.raises(ValueError, match="no estimator k4"):
        estimate("k4", np.zeros(1), np.zeros(1), 1.0, np)


def test_drift_in_the_loss_and_drift_only_measured() -> None:
    reference = np.array([[-1.2, -1.2]])
    measured, _, sums = token(objective(), [0, 0], 1, reference=reference)
    assert sums["kl"] == pytest.approx(2 * 0.018731, rel=1e-4)
    assert measured == pytest.approx(-1)
    penalized, gradient, _ = token(objective(kl=Kl.of("k3", 0.5, None), penalized=True), [0, 0], 1, reference=reference)
    assert penalized == pytest.approx(-1 + 0.5 * 0.018731, rel=1e-5)
    np.testing.assert_allclose(gradient, [[0.5 * (-1 + 0.5 * 0.181269)] * 2], rtol=1e-5)


def test_an_entropy_bonus() -> None:
    assert token(objective(entropy=0.1), [0, 0], 1, entropy=[[2.0, 1.0]])[0] == pytest.approx(-1 - 0.15)


def test_importance_of_tokens_that_the_sampler_saw_otherwise() -> None:
    # Old log-probability -1; sampled at half, twice and a tenth of that probability, weights capped at 2.
    behaviour = -1 - np.log([[2, 0.5, 10]])
    loss, gradient, _ = token(objective(importance_cap=2.0), [0, 0, 0], 1, behaviour=behaviour)
    np.testing.assert_allclose(gradient, -np.array([[2, 0.5, 2]]) / 3, rtol=1e-5)
    assert loss == pytest.approx(-4.5 / 3, rel=1e-5)


def test_the_critic_gains_nothing_from_leaping() -> None:
    value, slope = jax.value_and_grad(lambda v: value_loss(v, 0.5, 1.0, 0.2))(0.9)
    assert float(value) == pytest.approx(0.045)
    assert float(slope) == 0
    assert float(jax.grad(lambda v: value_loss(v, 0.5, 1.0, 0.2))(0.6)) == pytest.approx(-0.4)


def test_objectives_that_differ_in_numbers_share_a_program() -> None:
    one, other = objective(), objective(clip_high=0.2, aggregation="token-mean")
    assert one.loss == other.loss
    assert hash(one.loss) == hash(other.loss)
    assert one.settings().keys() == other.settings().keys()
