"""One function for sampling and training: through the cache, token by token, it says what it says at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ratchet_trainer.algorithm import keys
from ratchet_trainer.model import policy as policy_module
from ratchet_trainer.model.architecture import Architecture, Layer
from ratchet_trainer.model.policy import Policy, lay_out_prompts

SMALL = Architecture(vocabulary=64, width=32, heads=4, hidden=48, layers=(Layer(),) * 2)
PROMPTS = [(1, 2, 3, 4, 5), (7,), (9, 8, 7, 6, 5, 4, 3, 2)]


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy(SMALL)


@pytest.fixture(scope="module")
def params(policy: Policy):
    return jax.jit(policy.init)(keys.seed_words(5))


@pytest.fixture(scope="module")
def full_forward(policy: Policy, params):
    """Logits at every position of some tokens, without any cache: the oracle. Causal, so what follows does not
    matter."""

    @jax.jit
    def logits(ids):
        model = policy.decoder(params)
        hidden, _ = model(ids[None, None], model.turns(jnp.arange(16)[None, None]))
        return model.logits(hidden)[0, 0]

    return lambda tokens: np.asarray(logits(jnp.array(tokens + [0] * (16 - len(tokens)))))[: len(tokens)]


def test_a_judged_response_has_the_log_probs_of_a_full_forward_pass(policy, params, full_forward) -> None:
    responses = np.random.default_rng(0).integers(0, 64, (3, 2, 6)).astype(np.int32)
    temperature = 0.7
    log_probs, entropy = jax.jit(policy.judge)(
        params, lay_out_prompts(PROMPTS, 3, 8), responses, np.float32(temperature)
    )
    for p, prompt in enumerate(PROMPTS):
        for g in range(2):
            logits = full_forward([*prompt, *responses[p, g].tolist()])[len(prompt) - 1 : -1]
            expected = np.asarray(jax.nn.log_softmax(logits / temperature, -1))
            np.testing.assert_allclose(log_probs[p, g], expected[range(6), responses[p, g]], atol=4e-6)
            np.testing.assert_allclose(entropy[p, g], -(np.exp(expected) * expected).sum(-1), atol=4e-6)


def test_decoding_through_the_cache_equals_a_full_forward_pass(policy, params, full_forward) -> None:
    responses = np.random.default_rng(1).integers(0, 64, (3, 2, 6)).astype(np.int32)
    laid_out = lay_out_prompts(PROMPTS, 3, 8)
    prompt, own = jax.jit(policy.read)(params, laid_out), policy.empty_cache(3, 2, 6)

    @jax.jit
    def decode(token, positions, own, t):
        model = policy.decoder(params)
        hidden, own = model(token[..., None], model.turns(positions[..., None]), prompt, own, t)
        return model.logits(hidden)[:, :, 0], own

    token = np.broadcast_to(laid_out.last[:, None], (3, 2))
    for t in range(6):
        positions = np.broadcast_to(laid_out.length[:, None] + t, (3, 2))
        step, own = decode(token, positions, own, t)
        for p, tokens in enumerate(PROMPTS):
            for g in range(2):
                oracle = full_forward([*tokens, *responses[p, g, :t].tolist()])[-1]
                np.testing.assert_allclose(step[p, g], oracle, atol=5e-6)
        token = responses[:, :, t]


def test_what_lies_in_padding_is_never_seen(policy, params) -> None:
    responses = np.full((3, 1, 4), 3, np.int32)
    clean, dirty = lay_out_prompts(PROMPTS, 3, 8), lay_out_prompts(PROMPTS, 3, 8)
    for row, tokens in enumerate(PROMPTS):
        dirty.body[row, len(tokens) - 1 :] = 11
    judge = jax.jit(policy.judge)
    one, _ = judge(params, clean, responses, np.float32(1))
    other, _ = judge(params, dirty, responses, np.float32(1))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("limit", [1, 1000])
def test_logits_computed_some_positions_at_a_time_change_nothing(policy, params, limit, monkeypatch) -> None:
    """7 positions of 3 x 2 responses: one by one, and in parts that do not come out even."""
    prompts = lay_out_prompts(PROMPTS, 3, 8)
    responses = np.random.default_rng(0).integers(0, 64, (3, 2, 7)).astype(np.int32)

    def mean(params):
        log_probs, entropy = policy.judge(params, prompts, responses, np.float32(0.7))
        assert log_probs.shape == entropy.shape == responses.shape
        return jnp.mean(log_probs * jnp.arange(7) + entropy), (log_probs, entropy)

    whole = jax.jit(jax.value_and_grad(mean, has_aux=True))(params)
    monkeypatch.setattr(policy_module, "LOGITS", limit)
    parts = jax.jit(jax.value_and_grad(mean, has_aux=True))(params)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
