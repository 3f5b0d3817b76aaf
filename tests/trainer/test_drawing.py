"""Drawing a token in two turns is drawing it from the softmax."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ratchet_trainer.algorithm import keys
from ratchet_trainer.rollout.drawing import BLOCK, drawn, noise_size

DRAWS = 1 << 16


def draws(logits: np.ndarray, rows: int = 64) -> np.ndarray:
    """Tokens that so many differently keyed rows draw at many positions."""
    raw = keys.row_keys(
        keys.seed_words(1), keys.row_words(0, list(range(rows)), [0] * rows), np.arange(1, dtype=np.uint32)
    )

    def at(token: jax.Array) -> jax.Array:
        return drawn(jnp.broadcast_to(logits, (rows, 1, len(logits))), keys.gumbel(raw, token, noise_size(len(logits))))

    return np.asarray(jax.jit(lambda t: jax.lax.map(at, t))(jnp.arange(DRAWS // rows))).ravel()


@pytest.mark.parametrize("vocabulary", [5, BLOCK, 2 * BLOCK + 3])
def test_tokens_come_as_often_as_the_softmax_says(vocabulary: int) -> None:
    logits = np.random.default_rng(0).normal(0, 2, vocabulary).astype(np.float32)
    logits[::3] = -np.inf
    expected = np.exp(logits) / np.exp(logits).sum()
    found = np.bincount(draws(logits), minlength=vocabulary) / DRAWS
    assert (found[::3] == 0).all()
    assert (np.abs(found - expected) < 5 * np.sqrt(expected / DRAWS) + 1e-5).all()


def test_a_single_possible_token_is_drawn_wherever_it_lies() -> None:
    for token in (0, BLOCK - 1, BLOCK, 2 * BLOCK + 2):
        logits = np.full(2 * BLOCK + 3, -np.inf, np.float32)
        logits[token] = -30.0
        assert {*draws(logits).tolist()} == {token}
