"""Arrays read back from a step's folder: of each, what this process's devices will hold, and nothing else.

Decides that no value is taken whose block does not have its digest. How processes and devices were arranged when it was
written does not matter: a region is put together from the blocks that it touches.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ratchet_trainer import storage
from ratchet_trainer.checkpoints import grid, parts
from ratchet_trainer.checkpoints.array_store import Reader
from ratchet_trainer.checkpoints.digests import ON_HOST, Hasher
from ratchet_trainer.storage import BucketError, Location

log = logging.getLogger(__name__)

T = TypeVar("T")
Shardings = Callable[[str, grid.Shape], Any]
"""Path and shape of an array -> where it belongs."""


AGAIN_SECONDS = 0.2
"""Arrays that could not be read are tried once more after this."""
DAMAGE = ("DATA_LOSS", "FAILED_PRECONDITION", "INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE")
"""What TensorStore says of objects in a bucket that are there, but not what was written."""


class Damaged(Exception):
    """A block is not what was written."""


@dataclass(frozen=True)
class OnHost:
    """What of an array was read to this host, and where it belongs. `sharding` None: whole, on the host."""

    shape: grid.Shape
    sharding: Any
    regions: Mapping[grid.Region, np.ndarray]

    def placed(self) -> Any:
        """The array, where it belongs."""
        if self.sharding is None:
            return self.regions[grid.whole(self.shape)]
        import jax

        def there(index: Any) -> np.ndarray:
            return self.regions[grid.of_index(index or (), self.shape)]

        return jax.make_array_from_callback(self.shape, self.sharding, there)


def arrays(reader: Reader, leaves: Mapping[str, Any], shardings: Shardings | None) -> dict[str, Any]:
    """The arrays of these `leaves` of digests.json: global ones, where `shardings` says; those of the host, and all
    without it, whole on the host. Raises Damaged, and what the storage raises."""
    return {path: on_host(reader, path, leaf, shardings).placed() for path, leaf in leaves.items()}


def on_host(reader: Reader, path: str, leaf: Mapping[str, Any], shardings: Shardings | None) -> OnHost:
    """What of an array this process's devices will hold. Raises as `arrays`."""
    shape = tuple(leaf["shape"])
    if shardings is None or path.startswith(ON_HOST):
        whole = grid.whole(shape)
        return OnHost(shape, None, {whole: _region(reader, path, leaf, whole)})
    sharding = shardings(path, shape)
    regions = parts.regions_here(sharding, shape)
    return OnHost(shape, sharding, {region: _region(reader, path, leaf, region) for region in regions})


def read_twice(folder: Location, read: Callable[[Reader], T], what: str) -> T | None:
    """What `read` makes of a folder of arrays, at the second try if need be; None (and a warning) for one that is
    damaged. Raises OSError where it is the storage."""
    for last in (False, True):
        try:
            return read(Reader(folder))
        except Exception as error:
            if isinstance(error, BucketError) and error.status not in DAMAGE:
                raise
            # A damaged file fails in as many ways as it has bytes; what fails twice cannot be trusted.
            log.warning("%s: the arrays in %s cannot be read: %s", what, folder, str(error)[:500])
            if not last:
                time.sleep(AGAIN_SECONDS)
    # Damaged, or is it the storage? TensorStore's errors do not tell; plain reads do.
    for name in storage.tree(folder):
        storage.read(folder / name)
    return None


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
