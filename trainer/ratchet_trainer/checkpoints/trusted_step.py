"""What the folder of a step holds, and what proves it.

    arrays/        the leaves, as an Orbax checkpoint of whole host arrays
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
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ratchet_api.canonical import canonical
from ratchet_trainer import storage
from ratchet_trainer.checkpoints import digests
from ratchet_trainer.errors import CheckpointUnreadable
from ratchet_trainer.storage import Location
from ratchet_trainer.storage.local_copy import local_copy
from ratchet_trainer.storage.posix import sync

log = logging.getLogger(__name__)

FORMAT = 2
AGAIN_SECONDS = 0.2
"""Arrays that could not be read are tried once more after this."""


@dataclass(frozen=True)
class Content:
    """One complete state on its way to or from the storage."""

    step: int
    arrays: Mapping[str, np.ndarray]
    control: Mapping[str, Any]
    lines: list[bytes]
    timings: list[bytes] = field(default_factory=list)
    sha256: Mapping[str, str] = field(default_factory=dict)  # path -> digest, known once read


def proof_of(
    content: Content,
    leaf_digests: Mapping[str, str],
    hashes: Mapping[str, str],
    offset: int,
    identity: Mapping[str, Any],
) -> bytes:
    """digests.json. `offset`: where the step's lines begin in the metric stream."""
    return canonical(
        {
            "v": FORMAT,
            "step": content.step,
            "leaves": leaf_digests,
            "control": hashlib.sha256(canonical(content.control)).hexdigest(),
            "metrics": {"sha256": hashlib.sha256(b"".join(content.lines)).hexdigest(), "offset": offset},
            **hashes,
            "identity": identity,
        }
    )


def write(folder: Location, content: Content, proof: bytes, writer: str = "write", durable: bool = True) -> None:
    """Writes the folder anew; once this returns it is durable. `writer`: threads that write at once have one each.

    Raises OSError, or what TensorStore makes of it.
    """
    storage.delete_tree(folder)  # what an earlier try left
    _write_arrays(folder / "arrays", content.arrays, writer, durable)
    files = {
        "control.json": canonical(content.control),
        "metrics.jsonl": b"".join(content.lines),
        "digests.json": proof,
    }
    storage.write_all(folder, files, durable=durable)


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
            f"{folder} has format {proof['v']}, written before the API's fields got their present names; this trainer "
            f"reads format {FORMAT}. Finish that job with the image that wrote it, or begin anew in another directory"
        )
    return proof


def read(folder: Location, step: int, proof: Mapping[str, Any]) -> Content | None:
    """The state with every digest recomputed, or None (and a warning that says what is wrong). Raises OSError."""
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
    arrays = _read_arrays(folder, step, list(proof["leaves"]))
    if arrays is None:
        # Damaged, or is it the storage? Orbax's errors do not tell; plain reads do.
        _read_all(folder / "arrays")
        return None
    found = digests.leaf_digests(arrays)
    if found != proof["leaves"]:
        wrong = [path for path in proof["leaves"] if found.get(path) != proof["leaves"][path]]
        log.warning(
            "step %d: %d leaves in %s do not have their digest, the first is %s", step, len(wrong), folder, wrong[0]
        )
        return None
    return Content(step, arrays, json.loads(control), lines.splitlines(keepends=True), sha256=found)


def _read_arrays(folder: Location, step: int, leaves: list[str]) -> dict[str, np.ndarray] | None:
    for last in (False, True):
        try:
            return _orbax("read").restore(local_copy(folder / "arrays").absolute(), leaves)
        except Exception as error:
            # A damaged file fails in as many ways as it has bytes; what fails twice cannot be trusted.
            log.warning("step %d: the arrays in %s cannot be read: %s", step, folder, str(error)[:500])
            if not last:
                time.sleep(AGAIN_SECONDS)
    return None


class _Orbax:
    """Orbax for whole host arrays by one process: no barriers, so a lost peer cannot hold a save up."""

    def __init__(self, prefix: str):
        import jax
        import orbax.checkpoint as ocp

        me = jax.process_index()
        options = ocp.options.MultiprocessingOptions(
            primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"{prefix}{me}"
        )
        self._ocp = ocp
        self._checkpointer = ocp.Checkpointer(
            ocp.PyTreeCheckpointHandler(use_ocdbt=True, use_zarr3=False, multiprocessing_options=options),
            multiprocessing_options=options,
        )

    def save(self, path: Path, arrays: dict[str, np.ndarray]) -> None:
        self._checkpointer.save(path, args=self._ocp.args.PyTreeSave(arrays))

    def restore(self, path: Path, leaves: list[str]) -> dict[str, np.ndarray]:
        whole = self._ocp.RestoreArgs(restore_type=np.ndarray)
        arguments = self._ocp.args.PyTreeRestore(restore_args=dict.fromkeys(leaves, whole))
        return {k: np.asarray(v) for k, v in self._checkpointer.restore(path, args=arguments).items()}


_instances: dict[str, _Orbax] = {}


def _orbax(name: str) -> _Orbax:
    # Made when first needed: importing Orbax takes a third of a second. What may run at once has one each.
    if name not in _instances:
        _instances[name] = _Orbax(name)
    return _instances[name]


def _write_arrays(folder: Location, arrays: Mapping[str, np.ndarray], writer: str, durable: bool) -> None:
    if folder.on_bucket:
        with tempfile.TemporaryDirectory() as temporary:
            _orbax(writer).save(Path(temporary) / "arrays", dict(arrays))
            made = Location.parse(Path(temporary) / "arrays")
            storage.write_all(folder, {name: storage.read(made / name) or b"" for name in storage.tree(made)})
        return
    path = folder.local.absolute()
    path.parent.mkdir(parents=True)
    _orbax(writer).save(path, dict(arrays))
    if durable:
        for parent, _, names in os.walk(path):
            for name in names:
                sync(os.path.join(parent, name))
            sync(parent)


def _read_all(folder: Location) -> None:
    for name in storage.tree(folder):
        storage.read(folder / name)
