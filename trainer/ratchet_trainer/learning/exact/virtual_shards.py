"""Virtual shards: a batch cut into a fixed number of parts, each computed alone, wherever it is.

The bits of a row depend on the shape of the batch that it is computed in, and those of a sum on its order. So in mode
Exact neither may follow from the number of devices. Decides how that is done:

* every batch is V virtual shards of equal shape; a device takes V / devices neighbouring ones, one after the other;
* what is computed of a shard is one program for that shape, on one device, which no mesh can change;
* what shards contribute to a sum is added by a fixed binary tree over the V of them. Both numbers are powers of two, so
  a device adds a whole subtree of its own; then collectives *move* what the devices have, and each device adds the rest
  of the tree itself.

Arrays come in three forms: on the host (numpy, equal on all processes), global with rows along the mesh axis `data`,
and global and equal everywhere. Local pieces are lists, one entry a device of this process, in the order of the mesh.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding

from ratchet_trainer.checkpoints import jitted
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.model.sharding import by_rows, place, replicated


@dataclass(frozen=True)
class Shard:
    """One part of the rows that a device computes at a time: the device's place among those of this process, and the
    rows, counted over the whole batch and from the device's first one."""

    device: int
    rows: slice
    own_rows: slice


class VirtualShards:
    """The `count` virtual shards of a mesh whose only axis of more than one device is `data`."""

    def __init__(self, mesh: Mesh, count: int):
        """Raises ConfigurationInvalid when the devices do not divide the shards."""
        devices = list(mesh.devices.flat)
        if mesh.shape["data"] != len(devices):
            raise ConfigurationInvalid("reproducibility.mode Exact needs fsdp and tensor to be 1")
        if count % len(devices):
            raise ConfigurationInvalid(
                f"reproducibility.virtualShards is {count}, which {len(devices)} devices do not divide; in mode Exact "
                f"they must"
            )
        self.mesh, self.count, self.each = mesh, count, count // len(devices)
        mine = jax.process_index()
        self.devices = [(i, device) for i, device in enumerate(devices) if device.process_index == mine]
        self._add = jitted.jit(lambda x, y: jax.tree.map(jnp.add, x, y), donate_argnums=0)
        self._halve = jitted.jit(lambda x: x[0::2] + x[1::2])
        self._join = jitted.jit(lambda parts: jnp.concatenate(parts, 0))
        self._flat = jitted.jit(lambda tree: jnp.concatenate([x.ravel() for x in jax.tree.leaves(tree)])[None])
        self._unflat = jitted.jit(_unflat, static_argnames=("structure", "shapes"))
        self._everywhere = jitted.jit(lambda x: x, out_shardings=replicated(mesh))

    # Parts

    def parts(self, rows: int, passes: int) -> Iterator[Shard]:
        """This process's parts of a batch of so many rows, in order; each virtual shard is cut into `passes`."""
        size, own = rows // (self.count * passes), rows // self.mesh.devices.size
        for local, (index, _) in enumerate(self.devices):
            for i in range(self.each * passes):
                at = i * size
                yield Shard(local, slice(index * own + at, index * own + at + size), slice(at, at + size))

    def take(self, tree: Any, shard: Shard) -> Any:
        """A part of host arrays or of global arrays with rows, on its device."""
        device = self.devices[shard.device][1]

        def one(x: Any) -> jax.Array:
            if isinstance(x, jax.Array):
                own: jax.Array = self.local(x)[shard.device][shard.own_rows]
                return own
            placed: jax.Array = jax.device_put(x[shard.rows], device)
            return placed

        return jax.tree.map(one, tree)

    def local(self, x: jax.Array) -> list[jax.Array]:
        """The pieces of a global array that this process's devices hold."""
        held = {piece.device: piece.data for piece in x.addressable_shards}
        return [held[device] for _, device in self.devices]

    def on_each(self, tree: Any) -> list[Any]:
        """A tree of global arrays as one tree a device."""
        leaves, structure = jax.tree.flatten(tree)
        return [jax.tree.unflatten(structure, own) for own in zip(*map(self.local, leaves), strict=True)]

    def shapes(self, tree: Any, device: int, rows: int | None = None) -> Any:
        """Shapes on one device, for compiling ahead; `rows` instead of the length of the first axis."""
        placed = SingleDeviceSharding(self.devices[device][1])

        def one(x: Any) -> jax.ShapeDtypeStruct:
            shape = tuple(np.shape(x)) if rows is None else (rows, *np.shape(x)[1:])
            return jax.ShapeDtypeStruct(shape, x.dtype, sharding=placed)

        return jax.tree.map(one, tree)

    # Wholes

    def spread(self, tree: Any) -> Any:
        """What a program gave on one device, on all of them: bits that no mesh can change."""
        return place(jax.tree.map(np.asarray, tree), replicated(self.mesh))

    def equal(self, trees: Sequence[Any]) -> Any:
        """Global arrays that are equal everywhere, of one tree a device."""
        sharding = replicated(self.mesh)
        return jax.tree.map(
            lambda *own: jax.make_array_from_single_device_arrays(own[0].shape, sharding, list(own)), *trees
        )

    def joined(self, pieces: Sequence[Sequence[jax.Array]]) -> jax.Array:
        """A global array with rows, of the pieces that each device has of it, in order."""
        own = [self._join(tuple(some)) for some in pieces]
        shape = (own[0].shape[0] * self.mesh.devices.size, *own[0].shape[1:])
        return jax.make_array_from_single_device_arrays(shape, by_rows(self.mesh), own)

    def everywhere(self, x: jax.Array) -> jax.Array:
        """A global array with rows, moved whole to every device. *Collective.*"""
        whole: jax.Array = self._everywhere(x)
        return whole

    def added(self, pieces: Sequence[Sequence[Any]], passes: int) -> list[Any]:
        """The sum over all virtual shards, on each device of this process. `pieces`: for each device the float32 trees
        that its parts gave, equally shaped; the passes of a shard are added left to right. *Collective.*"""
        leaves, structure = jax.tree.flatten(pieces[0][0])
        shapes = tuple(leaf.shape for leaf in leaves)
        own = []
        for some in pieces:
            shards = [reduce(self._add, some[i : i + passes]) for i in range(0, len(some), passes)]
            while len(shards) > 1:
                shards = [self._add(a, b) for a, b in zip(shards[0::2], shards[1::2], strict=True)]
            own.append(shards[0])
        if self.mesh.devices.size == 1:
            return own
        moved = self.local(self.everywhere(self.joined([[self._flat(tree)] for tree in own])))
        while moved[0].shape[0] > 1:
            moved = [self._halve(x) for x in moved]
        return [self._unflat(x, structure=structure, shapes=shapes) for x in moved]

    def largest(self, pieces: Sequence[Sequence[dict[str, jax.Array]]]) -> dict[str, float]:
        """The largest of each scalar over everything, on the host: a maximum has no order. *Collective.*"""
        names = sorted(pieces[0][0])
        if not names:
            return {}
        own = [[jnp.stack([part[name] for name in names])[None] for part in some] for some in pieces]
        found = np.asarray(self.everywhere(self.joined(own))).max(0)
        return {name: float(value) for name, value in zip(names, found, strict=True)}

    def by_device(self, function: Callable[[Shard], Any], rows: int, passes: int) -> list[list[Any]]:
        """What `function` gives for every part, as one list a device. Each device works on its own queue."""
        found: list[list[Any]] = [[] for _ in self.devices]
        # All devices get their first part, then all their second: so none waits for another to be fed.
        for shard in sorted(self.parts(rows, passes), key=lambda shard: shard.own_rows.start):
            found[shard.device].append(function(shard))
        return found


def _unflat(flat: jax.Array, structure: Any, shapes: tuple[tuple[int, ...], ...]) -> Any:
    """[1, N] -> the tree whose leaves were laid end to end."""
    leaves, at = [], 0
    for shape in shapes:
        size = int(np.prod(shape, dtype=int))
        leaves.append(flat[0, at : at + size].reshape(shape))
        at += size
    return structure.unflatten(leaves)
