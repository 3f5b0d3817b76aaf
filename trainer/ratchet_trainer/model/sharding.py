"""Which device holds what: rows over the mesh axes `data` and `fsdp`, parameters over `fsdp` and `tensor`.

Decides placement only; the mesh itself is made in `distributed`. Host arrays are equal on all processes, so each device
takes its part without any communication. Optimizer state, a reference, a critic and adapters lie as the parameters
whose paths theirs end with.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Params = dict[str, Any]
"""A model's parameters: nested, with arrays at the ends."""

ROWS = ("data", "fsdp")
"""Axes that rows are spread over: each device of them takes its own."""

MATRICES: dict[str, tuple[str | None, str | None]] = {
    "embedding": ("tensor", "fsdp"),
    "head": ("fsdp", "tensor"),
    "attention/input": ("fsdp", "tensor"),
    "attention/output": ("tensor", "fsdp"),
    "mlp/input": ("fsdp", "tensor"),
    "mlp/output": ("tensor", "fsdp"),
}
"""How the two axes of a matrix lie on the mesh, by the end of its path. Vectors are everywhere: they are small."""


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def by_rows(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(ROWS))


def row_parts(mesh: Mesh) -> int:
    """Into how many parts rows are cut."""
    parts: int = mesh.shape["data"] * mesh.shape["fsdp"]
    return parts


def is_spread(mesh: Mesh) -> bool:
    """Whether a parameter may lie on several devices."""
    devices: int = mesh.shape["fsdp"] * mesh.shape["tensor"]
    return devices > 1


def of_parameter(
    mesh: Mesh, path: str, shape: tuple[int, ...], over: tuple[str, ...] = ("fsdp", "tensor")
) -> NamedSharding:
    """Where a parameter, or what is kept of one, lies, if it may be spread `over` these axes. An axis that does not
    divide its side leaves it whole."""
    if len(shape) != 2 or not is_spread(mesh):
        return replicated(mesh)
    names = path.split("/")
    axes = MATRICES.get("/".join(names[-2:])) or MATRICES.get(names[-1])
    if axes is None:  # an adapter's: one side is short
        axes = ("fsdp", None) if shape[0] >= shape[1] else (None, "fsdp")
    pairs = zip(axes, shape, strict=True)
    fits = [axis if axis in over and size % mesh.shape[axis] == 0 else None for axis, size in pairs]
    return NamedSharding(mesh, PartitionSpec(*fits))


def path_of(keys: Any) -> str:
    """JAX's path of a leaf as text, for example `blocks/0/attention/input`."""
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def of_parameters(mesh: Mesh, tree: Any) -> Any:
    """`of_parameter` for every leaf of a tree of arrays or shapes."""

    def one(path: Any, leaf: Any) -> NamedSharding:
        return of_parameter(mesh, path_of(path), np.shape(leaf))

    return jax.tree_util.tree_map_with_path(one, tree)


def place(tree: Any, where: Any) -> Any:
    """Host arrays -> global arrays; what is global stays as it is. `where`: a sharding, or a tree of them. `device_put`
    would compare the arrays across processes, at the price of a collective."""

    def one(x: Any, sharding: NamedSharding) -> jax.Array:
        if isinstance(x, jax.Array):
            return x
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(one, tree, jax.tree.broadcast(where, tree))


def shapes(tree: Any, where: Any) -> Any:
    """What `place` would return, without values: for compiling ahead."""
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=sharding),
        tree,
        jax.tree.broadcast(where, tree),
    )
