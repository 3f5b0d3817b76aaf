"""What proves that arrays are the ones that were written, wherever their parts lay.

Decides the digests and the two hashes that runs are compared by. Orbax alone is not enough: single flipped bits in its
files restore silently wrong. Every chunk of an array (`grid.chunk_shape`) is hashed with the array's path, type and
shape and its own place; the digest of any whole number of chunks, a stored block or the whole array, is the sum of
these hashes modulo 2^256. A sum does not ask in which order or by whom its parts were made, so each process adds up
what is its own, and the digest of an array depends on no topology. (Sums of hashes can be forged with patience; what
they are to find is damage, and the sums themselves stand in a file whose SHA-256 is journalled.)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ratchet_api.canonical import canonical
from ratchet_trainer.checkpoints import grid
from ratchet_trainer.checkpoints.parts import Part

WEIGHTS = "params/"
"""Paths of the policy's parameters begin so."""
PENDING = "pending/"
ON_HOST = (PENDING, "selection/", "expansion/")
"""So do those of a step in the middle of its updates: arrays that stay on the host."""
BlockDigests = dict[str, list[list[Any]]]
"""path -> [number, digest] of blocks, as JSON has it."""
_MODULUS = 1 << 256


class Hasher:
    """Digests of parts of one array."""

    def __init__(self, path: str, dtype: np.dtype[Any], shape: grid.Shape):
        self._shape, self._chunk = shape, grid.chunk_shape(shape)
        self._base = hashlib.sha256(canonical([path, dtype.name, list(shape)]))

    def part(self, values: np.ndarray, region: grid.Region) -> str:
        """Hex digest of the values of a region that consists of whole chunks."""
        total = 0
        chunks = _by_chunk(values, self._chunk)
        step = chunks.nbytes // chunks.shape[0]
        data = chunks.reshape(-1).view(np.uint8).data if chunks.size else memoryview(b"")
        for i, (number, _) in enumerate(grid.pieces(region, self._shape, self._chunk)):
            one = self._base.copy()
            one.update(number.to_bytes(8, "little"))
            one.update(data[i * step : (i + 1) * step])
            total += int.from_bytes(one.digest(), "little")
        return _hex(total)


def _by_chunk(values: np.ndarray, chunk: grid.Shape) -> np.ndarray:
    """[chunks in C order, chunk...], little-endian and contiguous."""
    if values.dtype.byteorder == ">":
        values = values.astype(values.dtype.newbyteorder("<"))
    along = grid.counts(values.shape, chunk)
    n = len(chunk)
    split = values.reshape([size for pair in zip(along, chunk, strict=True) for size in pair])
    turned = split.transpose([*range(0, 2 * n, 2), *range(1, 2 * n, 2)])
    return np.ascontiguousarray(turned.reshape([int(np.prod(along, dtype=np.int64)), *chunk]))


def leaf_digest(path: str, leaf: np.ndarray) -> str:
    """Of a whole array on this host."""
    return Hasher(path, leaf.dtype, leaf.shape).part(leaf, grid.whole(leaf.shape))


def combined(parts: Iterable[str]) -> str:
    """The digest of an array, of those of its parts."""
    return _hex(sum(int(part, 16) for part in parts))


def weights_sha256(digests: Mapping[str, str]) -> str:
    """`weightsSha256`: SHA-256 of the sorted digests of the parameters."""
    return _listed(sorted(d for path, d in digests.items() if path.startswith(WEIGHTS)))


def state_sha256(digests: Mapping[str, str], control: Mapping[str, Any]) -> str:
    """`stateSha256`: SHA-256 of the sorted digests of all leaves and of the control values.

    Identity, attempt, lineage and times are no part of `control`, so equal runs have equal hashes on any schedule of
    kills.
    """
    return _listed([*sorted(digests.values()), hashlib.sha256(canonical(control)).hexdigest()])


def _listed(digests: list[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _hex(total: int) -> str:
    return f"{total % _MODULUS:064x}"


def of_part(part: Part) -> BlockDigests:
    """Digests of the blocks that a process writes."""
    found: BlockDigests = {}
    for path, leaf in part.items():
        hasher = Hasher(path, leaf.dtype, leaf.shape)
        regions = dict(grid.pieces(grid.whole(leaf.shape), leaf.shape, leaf.block))
        found[path] = [[number, hasher.part(leaf.blocks[number], regions[number])] for number in sorted(leaf.mine)]
    return found


def of_leaves(part: Part, processes: Iterable[BlockDigests]) -> dict[str, dict[str, Any]]:
    """What digests.json says of every array, sorted by path: type, shape, shape and digests of its blocks, and its own
    digest, put together from what all `processes` have written. Raises ValueError for a block that nobody wrote, or
    two did."""
    gathered: dict[str, dict[int, str]] = {path: {} for path in sorted(part)}
    for one in processes:
        for path, found in one.items():
            for number, digest in found:
                if gathered[path].setdefault(number, digest) is not digest:
                    raise ValueError(f"block {number} of {path} was written twice")
    leaves = {}
    for path, blocks in gathered.items():
        leaf = part[path]
        if len(blocks) != math.prod(grid.counts(leaf.shape, leaf.block)):
            raise ValueError(f"{path}: {len(blocks)} blocks of {grid.counts(leaf.shape, leaf.block)} were written")
        listed = [blocks[number] for number in sorted(blocks)]
        leaves[path] = {
            "dtype": leaf.dtype.name,
            "shape": list(leaf.shape),
            "block": list(leaf.block),
            "blocks": listed,
            "digest": combined(listed),
        }
    return leaves
