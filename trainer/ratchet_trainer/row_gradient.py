"""A gradient over rows that lie on several devices: each takes its own, and what they found is added.

Decides the collectives only: two a call, whatever the number of leaves, as each costs a wait for the slowest process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, PartitionSpec

Loss = Callable[..., tuple[jax.Array, tuple[dict[str, jax.Array], dict[str, jax.Array]]]]


def row_gradient(mesh: Mesh, loss: Loss, params: Any, *rows: Any) -> tuple[Any, dict[str, jax.Array]]:
    """Gradient of the summed `loss` by `params`, and what it reports, equal on all devices.

    loss(params, *rows) -> value, (sums, largest): the share of the rows that it gets, scalars to be added and scalars
    of which the largest counts. `rows`: trees of arrays whose first axis lies over the mesh axis `data`.
    """

    def of_my_rows(params: Any, *rows: Any) -> Any:
        (value, (sums, largest)), gradient = jax.value_and_grad(loss, has_aux=True)(params, *rows)
        if mesh.shape["data"] == 1:
            return gradient, sums | {"loss": value} | largest
        flat, unravel = ravel_pytree((gradient, sums | {"loss": value}))
        peaks, unravel_peaks = ravel_pytree(largest)
        gradient, sums = unravel(jax.lax.psum(flat, "data"))
        return gradient, sums | unravel_peaks(jax.lax.pmax(peaks, "data"))

    return jax.shard_map(
        of_my_rows,
        mesh=mesh,
        in_specs=(PartitionSpec(), *(PartitionSpec("data"),) * len(rows)),
        out_specs=PartitionSpec(),
        axis_names={"data"},
        check_vma=False,
    )(params, *rows)
