"""How arrays are cut: the same chunks on every topology, blocks of whole chunks, nothing left out and nothing twice."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from ratchet_trainer.checkpoints import digests, grid

SIDES = (64, 100, 259, 576, 1536, 2048, 2560, 4096, 5632, 11_008, 32_000, 151_936)
AXES = [2**n for n in range(7)]


def shapes_of_models() -> list[tuple[int, int]]:
    return list(itertools.product(SIDES, SIDES))


def test_a_large_matrix_is_cut_at_chunks_by_every_mesh_of_a_slice() -> None:
    """Up to 64 chips, whichever way round fsdp and tensor lie; an axis that does not divide a side leaves it whole."""
    for shape in shapes_of_models():
        if math.prod(shape) < grid.MOST_CHUNKS**2 * grid.CHUNK_ELEMENTS:
            continue
        chunk = grid.chunk_shape(shape)
        for fsdp, tensor in itertools.product(AXES, AXES):
            if fsdp * tensor > 64:
                continue
            shard = [
                side // axis if side % axis == 0 else side for side, axis in zip(shape, (fsdp, tensor), strict=True)
            ]
            assert all(a % b == 0 for a, b in zip(shard, chunk, strict=True)), (shape, fsdp, tensor, chunk)


@pytest.mark.parametrize(
    "shape", [(), (5,), (259,), (0,), (3, 0), (17, 9), (64, 64), (2048, 5632), (16, 8, 1024), (3**9,)]
)
def test_chunks_and_blocks_tile_an_array(shape: tuple[int, ...]) -> None:
    chunk, block = grid.chunk_shape(shape), grid.block_shape(shape)
    for piece in (chunk, block):
        assert all(side % part == 0 for side, part in zip(shape, piece, strict=True) if side)
        found = list(grid.pieces(grid.whole(shape), shape, piece))
        assert [number for number, _ in found] == list(range(math.prod(grid.counts(shape, piece))))
        assert sum(math.prod(b - a for a, b in region) for _, region in found) == math.prod(shape)
        assert len({grid.key(number, shape, piece) for number, _ in found}) == len(found)
    assert all(grid.fits(region, chunk) for _, region in grid.pieces(grid.whole(shape), shape, block))


def test_pieces_are_small_enough_to_share_and_large_enough_to_pay() -> None:
    for shape in shapes_of_models():
        chunk, block = grid.chunk_shape(shape), grid.block_shape(shape)
        assert math.prod(chunk) >= grid.CHUNK_ELEMENTS
        assert math.prod(block) >= min(math.prod(shape), grid.BLOCK_ELEMENTS)
        assert math.prod(grid.counts(shape, chunk)) <= grid.MOST_CHUNKS**2
        assert math.prod(grid.counts(shape, block)) <= grid.MOST_BLOCKS**2
    assert grid.block_shape((2048, 5632), (32, 5632))[0] == 32, "a block lies on one device"


def test_a_region_touches_the_pieces_that_it_overlaps() -> None:
    shape, block = (8, 12), (4, 3)
    touched = dict(grid.pieces(((2, 6), (3, 7)), shape, block))
    assert touched == {
        1: ((0, 4), (3, 6)),
        2: ((0, 4), (6, 9)),
        5: ((4, 8), (3, 6)),
        6: ((4, 8), (6, 9)),
    }


@pytest.mark.parametrize("shape", [(), (7,), (3, 0), (40, 30), (512, 1024), (4, 64, 256)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool"])
def test_the_digest_of_an_array_is_that_of_its_parts_however_it_is_cut(shape: tuple[int, ...], dtype: str) -> None:
    values = np.random.default_rng(0).integers(0, 2, shape).astype(np.dtype(dtype))
    whole = digests.leaf_digest("params/a", values)
    for block in (grid.chunk_shape(shape), grid.block_shape(shape), shape):
        hasher = digests.Hasher("params/a", values.dtype, shape)
        found = [
            hasher.part(values[tuple(slice(a, b) for a, b in region)], region)
            for _, region in grid.pieces(grid.whole(shape), shape, block)
        ]
        assert digests.combined(reversed(found)) == whole, block


def test_chunks_that_change_places_change_the_digest() -> None:
    values = np.arange(512 * 1024, dtype=np.float32).reshape(512, 1024)
    rows = grid.chunk_shape(values.shape)[0]
    swapped = values.copy()
    swapped[:rows], swapped[rows : 2 * rows] = values[rows : 2 * rows], values[:rows]
    assert digests.leaf_digest("params/a", swapped) != digests.leaf_digest("params/a", values)
    moved = np.roll(values, rows, axis=0)
    assert digests.leaf_digest("params/a", moved) != digests.leaf_digest("params/a", values)


def test_a_block_that_nobody_wrote_or_two_did_is_no_array() -> None:
    from ratchet_trainer.checkpoints import parts

    part = parts.host_part({"params/a": np.zeros((512, 1024), np.float32)})
    found = digests.of_part(part)
    assert digests.of_leaves(part, [found])["params/a"]["digest"] == digests.leaf_digest(
        "params/a", np.zeros((512, 1024), np.float32)
    )
    with pytest.raises(ValueError, match="written twice"):
        digests.of_leaves(part, [found, digests.of_part(part)])
    with pytest.raises(ValueError, match="3 blocks of"):
        digests.of_leaves(part, [{"params/a": found["params/a"][:3]}])
