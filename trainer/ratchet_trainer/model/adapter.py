"""The modules of low-rank adapters: what they add to a matrix product. See `lora` for what is done with their weights.

Decides how they are drawn and computed, next to the block that has them; a start that loads its programs needs neither.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from ratchet_trainer.model.architecture import Architecture
from ratchet_trainer.model.computation import Computation
from ratchet_trainer.model.lora import SIDE_BY_SIDE


class Pair(nnx.Module):
    """A [inputs, rank], drawn, and B [rank, outputs], zero."""

    def __init__(self, inputs: int, rank: int, outputs: int, key: jax.Array):
        self.a = nnx.Param(inputs**-0.5 * jax.random.normal(key, (inputs, rank), jnp.float32))
        self.b = nnx.Param(jnp.zeros((rank, outputs), jnp.float32))


class Adapter(nnx.Module):
    """What is added to one matrix product; its outputs are `widths` side by side, of which some have a pair."""

    def __init__(
        self, a: Architecture, how: Computation, matrix: str, inputs: int, widths: tuple[int, ...], key: jax.Array
    ):
        assert a.adapters is not None
        self.how = how
        self.names, self.widths, self.scale = SIDE_BY_SIDE[matrix], widths, a.adapters.scale
        for i, (name, width) in enumerate(zip(self.names, widths, strict=True)):
            if name in a.adapters.targets:
                setattr(self, name, Pair(inputs, a.adapters.rank, width, jax.random.fold_in(key, i)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[M, inputs] -> [M, sum(widths)]."""
        return jnp.concatenate([self._part(x, *part) for part in zip(self.names, self.widths, strict=True)], -1)

    def _part(self, x: jax.Array, name: str, width: int) -> jax.Array:
        pair = getattr(self, name, None)
        if pair is None:
            return jnp.zeros((len(x), width), x.dtype)
        return self.scale * (x @ self.how.weight(pair.a[...], "a") @ self.how.weight(pair.b[...], "b"))


def adapter(
    a: Architecture, how: Computation, matrix: str, inputs: int, widths: tuple[int, ...], key: jax.Array
) -> Adapter | None:
    """The adapter of one of our matrices, if the architecture has one there."""
    if a.adapters is None or not {*SIDE_BY_SIDE[matrix]} & {*a.adapters.targets}:
        return None
    return Adapter(a, how, matrix, inputs, widths, jax.random.fold_in(key, len(SIDE_BY_SIDE)))
