"""Log-probabilities whose logits go by in blocks are those of all logits at once, gradients included."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ratchet_trainer.model import policy, streamed_logits

M, D, V = 37, 16, 50


def arrays() -> tuple[jax.Array, ...]:
    made = iter(jax.random.split(jax.random.key(1), 4))
    hidden, table = jax.random.normal(next(made), (M, D)), jax.random.normal(next(made), (V, D))
    return hidden, table, jax.random.randint(next(made), (M,), 0, V), jax.random.normal(next(made), (2, M))


@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize(
    "sizes", [(64, 64), (64, 16), (16, 25), (10, 7)], ids=["one block", "words", "rows and words", "neither divides"]
)
def test_blocks_say_what_all_logits_say(sizes: tuple[int, int], cap: float | None) -> None:
    hidden, table, tokens, weights = arrays()
    temperature = jnp.float32(0.7)

    def whole(hidden: jax.Array, table: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = hidden @ table.T
        logits = logits if cap is None else cap * jnp.tanh(logits / cap)
        return policy.log_prob_and_entropy(logits, tokens, temperature)

    def blocks(hidden: jax.Array, table: jax.Array) -> tuple[jax.Array, jax.Array]:
        return streamed_logits.log_prob_and_entropy(hidden, table, tokens, temperature, cap, sizes)

    def total(function, *inputs):
        found = function(*inputs)
        return jnp.sum(weights[0] * found[0] + weights[1] * found[1]), found

    with jax.default_matmul_precision("highest"):
        ways = (jax.value_and_grad(lambda *x, f=f: total(f, *x), (0, 1), has_aux=True) for f in (whole, blocks))
        ((_, wanted), wanted_gradients), ((_, found), gradients) = (way(hidden, table) for way in ways)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    for one, other in zip(gradients, wanted_gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_no_array_has_all_logits() -> None:
    hidden, table, tokens, _ = arrays()  # 37 rows are three equal blocks

    def total(hidden: jax.Array, table: jax.Array) -> jax.Array:
        found = streamed_logits.log_prob_and_entropy(hidden, table, tokens, jnp.float32(1), None, (16, 10))
        return sum(map(jnp.sum, found))

    text = jax.jit(jax.grad(total, (0, 1))).lower(hidden, table).as_text()
    assert f"tensor<{M}x{V}xf32>" not in text
    assert "tensor<13x10xf32>" in text
