"""Which device holds what: rows over the mesh axis `data`, parameters everywhere.

Decides placement only; the mesh itself is made in `distributed`. Host arrays are equal on all processes, so each device
takes its part without any communication.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def by_rows(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec("data"))


def place(tree: Any, sharding: NamedSharding) -> Any:
    """Host arrays -> global arrays; what is global stays as it is. `device_put` would compare them across processes, at
    the price of a collective."""

    def one(x: Any) -> jax.Array:
        if isinstance(x, jax.Array):
            return x
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(one, tree)


def shapes(tree: Any, sharding: NamedSharding) -> Any:
    """What `place` would return, without values: for compiling ahead."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=sharding), tree)
