"""Derivatives that are written by hand are those that JAX finds by itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ratchet_trainer.model.architecture import Rope
from ratchet_trainer.model.cpu import GATES, _attend, gated, rms_norm, rotate, split, turn
from ratchet_trainer.model.policy import log_prob_and_entropy


def draw(*shapes: tuple[int, ...]) -> list[jax.Array]:
    source = np.random.default_rng(0)
    return [jnp.asarray(source.normal(size=shape), jnp.float32) for shape in shapes]


def agree(function, arguments, *rest) -> None:
    """Values and gradients of the function and of what it is without its own derivative, weighed at random."""

    def weighed(f):
        def run(*differentiated):
            parts = jax.tree.leaves(f(*differentiated, *rest))
            return sum(jnp.sum(w * part) for w, part in zip(draw(*(p.shape for p in parts)), parts, strict=True))

        return jax.jit(jax.value_and_grad(run, argnums=tuple(range(len(arguments)))))

    by_hand, found = weighed(function)(*arguments), weighed(function.fun)(*arguments)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), by_hand, found)


@pytest.mark.parametrize("gate", GATES)
def test_gates(gate):
    agree(gated, draw((5, 12)), gate)


@pytest.mark.parametrize("gate", GATES)
def test_gates_are_what_they_are_called(gate):
    x = jnp.linspace(-4, 4, 33)
    named = {
        "silu": jax.nn.silu,
        "gelu": lambda x: jax.nn.gelu(x, approximate=False),
        "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    }[gate]
    np.testing.assert_allclose(GATES[gate](x)[0], named(x), atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 4, 2, 8)])
def test_norms(shape):
    agree(rms_norm, draw(shape, shape[-1:]), 1e-6)


def test_taking_a_product_apart():
    agree(split, draw((5, 12)), (6, 2, 4))


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_log_probabilities_and_entropy(temperature):
    tokens = jnp.array([[0, 8, 3], [3, 3, 7]])
    agree(log_prob_and_entropy, draw((2, 3, 9)), tokens, jnp.float32(temperature))


def test_rotation():
    by = turn(jnp.arange(24).reshape(2, 3, 4), Rope(100.0), 8, jnp.bool_(True))
    agree(rotate, draw((2, 3, 4, 2, 8)), by)


@pytest.mark.parametrize("cap", [None, 1.5])
@pytest.mark.parametrize("context", [0, 5])
def test_attention(cap, context):
    """Two query heads a group; what is masked among both kinds of slots differs from query to query."""
    p, g, m, x, s, k = 2, 3, 2, 8, 4, 6
    arrays = draw((p, m, g, x, k), (p, m, g, s, k), (p, m, g, s, k), (p, m, context, k), (p, m, context, k))
    visible = jnp.arange(s) <= jnp.tile(jnp.arange(4), 2)[:, None]
    seen = (jnp.arange(context) < jnp.array([[3], [5]]))[:, None, None, None]
    agree(_attend, arrays, visible, seen, cap)
