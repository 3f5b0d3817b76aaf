"""Arrays read back from a step's folder: of each, what this process's devices will hold, and nothing else.

Decides that no value is taken whose block does not have its digest. How processes and devices were arranged when it was
written does not matter: a region is put together from the blocks that it touches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ratchet_trainer.checkpoints import grid, parts
from ratchet_trainer.checkpoints.array_store import Reader
from ratchet_trainer.checkpoints.digests import ON_HOST, Hasher

Shardings = Callable[[str, grid.Shape], Any]
"""Path and shape of an array -> where it belongs."""


class Damaged(Exception):
    """A block is not what was written."""


def arrays(reader: Reader, leaves: Mapping[str, Any], shardings: Shardings | None) -> dict[str, Any]:
    """The arrays of these `leaves` of digests.json: global ones, where `shardings` says; those of the host, and all
    without it, whole on the host. Raises Damaged, and what the storage raises."""
    return {
        path: _array(reader, path, leaf, None if path.startswith(ON_HOST) else shardings)
        for path, leaf in leaves.items()
    }


def _array(reader: Reader, path: str, leaf: Mapping[str, Any], shardings: Shardings | None) -> Any:
    shape = tuple(leaf["shape"])
    if shardings is None:
        return _region(reader, path, leaf, grid.whole(shape))
    import jax

    sharding = shardings(path, shape)
    found = {region: _region(reader, path, leaf, region) for region in parts.regions_here(sharding, shape)}
    return jax.make_array_from_callback(shape, sharding, lambda index: found[grid.of_index(index or (), shape)])


def _region(reader: Reader, path: str, leaf: Mapping[str, Any], region: grid.Region) -> np.ndarray:
    shape, block, dtype = tuple(leaf["shape"]), tuple(leaf["block"]), np.dtype(leaf["dtype"])
    hasher = Hasher(path, dtype, shape)
    values = np.empty([b - a for a, b in region], dtype)
    touched = dict(grid.pieces(region, shape, block))
    stored = reader.blocks(path, shape, block, touched) if math.prod(shape) else ((number, b"") for number in touched)
    for number, data in stored:
        if len(data) != math.prod(block) * dtype.itemsize:
            raise Damaged(f"block {number} of {path} has {len(data)} bytes")
        found, at = np.frombuffer(data, dtype).reshape(block), touched[number]
        if hasher.part(found, at) != leaf["blocks"][number]:
            raise Damaged(f"block {number} of {path} does not have its digest")
        both = parts.overlap(at, region)
        parts.cut_out(values, both, region)[...] = parts.cut_out(found, both, at)
    return values
