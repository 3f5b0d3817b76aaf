"""How an array is cut: chunks, by which it is hashed, and blocks, in which it is stored.

Decides where the edges lie, from the shape alone for chunks: wherever and however an array is spread, its hash is made
of the same chunks. A sharding whose axes are powers of two and divide the sides cuts at their edges, up to
`MOST_CHUNKS` parts a side. Blocks are whole chunks; they are cut further only where a sharding is finer, so that each
block lies on one device and is written by one process.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

Shape = tuple[int, ...]
Region = tuple[tuple[int, int], ...]
"""(start, stop) of every side."""

CHUNK_ELEMENTS = 1024
"""No chunk is smaller, but for whole arrays that are: a hash of less costs more than its bytes do."""
MOST_CHUNKS = 64
"""Parts that a side is cut into at most: chips that one model is spread over on the largest slice, 8x8 or 4x4x4."""
BLOCK_ELEMENTS = 128 << 10
"""No block is smaller because of its shape: a file store reads half a mebibyte as fast as less."""
MOST_BLOCKS = 16
"""Parts of a side because of its shape: so many processes read each just what is theirs."""


def chunk_shape(shape: Shape) -> Shape:
    """Of the pieces that an array is hashed in."""
    return _halved(shape, CHUNK_ELEMENTS, MOST_CHUNKS)


def block_shape(shape: Shape, shard: Shape | None = None) -> Shape:
    """Of the pieces that an array is stored in; `shard` is the shape of a device's part of it."""
    block = _halved(shape, BLOCK_ELEMENTS, MOST_BLOCKS)
    return block if shard is None else tuple(map(math.gcd, block, shard))


def _halved(shape: Shape, smallest: int, most: int) -> Shape:
    """A side is halved, each time the longest that can be, while no piece gets smaller than `smallest`."""
    sides = list(shape)
    while math.prod(sides) >= 2 * smallest:
        able = [i for i, side in enumerate(sides) if side % 2 == 0 and shape[i] // side < most]
        if not able:
            break
        longest = max(able, key=lambda i: (sides[i], -i))
        sides[longest] //= 2
    return tuple(sides)


def fits(region: Region, piece: Shape) -> bool:
    """Whether a region consists of whole pieces."""
    return all(side == 0 or (a % side == 0 and b % side == 0) for (a, b), side in zip(region, piece, strict=True))


def counts(shape: Shape, piece: Shape) -> Shape:
    """Pieces along every side; one where a side has no length."""
    return tuple(side // part if part else 1 for side, part in zip(shape, piece, strict=True))


def whole(shape: Shape) -> Region:
    return tuple((0, side) for side in shape)


def of_index(index: Sequence[slice], shape: Shape) -> Region:
    """The region of a device, as JAX tells of it."""
    return tuple(one.indices(side)[:2] for one, side in zip(index, shape, strict=True))


def pieces(region: Region, shape: Shape, piece: Shape) -> Iterator[tuple[int, Region]]:
    """(number, region) of every piece that a region touches; numbers count all pieces of the array in C order."""
    along = counts(shape, piece)
    ranges = [
        range(a // part, max(a // part + 1, -(-b // part))) if part else range(1)
        for (a, b), part in zip(region, piece, strict=True)
    ]
    for place in itertools.product(*ranges):
        number = 0
        for one, count in zip(place, along, strict=True):
            number = number * count + one
        yield number, tuple((i * part, (i + 1) * part) for i, part in zip(place, piece, strict=True))


def key(number: int, shape: Shape, piece: Shape) -> str:
    """The name that Zarr gives to a piece, for example `3.0`."""
    names: list[str] = []
    for count in reversed(counts(shape, piece)):
        number, one = divmod(number, count)
        names.append(str(one))
    return ".".join(reversed(names)) or "0"
