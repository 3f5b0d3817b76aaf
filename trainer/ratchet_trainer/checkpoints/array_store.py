"""Arrays on the storage, in the layout of an Orbax checkpoint (OCDBT, Zarr 2), written by all processes of a gang.

    ocdbt.process_N/    what process N wrote: a database of its own, each block a value named PATH/BLOCK
    manifest.ocdbt, d/  the database of all, made by process 0 once all have written: it names values where they lie
    _METADATA           the tree, for Orbax

Decides bytes and names; any Orbax checkpointer opens the folder. Orbax itself writes such folders, too, but with
barriers among processes that outlast a dead one, and on a bucket it wants a library for its small files; here the
processes meet where they agree anyway (`process.durable_state`). Which blocks there are is `parts.py`'s matter, whether
a folder counts the journal's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ratchet_trainer import storage
from ratchet_trainer.checkpoints import grid
from ratchet_trainer.checkpoints.parts import LeafPart, Part
from ratchet_trainer.storage import Location, bucket

BATCH_BYTES = 32 << 20
"""Written, or read, at once: what is held besides the blocks themselves."""
_CONFIG = {
    # Block contents are never inline, descriptions of arrays are.
    "max_inline_value_bytes": 1024,
    "max_decoded_node_bytes": 100_000_000,
    "manifest_kind": "single",
}
_LISTED = 64 << 20
"""More bytes than the names of all blocks have."""
DICT_KEY = 2
"""Orbax's mark for a key of a dict in `_METADATA`."""


def write(folder: Location, process: int, part: Part, durable: bool = True) -> None:
    """Writes the blocks that are this process's into a database of its own. Raises OSError, or what TensorStore makes
    of it."""
    import tensorstore as ts

    place = part_folder(folder, process)
    store = _open(place, writes=True, durable=durable)
    for batch in _batches(part):
        transaction = ts.Transaction()
        inside = store.with_transaction(transaction)
        for name, block in batch:
            _ended(place, inside.write(name, block.tobytes()))
        _ended(place, transaction.commit_async(), sum(block.nbytes for _, block in batch))


def merge(folder: Location, processes: Iterable[int], part: Part, durable: bool = True) -> None:
    """Makes one database of those of all processes, without copying a block. `part` tells types and shapes. Raises
    OSError, or what TensorStore makes of it."""
    import tensorstore as ts

    transaction = ts.Transaction(atomic=True)
    whole = _open(folder, writes=True, durable=durable).with_transaction(transaction)
    for process in processes:
        place = part_folder(folder, process)
        _ended(place, _open(place, durable=durable).experimental_copy_range_to(whole), _LISTED)
    for path, leaf in part.items():
        _ended(folder, whole.write(f"{_name(path)}/.zarray", _described(leaf)))
    _ended(folder, transaction.commit_async(), _LISTED)


def metadata(paths: Iterable[str]) -> bytes:
    """`_METADATA`: every array's place in a tree of dicts, as Orbax reads it."""
    return json.dumps(
        {
            "tree_metadata": {
                str(tuple(path.split("/"))): {
                    "key_metadata": [{"key": key, "key_type": DICT_KEY} for key in path.split("/")],
                    "value_metadata": {"value_type": "np.ndarray", "skip_deserialize": False},
                }
                for path in paths
            },
            "use_ocdbt": True,
            "use_zarr3": False,
            "store_array_data_equal_to_fill_value": True,
            "custom_metadata": None,
        }
    ).encode()


class Reader:
    """Blocks of the arrays in a folder."""

    def __init__(self, folder: Location):
        self._folder, self._store = folder, _open(folder)

    def blocks(
        self, path: str, shape: grid.Shape, block: grid.Shape, numbers: Iterable[int]
    ) -> Iterator[tuple[int, bytes]]:
        """(number, bytes) in the order of the numbers. Raises ValueError for one that is not there, and what
        TensorStore makes of what it finds; BucketError."""
        for batch in _cut(numbers, 64):
            reads = [self._store.read(f"{_name(path)}/{grid.key(number, shape, block)}") for number in batch]
            for number, read in zip(batch, reads, strict=True):
                found = _ended(self._folder, read, BATCH_BYTES)
                if found.state != "value":
                    raise ValueError(f"block {number} of {path} is not there")
                yield number, found.value


def part_folder(folder: Location, process: int) -> Location:
    return folder / f"ocdbt.process_{process}"


def _open(folder: Location, writes: bool = False, durable: bool = True) -> Any:
    import tensorstore as ts  # when first needed: it takes a while, and most commands that read a run do without

    spec: dict[str, Any] = {"driver": "ocdbt", "base": storage.kvstore_spec(folder)}
    if folder.on_bucket:  # neighbours are read by one request
        spec |= {
            "experimental_read_coalescing_threshold_bytes": 1 << 20,
            "experimental_read_coalescing_interval": "1ms",
        }
    if writes:
        spec |= {"config": _CONFIG, "assume_config": True}
    # Databases can be merged where they share a context.
    return _ended(folder, ts.KvStore.open(spec, context=bucket.context(durable)))


def _ended(place: Location, future: Any, size: int = 0) -> Any:
    """What an operation of TensorStore came to; on a bucket after a bounded wait, with its errors as BucketError."""
    return bucket.wait(place, future, size) if place.on_bucket else future.result()


def _batches(part: Part) -> Iterator[list[tuple[str, np.ndarray]]]:
    batch: list[tuple[str, np.ndarray]] = []
    size = 0
    for path, leaf in part.items():
        for number in sorted(leaf.mine):
            if (block := leaf.blocks[number]).size == 0:
                continue
            batch.append((f"{_name(path)}/{grid.key(number, leaf.shape, leaf.block)}", block))
            size += block.nbytes
            if size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _cut(numbers: Iterable[int], size: int) -> Iterator[list[int]]:
    listed = list(numbers)
    for start in range(0, len(listed), size):
        yield listed[start : start + size]


def _name(path: str) -> str:
    """An array's name as Orbax makes it of the keys to it."""
    return path.replace("/", ".")


def _described(leaf: LeafPart) -> bytes:
    """Zarr's description of an array."""
    plain = np.dtype(leaf.dtype)
    return json.dumps(
        {
            "zarr_format": 2,
            "shape": list(leaf.shape),
            "chunks": [max(1, side) for side in leaf.block],
            "dtype": plain.name if plain.kind == "V" else plain.newbyteorder("<").str,
            "compressor": None,
            "filters": None,
            "fill_value": None,
            "order": "C",
            "dimension_separator": ".",
        }
    ).encode()
