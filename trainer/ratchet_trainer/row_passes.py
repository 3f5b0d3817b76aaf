"""Programs over rows that lie on several devices: each takes its own, some at a time.

Decides passes and collectives. A device takes its rows in `passes` equal parts, one after the other, so that what one
part needs is freed before the next; what they found is added in that order, then over the devices. Two collectives a
gradient, whatever the number of leaves, as each costs a wait for the slowest process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, PartitionSpec

from ratchet_trainer.model.lora import joined

Sums = dict[str, jax.Array]


def row_values(mesh: Mesh, function: Callable[..., jax.Array], params: Any, rows: Any, passes: int) -> jax.Array:
    """function(params, rows) for all rows, where its result, too, has them along its first axis."""

    def of_my_rows(params: Any, rows: Any) -> jax.Array:
        if passes == 1:
            return function(params, rows)
        found = jax.lax.map(lambda part: function(params, part), _in_passes(rows, passes))
        return found.reshape(-1, *found.shape[2:])

    return _on_all(mesh, of_my_rows, PartitionSpec("data"), 1)(params, rows)


def row_gradient(
    mesh: Mesh,
    loss: Callable[..., tuple[jax.Array, tuple[Sums, Sums]]],
    params: Any,
    rows: tuple[Any, ...],
    passes: int,
    frozen: Any = None,
) -> tuple[Any, Sums]:
    """Gradient of the summed `loss` by `params`, and what it reports, equal on all devices. `frozen`: parameters that
    `loss` gets joined with them and that have no gradient.

    loss(params, *rows) -> value, (sums, largest): the share of the rows that it gets, scalars to be added and scalars
    of which the largest counts.
    """

    def one_pass(both: Any, rows: tuple[Any, ...]) -> tuple[tuple[Any, Sums], Sums]:
        params, frozen = both
        of_trained = lambda p, *rows: loss(joined(p, frozen), *rows)  # noqa: E731
        (value, (sums, largest)), gradient = jax.value_and_grad(of_trained, has_aux=True)(params, *rows)
        return (gradient, sums | {"loss": value}), largest

    def of_my_rows(params: Any, *rows: Any) -> tuple[Any, Sums]:
        if passes == 1:
            total, largest = one_pass(params, rows)
        else:
            total, largest = _added(one_pass, params, _in_passes(rows, passes))
        if mesh.shape["data"] == 1:
            return total[0], total[1] | largest
        flat, unravel = ravel_pytree(total)
        peaks, unravel_peaks = ravel_pytree(largest)
        gradient, sums = unravel(jax.lax.psum(flat, "data"))
        return gradient, sums | unravel_peaks(jax.lax.pmax(peaks, "data"))

    return _on_all(mesh, of_my_rows, PartitionSpec(), len(rows))((params, frozen or {}), *rows)


def _added(one_pass: Callable[..., Any], params: Any, parts: Any) -> Any:
    """One pass after the other: sums added left to right, of the rest the largest."""
    first = jax.tree.map(lambda x: x[0], parts)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(one_pass, params, first)[0])

    def add(total: Any, rows: Any) -> Any:
        found, largest = one_pass(params, rows)
        return jax.tree.map(jnp.add, total, found), largest

    total, largest = jax.lax.scan(add, zeros, parts)
    return total, jax.tree.map(lambda x: x.max(0), largest)


def _in_passes(rows: Any, passes: int) -> Any:
    return jax.tree.map(lambda x: x.reshape(passes, x.shape[0] // passes, *x.shape[1:]), rows)


def _on_all(mesh: Mesh, function: Callable[..., Any], out: PartitionSpec, rows: int) -> Callable[..., Any]:
    specs = (PartitionSpec(), *(PartitionSpec("data"),) * rows)
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out, axis_names={"data"}, check_vma=False)
