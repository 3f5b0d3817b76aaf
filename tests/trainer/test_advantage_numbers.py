"""Advantage's numbers: worked examples of advantages, group by group, over a batch, and against a critic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ratchet_api.stages import Rl
from ratchet_trainer.algorithm.advantage.gae import Gae, gae
from ratchet_trainer.algorithm.advantage.group import (
    GroupAdvantage,
    group_advantages,
    penalties,
    token_advantages,
    without_cut,
)
from ratchet_trainer.algorithm.advantage.statistics import real_tokens, whitened
from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.objective.aggregation import token_weights
from ratchet_trainer.algorithm.objective.drift import Kl
from ratchet_trainer.algorithm.slots import Context, CriticSettings, ModelOutputs
from ratchet_trainer.algorithm.types import Batch, Draw, Group, Outcome, Request, Rollout
from ratchet_trainer.data.prompt import Prompt

GROUPS = [[1, 0, 0, 1], [1, 1, 1, 0]]
LENGTHS = np.array([2, 4, 6, 3, 3, 5, 2, 4])


@pytest.mark.parametrize(
    ("form", "delta", "winner", "others"),
    [
        ("mean-std", 1e-6, 1.499997, -0.499999),
        ("mean-std", 1e-4, 1.499700, -0.499900),
        ("mean", 1e-6, 0.75, -0.25),
        ("leave-one-out", 1e-6, 1, -1 / 3),
    ],
)
def test_advantages_of_one_right_answer_in_four(form: str, delta: float, winner: float, others: float) -> None:
    np.testing.assert_allclose(group_advantages([1, 0, 0, 0], form, delta), [winner, others, others, others], atol=5e-7)


@pytest.mark.parametrize("form", ["mean-std", "mean", "leave-one-out", "batch-whitened"])
@pytest.mark.parametrize("reward", [0.0, 0.3, 1.0, 0.1 + 0.2])
def test_constant_groups_earn_exactly_nothing(form: str, reward: float) -> None:
    assert (token_advantages([[reward] * 4] * 2, LENGTHS, 6, form, 1e-9) == 0.0).all()


def test_a_group_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to be compared with"):
        group_advantages([1.0])


def test_batch_whitening_is_over_all_tokens_with_ddof_1() -> None:
    found = token_advantages(GROUPS, LENGTHS, 6, "batch-whitened", 1e-6)
    first = [1.270704, -0.835034, -0.835034, 1.270704]
    second = [0.744269, 0.744269, 0.744269, -1.361468]
    np.testing.assert_allclose(found[:, 0], [*first, *second], atol=5e-7)
    real = real_tokens(LENGTHS, 6)
    assert (found[~real] == 0).all()
    assert (found[real].mean(), found[real].std(ddof=1)) == pytest.approx((0, 1))


@pytest.mark.parametrize(
    ("lambda_", "advantages", "returns"),
    [
        (1, [0.5, 0.4, 0.3], [1, 1, 1]),
        (0.96, [0.472480, 0.388, 0.3], [0.972480, 0.988, 1]),
        (0.95, [0.465750, 0.385, 0.3], [0.965750, 0.985, 1]),
        (0, [0.1, 0.1, 0.3], [0.6, 0.7, 1]),
    ],
)
def test_advantages_over_a_critic(lambda_: float, advantages: list[float], returns: list[float]) -> None:
    # The second row is cut after two tokens: what the critic says beyond it does not count.
    rewards = np.array([[0, 0, 1.0], [0, 1, 0]])
    values = np.array([[0.5, 0.6, 0.7], [0.6, 0.7, 9]])
    found, expected = gae(rewards, values, np.array([3, 2]), 1.0, lambda_)
    np.testing.assert_allclose(found[0], advantages, atol=5e-7)
    np.testing.assert_allclose(expected[0], returns, atol=5e-7)
    np.testing.assert_allclose(found[1], [*advantages[1:], 0], atol=5e-7)
    np.testing.assert_allclose(expected[1], [*returns[1:], 0], atol=5e-7)


def test_a_discount_counts_tokens() -> None:
    found, _ = gae(np.array([[0, 0, 1.0]]), np.zeros((1, 3)), np.array([3]), 0.5, 1.0)
    assert found.tolist() == [[0.25, 0.5, 1]]


def test_whitening() -> None:
    real = np.ones((1, 3), bool)
    np.testing.assert_allclose(whitened(np.array([[0.5, 0.4, 0.3]]), real), [[1, 0, -1]], atol=1e-12)
    assert (whitened(np.full((2, 3), 0.1 + 0.2), np.ones((2, 3), bool)) == 0).all()
    assert (whitened(np.array([[0.7, 0, 0]]), np.array([[True, False, False]])) == 0).all(), "one token has no spread"


def test_statistics_are_summed_in_one_order() -> None:
    """Left to right, not in numpy's pairs: the difference is bits, and bits are what a replay is compared by."""
    values = np.random.default_rng(0).normal(size=(64, 33))
    real = np.ones(values.shape, bool)
    mean = 0.0
    for x in values.ravel():
        mean += x
    mean /= values.size
    variance = 0.0
    for x in values.ravel():
        variance += (x - mean) ** 2
    variance /= values.size - 1
    np.testing.assert_array_equal(whitened(values, real), (values - mean) / variance**0.5)


def test_drift_comes_off_the_reward_of_real_tokens_only() -> None:
    outputs = ModelOutputs(old=np.array([[-1.0, -2.0, 0.0]]), reference=np.array([[-1.5, -1.0, 0.0]]))
    real = real_tokens(np.array([2]), 3)
    off = penalties(Kl.of("k1", 0.1, None), outputs, real)
    np.testing.assert_allclose(off, [[0.05, -0.1, 0]])
    assert off.dtype == np.float64


def groups() -> list[Group]:
    """Two groups of two responses of 3, 1, 2 and 2 tokens; the first was right once, the second never."""
    found, prompt = [], Prompt((1,), "")
    for g, (rewards, lengths) in enumerate([((1.0, 0.0), (3, 1)), ((0.0, 0.0), (2, 2))]):
        draw = Draw(g, g)
        request = Request(draw, Purpose.TRAIN, 2)
        rollouts = tuple(
            Rollout(request, prompt, prompt, i, (5,) * n, np.zeros(n), np.zeros(n), 0, "end", Outcome(r, r))
            for i, (r, n) in enumerate(zip(rewards, lengths, strict=True))
        )
        found.append(Group(draw, rollouts, rewards))
    return found


def assigned(slot: Any, outputs: ModelOutputs) -> Batch:
    ctx = Context(0, 1, 0, Rl(dataset="d", maxResponseTokens=4))
    with pytest.raises(StopIteration) as stop:
        next(slot.assign(groups(), outputs, ctx))
    return stop.value.value


def test_a_group_is_compared_after_drift_came_off() -> None:
    old, reference = np.full((4, 4), -1.0), np.full((4, 4), -1.5)
    penalty = Kl.of("k1", 0.1, None)
    batch = assigned(GroupAdvantage("mean", penalty=penalty), ModelOutputs(old, reference))
    # A response loses 0.05 a token: rewards 0.85, -0.05 and -0.1, -0.1.
    np.testing.assert_allclose(batch.advantages[:, 0], [0.45, -0.45, 0, 0], atol=1e-12)
    assert batch.advantages[1].tolist()[1:] == [0, 0, 0], "nothing where no token is"
    assert batch.returns is None


def test_a_critic_is_asked_before_and_told_after() -> None:
    values = np.where(real_tokens(np.array([3, 1, 2, 2]), 4), 0.25, 0.0)
    critic = CriticSettings(0.2, None)
    batch = assigned(Gae(1.0, 1.0, critic), ModelOutputs(values=values))
    np.testing.assert_allclose(batch.returns, [[1, 1, 1, 0], [0] * 4, [0] * 4, [0] * 4], atol=1e-12)
    raw = np.where(values > 0, batch.returns - values, 0)
    np.testing.assert_allclose(batch.advantages, whitened(raw, values > 0))
    # With drift taken off at each token, the returns are sums of what is left from there on.
    drift = ModelOutputs(np.full((4, 4), -1.0), np.full((4, 4), -1.5), values)
    batch = assigned(Gae(1.0, 1.0, critic, Kl.of("k1", 0.1, None)), drift)
    np.testing.assert_allclose(batch.returns[0], [0.85, 0.9, 0.95, 0], atol=1e-12)
    np.testing.assert_allclose(batch.returns[3], [-0.1, -0.05, 0, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("slot", "fates"),
    [
        (GroupAdvantage("mean-std"), ["trained", "all_wrong"]),
        (GroupAdvantage("batch-whitened"), ["trained", "trained"]),
        (GroupAdvantage("mean-std", penalty=Kl.of("k1", 0.1, None)), ["trained", "trained"]),
        (Gae(1.0, 1.0, CriticSettings(0.2, None)), ["trained", "trained"]),
    ],
)
def test_a_group_whose_tokens_all_earn_nothing_is_not_trained(slot: Any, fates: list[str]) -> None:
    assert [slot.disposition(group).disposition for group in groups()] == fates


# Over-length masks, SRPO-3: rewards 1, 0, 0, 0, and the third response was cut

CUT_LENGTHS = [2, 4, 10, 8]


def cut_group() -> Group:
    request, prompt, none = Request(Draw(0, 0), Purpose.TRAIN, 4), Prompt((1,), "", "", {}), np.zeros(0, np.float32)
    rollouts = tuple(
        Rollout(request, prompt, prompt, i, (1,) * n, none, none, 0, "length" if n == 10 else "end", Outcome(0, 0))
        for i, n in enumerate(CUT_LENGTHS)
    )
    return Group(request.draw, rollouts, (1.0, 0.0, 0.0, 0.0))


def test_a_cut_response_earns_nothing_and_its_tokens_stay_in_the_denominator() -> None:
    ddof_0 = np.array([3, -1, -1, -1])[:, None] / 3**0.5 * (np.arange(10) < np.array(CUT_LENGTHS)[:, None])
    masked = without_cut(ddof_0, cut_group().rollouts)
    np.testing.assert_allclose(masked[:, 0], [1.732051, -0.577350, 0, -0.577350], atol=5e-7)
    assert not masked[2].any()
    weights = token_weights("token-mean", np.array(CUT_LENGTHS), 10, 10)
    assert -(weights * masked).sum() == pytest.approx(0.144338, abs=5e-7)
    without = token_weights("token-mean", np.array([2, 4, 0, 8]), 10, 10)
    assert -(without * masked).sum() == pytest.approx(0.247436, abs=5e-7), "which is not what is done"


def rounds_of(advantage: GroupAdvantage | Gae, outputs: ModelOutputs) -> Batch:
    ctx = Context(0, 1, 0, Rl.model_validate({"dataset": "d", "maxResponseTokens": 10}))
    with pytest.raises(StopIteration) as stop:
        next(advantage.assign([cut_group()], outputs, ctx))
    return stop.value.value


def test_the_mask_follows_the_statistics_with_and_without_a_critic() -> None:
    nothing = ModelOutputs()
    plain, masked = (rounds_of(GroupAdvantage("mean-std", 0.0, None, m), nothing).advantages for m in (False, True))
    np.testing.assert_allclose(masked[:, 0], [1.5, -0.5, 0, -0.5])
    np.testing.assert_array_equal(masked[[0, 1, 3]], plain[[0, 1, 3]])
    outputs = ModelOutputs(values=np.zeros((4, 10)))
    plain, masked = (rounds_of(Gae(1, 1, CriticSettings(0.2, None), None, m), outputs) for m in (False, True))
    assert plain.advantages[2].any()
    assert not masked.advantages[2].any()
    np.testing.assert_array_equal(masked.advantages[[0, 1, 3]], plain.advantages[[0, 1, 3]])
    np.testing.assert_array_equal(masked.returns, plain.returns, err_msg="the critic learns from it")
