"""Programs over rows that lie on several devices: each takes its own, some at a time.

Decides passes and collectives. A device takes its rows in `passes` equal parts, one after the other, so that what one
part needs is freed before the next; what they found is added in that order, then over the devices.

Where each device holds the whole model, a gradient costs two collectives, whatever the number of leaves, as each is a
wait for the slowest process. Where parameters are spread, XLA partitions the program by where they lie, and a gradient
lies as its parameter from the first pass on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ratchet_trainer.model.lora import joined
from ratchet_trainer.model.sharding import ROWS, is_spread, of_parameters, row_parts

KERNELS = ("tpu",)
"""Platforms on which a function of rows may have kernels, which XLA cannot cut."""

Sums = dict[str, jax.Array]


def row_values(mesh: Mesh, function: Callable[..., jax.Array], params: Any, rows: Any, passes: int) -> jax.Array:
    """function(params, rows) for all rows, where its result, too, has them along its first axis."""

    def of_my_rows(params: Any, rows: Any, parts: int = 1) -> jax.Array:
        if passes == 1:
            return function(params, rows)
        found: jax.Array = jax.lax.map(lambda part: function(params, part), _in_passes(mesh, rows, passes, parts))
        return found.reshape(passes, parts, -1, *found.shape[2:]).swapaxes(0, 1).reshape(-1, *found.shape[2:])

    if is_spread(mesh):
        return of_my_rows(params, rows, row_parts(mesh))
    whole: jax.Array = _on_all(mesh, of_my_rows, PartitionSpec(ROWS), 1)(params, rows)
    return whole


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
        if is_spread(mesh):
            gradient = jax.lax.with_sharding_constraint(gradient, of_parameters(mesh, gradient))
        return (gradient, sums | {"loss": value}), largest

    def of_my_rows(both: Any, *rows: Any, parts: int = 1) -> tuple[tuple[Any, Sums], Sums]:
        if passes == 1:
            return one_pass(both, rows)
        return _added(one_pass, both, _in_passes(mesh, rows, passes, parts))

    def of_all(both: Any, *rows: Any) -> tuple[Any, Sums]:
        total, largest = of_my_rows(both, *rows)
        if mesh.shape["data"] == 1:
            return total[0], total[1] | largest
        flat, unravel = ravel_pytree(total)
        peaks, unravel_peaks = ravel_pytree(largest)
        gradient, sums = unravel(jax.lax.psum(flat, ROWS))
        return gradient, sums | unravel_peaks(jax.lax.pmax(peaks, ROWS))

    both = params, frozen or {}
    if is_spread(mesh):
        (gradient, sums), largest = of_my_rows(both, *rows, parts=row_parts(mesh))
        return gradient, sums | largest
    found: tuple[Any, Sums] = _on_all(mesh, of_all, PartitionSpec(), len(rows))(both, *rows)
    return found


def _added(one_pass: Callable[..., Any], params: Any, parts: Any) -> tuple[tuple[Any, Sums], Sums]:
    """One pass after the other: sums added left to right, of the rest the largest."""
    first = jax.tree.map(lambda x: x[0], parts)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(one_pass, params, first)[0])

    def add(total: Any, rows: Any) -> Any:
        found, largest = one_pass(params, rows)
        return jax.tree.map(jnp.add, total, found), largest

    total, largest = jax.lax.scan(add, zeros, parts)
    return total, jax.tree.map(lambda x: x.max(0), largest)


def _in_passes(mesh: Mesh, rows: Any, passes: int, parts: int) -> Any:
    """Rows as [passes, rows of a pass]. They lie in `parts` on the devices, each of which takes of its own."""

    def one(x: jax.Array) -> jax.Array:
        if parts == 1:
            return x.reshape(passes, x.shape[0] // passes, *x.shape[1:])
        x = x.reshape(parts, passes, -1, *x.shape[1:]).swapaxes(0, 1).reshape(passes, -1, *x.shape[1:])
        cut: jax.Array = jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(None, ROWS)))
        return cut

    return jax.tree.map(one, rows)


def _on_all(mesh: Mesh, function: Callable[..., Any], out: PartitionSpec, rows: int) -> Callable[..., Any]:
    specs = (PartitionSpec(), *(PartitionSpec(ROWS),) * rows)
    # `tensor` has one device here. An axis that is left to XLA keeps every kernel out, even so; on CPUs, where there is
    # none, bits follow from it.
    axes = mesh.axis_names if mesh.devices.flat[0].platform in KERNELS else ROWS
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out, axis_names={*axes}, check_vma=False)
