"""How a decoder computes, whatever it is: number format, what is kept for the gradient, on which mesh.

Decides the format of matrix products and what the compiler is told of a spread model: a weight is gathered over `fsdp`
where it is used and stays spread over `tensor`, rows and heads stay where they are. With the default nothing is added
to a program. Which device holds a parameter between uses is in `sharding`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ratchet_trainer.checkpoints import jitted
from ratchet_trainer.model import cpu, plain, sharding, tpu

OLD_GAP_LIMIT = {"float32": 2e-6, "bfloat16": 2e-2}
"""How far log-probabilities of the same weights from the same program may lie apart, relative to max(1, |old|)."""


OPERATIONS = {"cpu": cpu, "tpu": tpu}
"""Platform -> what lies between the matrix products there; elsewhere it is `plain`."""

UNROLLED = ("cpu",)
"""Platforms on which no layers are a loop (`depth`). XLA's CPU backend copies a loop's weights out of their stack at
every turn, and compiles a model of 30 layers no faster."""


STREAMING = ("tpu",)
"""Platforms on which memory is slow against the matrix units, so that logits must not be written and read."""


@dataclass(frozen=True)
class Computation:
    """dtype: of activations and matrix products; norms, softmax and what follows the last product are float32.
    recompute: the gradient's pass computes the inside of every block again. mesh: that parameters are spread on.
    platform: of its devices, as JAX calls it; None: JAX's own choice. scanned: whether layers that are alike are a
    loop (`depth`); None: where that pays."""

    dtype: str = "float32"
    recompute: bool = False
    mesh: Mesh | None = None
    platform: str | None = None
    scanned: bool | None = None

    @property
    def old_gap_limit(self) -> float:
        return OLD_GAP_LIMIT[self.dtype]

    @classmethod
    def on(cls, mesh: Mesh, dtype: str = "float32", recompute: bool = False) -> Computation:
        platform = mesh.devices.flat[0].platform
        return cls(dtype, recompute, mesh if sharding.is_spread(mesh) else None, platform)

    @cached_property
    def operations(self) -> Any:
        """The module with what lies between the matrix products: `plain`, or one with the same functions."""
        return OPERATIONS.get(self._platform, plain)

    @property
    def has_kernels(self) -> bool:
        """Whether attention may be a kernel, which XLA cannot cut: rows on several devices are given out by hand."""
        return self.operations is tpu

    @property
    def _platform(self) -> str:
        return self.platform or jax.default_backend()

    @property
    def scans(self) -> bool:
        """Whether layers that are alike are a loop."""
        return self._platform not in UNROLLED if self.scanned is None else self.scanned

    @property
    def streams_logits(self) -> bool:
        """Whether log-probabilities are made without an array of all logits (`streamed_logits`). Words that are spread
        cannot go by in blocks."""
        return self._platform in STREAMING and (self.mesh is None or self.mesh.shape["tensor"] == 1)

    @property
    def row_parts(self) -> int:
        """Into how many parts the rows that a program sees are cut."""
        return 1 if self.mesh is None else sharding.row_parts(self.mesh)

    def weights(self, params: Any) -> Any:
        """Parameters, or their shapes, as the matrix products want them: for programs that use them again and again,
        which must not turn and gather them for every token."""
        if self.dtype == "float32" and self.mesh is None:
            return params
        if isinstance(jax.tree.leaves(params)[0], jax.ShapeDtypeStruct):
            return jax.tree_util.tree_map_with_path(self._shape_of_weight, params)
        if self.mesh is None:
            return jax.tree.map(lambda x: x.astype(self.dtype) if x.ndim == 2 else x, params)
        return self._gathered(params)

    def _shape_of_weight(self, path: Any, x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        if x.ndim != 2:
            return x
        where = x.sharding
        if self.mesh is not None:
            where = sharding.of_parameter(self.mesh, sharding.path_of(path), x.shape, over=("tensor",))
        return jax.ShapeDtypeStruct(x.shape, self.dtype, sharding=where)

    @cached_property
    def _gathered(self) -> Any:
        used = lambda path, x: self.weight(x, sharding.path_of(path)) if x.ndim == 2 else x  # noqa: E731
        return jitted.jit(partial(jax.tree_util.tree_map_with_path, used))

    def weight(self, x: jax.Array, path: str) -> jax.Array:
        """A matrix at its use; `path` or its end says how it lies."""
        x = x.astype(self.dtype)
        if self.mesh is None:
            return x
        where = sharding.of_parameter(self.mesh, path, x.shape, over=("tensor",))
        placed: jax.Array = jax.lax.with_sharding_constraint(x, where)
        return placed

    def stack(self, over: tuple[str, ...], path: Any, *layers: jax.Array) -> jax.Array:
        """A parameter of several layers as one array, in the format of its use; spread `over` these axes of the mesh,
        as the layers are."""
        whole = jnp.stack([x.astype(self.dtype) if x.ndim == 2 else x for x in layers])
        if self.mesh is None:
            return whole
        where = sharding.of_parameter(self.mesh, sharding.path_of(path), layers[0].shape, over)
        placed: jax.Array = jax.lax.with_sharding_constraint(whole, _below_an_axis(where))
        return placed

    def stacked_shape(self, path: Any, *layers: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        """The shape of what `stack` gives."""
        one = layers[0]
        where = _below_an_axis(one.sharding) if isinstance(one.sharding, NamedSharding) else one.sharding
        return jax.ShapeDtypeStruct((len(layers), *one.shape), one.dtype, sharding=where)

    def rows(self, x: jax.Array) -> jax.Array:
        """Activations with rows, or prompts, along their first axis."""
        return self._at(x, sharding.ROWS)

    def heads(self, x: jax.Array) -> jax.Array:
        """Query, key or value [P, G, T, N, K]: each device of a tensor group has heads of its own, if it comes out
        even."""
        even = self.mesh is not None and x.shape[3] % self.mesh.shape["tensor"] == 0
        return self._at(x, sharding.ROWS, None, None, "tensor" if even else None)

    def inner(self, x: jax.Array) -> jax.Array:
        """What lies between two matrix products [M, H]."""
        even = self.mesh is not None and x.shape[1] % self.mesh.shape["tensor"] == 0
        return self._at(x, sharding.ROWS, "tensor" if even else None)

    def _at(self, x: jax.Array, *axes: Any) -> jax.Array:
        if self.mesh is None:
            return x
        placed: jax.Array = jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, PartitionSpec(*axes)))
        return placed


def _below_an_axis(where: NamedSharding) -> NamedSharding:
    """Of one layer's parameter: of several, one below the other."""
    return NamedSharding(where.mesh, PartitionSpec(None, *where.spec))


PLAIN = Computation()
