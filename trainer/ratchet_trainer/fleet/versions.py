"""Versions of the weights that workers sample with, named by what they are.

    fleet/LINEAGE/versions/DIGEST/
        manifest.json    digests of all blocks, and which folder has them; a version is there when this is
        data-RANDOM/     the blocks, see checkpoints/array_store.py
    fleet/LINEAGE/damaged/DIGEST-MARK     a worker could not read it; MARK is that of the manifest it had

Decides that a version's name is the digest of its arrays, so whoever publishes the same weights again finds them there,
whichever attempt made them; that every try writes to a folder of its own, so nobody spoils what another one has
finished; and that no value is taken without its digest. Nothing here needs to outlive a machine: it is a cache.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ratchet_api.canonical import canonical, sha256
from ratchet_trainer import storage
from ratchet_trainer.checkpoints import array_reader, array_store, digests, parts
from ratchet_trainer.checkpoints.array_reader import OnHost, Shardings
from ratchet_trainer.fleet.retention import DAMAGED, MANIFEST, VERSIONS
from ratchet_trainer.storage import Location, with_retries

log = logging.getLogger(__name__)

V = 1
AT_ONCE = 4
"""Arrays that are hashed or read at the same time."""
Gather = Callable[[Any], list[Any]]
"""Plain JSON of every process in process order, on all of them."""


class Versions:
    """The versions of one lineage in a checkpoint directory.

    versions = Versions(root, lineage)
    digest = versions.publish(arrays, runtime.process, runtime.processes, runtime.gather)     # the trainer
    fetched = versions.fetch(digest, shardings).result()                                      # a worker
    arrays = fetched.placed() if fetched is not None else None
    """

    def __init__(self, root: Location, lineage: int):
        self._fleet = root / "fleet" / str(lineage)

    # The trainer's side

    def publish(
        self,
        arrays: Mapping[str, Any],
        process: int = 0,
        processes: int = 1,
        gather: Gather = lambda value: [value],
        *,
        again: bool = False,
    ) -> str:
        """Makes a version exist and returns its digest. *Collective.* `arrays`: path -> an array of JAX, or of the
        host, which is equal on all processes. `again`: although it is there, since a worker could not read it; one
        that is noted as damaged is written again in any case. Raises StorageUnavailable."""
        part = parts.host_part(arrays, process, processes)
        written = gather(_in_parallel(lambda path: digests.of_part({path: part[path]}), part))
        leaves = digests.of_leaves(part, written)
        digest = _digest(leaves)
        # Only what process 0 sees counts: the others might see another moment.
        if process == 0 and not again and self.is_there(digest):
            again = digest in self.damaged()
            data = f"data-{secrets.token_hex(8)}" if again else ""
        else:
            data = f"data-{secrets.token_hex(8)}"
        data = gather(data)[0]
        if not data:
            return digest
        folder = self._folder(digest) / data
        with_retries(f"writing version {digest[:12]} to {folder}", lambda: _write(folder, process, part))
        gather(None)
        if process == 0:
            manifest = canonical({"v": V, "data": data, "leaves": leaves})
            with_retries(
                f"writing version {digest[:12]} to {folder}",
                lambda: self._finish(digest, folder, range(processes), part, manifest, again),
            )
        gather(None)
        return digest

    def _finish(
        self, digest: str, folder: Location, processes: Iterable[int], part: parts.Part, manifest: bytes, again: bool
    ) -> None:
        storage.delete_tree(folder / "d")  # of a try before
        storage.delete(folder / "manifest.ocdbt")
        array_store.merge(folder, processes, part, durable=False)
        place = self._folder(digest) / MANIFEST
        if again:
            storage.write(place, manifest)
        elif not storage.create(place, manifest) and storage.read(place) != manifest:
            storage.delete_tree(folder)  # somebody else was quicker, with the same bits

    def is_there(self, digest: str) -> bool:
        """Whether a version was finished."""
        place = self._folder(digest) / MANIFEST
        return with_retries(f"looking for {place}", lambda: storage.exists(place))

    def damaged(self) -> set[str]:
        """Versions that a worker could not read as they are now: what was published again since then is not among
        them."""
        return with_retries(f"reading {self._fleet / DAMAGED}", self._damaged)

    def _damaged(self) -> set[str]:
        noted = (name.partition("-") for name in storage.names(self._fleet / DAMAGED))
        return {digest for digest, _, mark in noted if mark == self._mark(digest)}

    # A worker's side

    def fetch(self, digest: str, shardings: Shardings | None = None) -> Future[Fetched | None]:
        """Begins to read a version to the host's memory, by a thread that nobody waits for at the end. The future has
        what `read` returns."""
        future: Future[Fetched | None] = Future()

        def work() -> None:
            try:
                future.set_result(self.read(digest, shardings))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=work, name=f"version-{digest[:12]}", daemon=True).start()
        return future

    def read(self, digest: str, shardings: Shardings | None = None) -> Fetched | None:
        """What of a version this process's devices will hold, with every digest recomputed; without `shardings` all of
        it. None (and a warning) for one that is not there or is damaged. Raises StorageUnavailable."""
        return with_retries(f"reading version {digest[:12]}", lambda: self._read(digest, shardings))

    def _read(self, digest: str, shardings: Shardings | None) -> Fetched | None:
        folder = self._folder(digest)
        found = _parsed(digest, storage.read(folder / MANIFEST))
        if found is None:
            log.warning("version %s is not there, or its manifest is not the one that was written", folder)
            return None
        data, leaves = found

        def arrays(reader: array_store.Reader) -> dict[str, OnHost]:
            return _in_parallel(
                lambda path: {path: array_reader.on_host(reader, path, leaves[path], shardings)}, leaves
            )

        held = array_reader.read_twice(folder / data, arrays, f"version {digest[:12]}")
        return None if held is None else Fetched(held)

    def load(self, digest: str, shardings: Shardings | None = None) -> dict[str, Any] | None:
        """`read`, with the arrays where they belong."""
        fetched = self.read(digest, shardings)
        return None if fetched is None else fetched.placed()

    def note_damaged(self, digest: str, worker: str) -> None:
        """Tells the trainer that a version could not be read. Raises StorageUnavailable."""

        def note() -> None:
            storage.create(self._fleet / DAMAGED / f"{digest}-{self._mark(digest)}", worker.encode())

        with_retries(f"noting that version {digest[:12]} is damaged", note)

    # Both

    def _mark(self, digest: str) -> str:
        return hashlib.sha256(storage.read(self._folder(digest) / MANIFEST) or b"").hexdigest()[:16]

    def _folder(self, digest: str) -> Location:
        return self._fleet / VERSIONS / digest


@dataclass(frozen=True)
class Fetched:
    """A version in the host's memory."""

    held: Mapping[str, OnHost]

    def placed(self) -> dict[str, Any]:
        """Its arrays, where they belong."""
        return {path: one.placed() for path, one in self.held.items()}


def _write(folder: Location, process: int, part: parts.Part) -> None:
    storage.delete_tree(array_store.part_folder(folder, process))  # of a try before
    array_store.write(folder, process, part, durable=False)


def _parsed(digest: str, manifest: bytes | None) -> tuple[str, dict[str, Any]] | None:
    """The folder and the leaves of a manifest; None for one that is not there, or not of this version."""
    try:
        said = json.loads(manifest or b"")
        data, leaves = said["data"], said["leaves"]
        whole = all(leaf["digest"] == digests.combined(leaf["blocks"]) for leaf in leaves.values())
        known = said["v"] == V and isinstance(data, str) and "/" not in data
        return (data, leaves) if known and whole and _digest(leaves) == digest else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _digest(leaves: Mapping[str, Any]) -> str:
    """Of arrays, however they were cut into blocks: type and shape are in each one's own digest."""
    return sha256({path: leaf["digest"] for path, leaf in leaves.items()})


def _in_parallel(function: Callable[[str], Mapping[str, Any]], paths: Iterable[str]) -> dict[str, Any]:
    """What a function says of each path, in one mapping. Hashing and reading let other threads run."""
    found: dict[str, Any] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for one in pool.map(function, paths):
            found |= one
    return found
