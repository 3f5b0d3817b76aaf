"""What of a state a process copies to its host, and who writes it.

Decides who writes which block: every block is written by one of the processes whose devices hold it, and where several
do, as with weights that are everywhere, they take turns. All processes come to the same answer from the shardings, so
nobody asks. How blocks are cut is `grid.py`'s matter, how they are stored `array_store.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ratchet_trainer.checkpoints import grid


@dataclass(frozen=True)
class LeafPart:
    """What a process has of one array: copies of blocks by their number. `mine`: those that it writes."""

    dtype: np.dtype[Any]
    shape: grid.Shape
    block: grid.Shape  # shape of one
    blocks: Mapping[int, np.ndarray]
    mine: frozenset[int]


Part = Mapping[str, LeafPart]


def host_part(
    arrays: Mapping[str, Any], process: int = 0, processes: int = 1, held: bool = False
) -> dict[str, LeafPart]:
    """Copies of the blocks that this process writes, with `held` of all that its devices hold; their buffers may be
    donated afterwards. `process` is JAX's number of this one; arrays of the host, and of one process's
    own devices, are equal on all `processes`.

    Collective where a sharding cuts an array finer than its chunks are: such an array is gathered, one at a time.
    """
    return {path: _leaf_part(arrays[path], turn, process, processes, held) for turn, path in enumerate(sorted(arrays))}


def host_copies(arrays: Mapping[str, Any], keep: bool = True) -> dict[str, np.ndarray]:
    """Whole arrays, copied to this host in order of their paths; who needs none of them need not `keep` any. Collective
    where an array is spread over processes."""
    copies = {}
    for path in sorted(arrays):
        whole = _gathered(arrays[path]) if keep or _spread(arrays[path]) else None
        if whole is not None and keep:
            copies[path] = np.array(whole)
    return copies


def bytes_of(part: Part) -> int:
    """Bytes of the blocks that a process writes."""
    return sum(leaf.blocks[number].nbytes for leaf in part.values() for number in leaf.mine)


def _leaf_part(leaf: Any, turn: int, process: int, processes: int, held: bool) -> LeafPart:
    shape = tuple(leaf.shape)
    everywhere = not hasattr(leaf, "sharding") or (processes > 1 and leaf.is_fully_addressable)
    holders = {} if everywhere else _holders(leaf, shape)
    if holders and all(grid.fits(region, grid.chunk_shape(shape)) for region in holders):
        shards = {grid.of_index(one.index, shape): one.data for one in leaf.addressable_shards}
    else:
        holders = {grid.whole(shape): set(range(processes))}
        shards = {grid.whole(shape): _gathered(leaf)}
    shard = tuple(b - a for a, b in next(iter(holders)))
    block = grid.block_shape(shape, shard)
    blocks: dict[int, np.ndarray] = {}
    mine = set()
    for region, values in shards.items():
        among = sorted(holders[region])
        whole: np.ndarray | None = None
        for number, at in grid.pieces(region, shape, block):
            if among[(turn + number) % len(among)] == process:
                mine.add(number)
            elif not held:
                continue
            whole = _on_host(values) if whole is None else whole
            blocks[number] = np.array(cut_out(whole, at, region), order="C")
    return LeafPart(np.dtype(leaf.dtype), shape, block, blocks, frozenset(mine))


def _holders(leaf: Any, shape: grid.Shape) -> dict[grid.Region, set[int]]:
    """What of an array is where: region -> processes."""
    found: dict[grid.Region, set[int]] = {}
    for device, index in leaf.sharding.devices_indices_map(shape).items():
        found.setdefault(grid.of_index(index, shape), set()).add(device.process_index)
    return found


def cut_out(values: np.ndarray, wanted: grid.Region, region: grid.Region) -> np.ndarray:
    """A view of the values of `region` where they are `wanted`."""
    inside: list[Any] = [slice(a - start, b - start) for (a, b), (start, _) in zip(wanted, region, strict=True)]
    return values[(*inside, ...)]  # with ..., what has no sides stays an array


def overlap(one: grid.Region, other: grid.Region) -> grid.Region:
    return tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))


def regions_here(sharding: Any, shape: grid.Shape) -> Iterator[grid.Region]:
    """What of an array this process's devices hold, each region once."""
    yield from dict.fromkeys(grid.of_index(i, shape) for i in sharding.addressable_devices_indices_map(shape).values())


def _spread(leaf: Any) -> bool:
    return not (getattr(leaf, "is_fully_addressable", True) or leaf.is_fully_replicated)


def _gathered(leaf: Any) -> np.ndarray:
    if not _spread(leaf):
        return np.asarray(leaf if getattr(leaf, "is_fully_addressable", True) else leaf.addressable_data(0))
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))


def _on_host(values: Any) -> np.ndarray:
    if isinstance(values, np.ndarray) or next(iter(values.devices())).platform == "cpu":
        return np.asarray(values)  # a view
    import jax

    # JAX keeps what it has copied to the host with the array; of a stand-in it goes when the stand-in does.
    stand_in = jax.make_array_from_single_device_arrays(values.shape, values.sharding, [values])
    return np.asarray(stand_in)
