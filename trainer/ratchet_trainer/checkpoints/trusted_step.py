"""What the folder of a step holds, and what proves it.

    arrays/        the arrays, as an Orbax checkpoint; see array_store.py
    control.json   everything else of the state, canonical JSON
    metrics.jsonl  metric lines of the steps since the commit before
    digests.json   what proves the three above; its own SHA-256 stands in the journal

Decides the format, and that nothing is taken from a folder whose digests do not hold. Which folders count is
`checkpoint.py`'s matter, which copies of them there are is `fast_tier.py`'s.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ratchet_api.canonical import canonical
from ratchet_trainer import storage
from ratchet_trainer.checkpoints import array_reader, array_store, digests
from ratchet_trainer.checkpoints.array_reader import Shardings
from ratchet_trainer.checkpoints.parts import Part
from ratchet_trainer.errors import CheckpointUnreadable
from ratchet_trainer.storage import Location
from ratchet_trainer.storage.posix import sync

log = logging.getLogger(__name__)

FORMAT = 3


@dataclass(frozen=True)
class Content:
    """One complete state on its way to or from the storage. `arrays`: path -> what this process has of an array
    (`parts.LeafPart`) on the way there, path -> array on the way back."""

    step: int
    arrays: Mapping[str, Any]
    control: Mapping[str, Any]
    lines: list[bytes]
    timings: list[bytes] = field(default_factory=list)


def proof_of(content: Content, leaves: Mapping[str, Any], offset: int, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The content of digests.json. `leaves`: see `digests.of_leaves`; `offset`: where the step's lines begin in the
    metric stream."""
    own = {path: leaf["digest"] for path, leaf in leaves.items()}
    return {
        "v": FORMAT,
        "step": content.step,
        "leaves": leaves,
        "control": hashlib.sha256(canonical(content.control)).hexdigest(),
        "metrics": {"sha256": hashlib.sha256(b"".join(content.lines)).hexdigest(), "offset": offset},
        "weightsSha256": digests.weights_sha256(own),
        "stateSha256": digests.state_sha256(own, content.control),
        "identity": identity,
    }


def begin(folder: Location) -> None:
    """Clears the place of a step, before any process writes to it. Raises OSError."""
    storage.delete_tree(folder)  # what an earlier try left
    if not folder.on_bucket:
        (folder / "arrays").local.mkdir(parents=True)


def write_part(folder: Location, process: int, part: Part, durable: bool = True) -> None:
    """Writes what one process writes of the arrays. Raises OSError, or what TensorStore makes of it."""
    place = array_store.part_folder(folder / "arrays", process)
    storage.delete_tree(place)
    array_store.write(folder / "arrays", process, part, durable)
    if durable:
        _sync_folders(place)


def finish(folder: Location, content: Content, proof: bytes, processes: Iterable[int], durable: bool = True) -> None:
    """Writes what is there once, after every process has written its part; once this returns the folder is durable.
    Raises OSError, or what TensorStore makes of it."""
    arrays = folder / "arrays"
    storage.delete_tree(arrays / "d")
    storage.delete(arrays / "manifest.ocdbt")
    array_store.merge(arrays, processes, content.arrays, durable)
    storage.write_all(arrays, {"_METADATA": array_store.metadata(content.arrays)}, durable=durable)
    if durable:
        _sync_folders(arrays)
    files = {
        "control.json": canonical(content.control),
        "metrics.jsonl": b"".join(content.lines),
        "digests.json": proof,
    }
    storage.write_all(folder, files, durable=durable)


def _sync_folders(folder: Location) -> None:
    """Makes durable that the files are there which TensorStore has written, and synced, under a folder."""
    if not folder.on_bucket:  # there everything is
        for parent, _, _ in os.walk(folder.local):
            sync(parent)


def read_proof(folder: Location, step: int, sha256: str) -> dict[str, Any] | None:
    """The content of digests.json if it is the one that was journalled, else None (and a warning). Raises OSError, and
    CheckpointUnreadable for a format that is newer or older."""
    data = storage.read(folder / "digests.json")
    if data is None or hashlib.sha256(data).hexdigest() != sha256:
        log.warning("step %d: %s is not the digests.json that was journalled", step, folder / "digests.json")
        return None
    proof: dict[str, Any] = json.loads(data)
    if proof["v"] > FORMAT:
        raise CheckpointUnreadable(
            f"{folder} has format {proof['v']}, this trainer knows up to {FORMAT}; "
            "use the image that wrote it or a newer one"
        )
    if proof["v"] < FORMAT:
        raise CheckpointUnreadable(
            f"{folder} has format {proof['v']}, written when one process wrote whole arrays; this trainer "
            f"reads format {FORMAT}. Finish that job with the image that wrote it, or begin anew in another directory"
        )
    return proof


def read(
    folder: Location,
    step: int,
    proof: Mapping[str, Any],
    shardings: Shardings | None = None,
    wanted: str = "",
) -> Content | None:
    """The state, with the digest recomputed of everything that was read, or None (and a warning that says what is
    wrong). `shardings`: where arrays belong, of which only this process's part is read; without, whole ones come on the
    host. `wanted`: how the paths begin of those that are read. Raises OSError."""
    control, lines = storage.read(folder / "control.json"), storage.read(folder / "metrics.jsonl")
    for name, data, expected in (
        ("control.json", control, proof["control"]),
        ("metrics.jsonl", lines, proof["metrics"]["sha256"]),
    ):
        if data is None or hashlib.sha256(data).hexdigest() != expected:
            log.warning("step %d: %s does not have its digest", step, folder / name)
            return None
    assert control is not None
    assert lines is not None
    leaves = {path: leaf for path, leaf in proof["leaves"].items() if path.startswith(wanted)}
    arrays = array_reader.read_twice(
        folder / "arrays", lambda reader: array_reader.arrays(reader, leaves, shardings), f"step {step}"
    )
    if arrays is None:
        return None
    return Content(step, arrays, json.loads(control), lines.splitlines(keepends=True))
