"""The compilation cache: compiled programs that are whole and right, or absent.

JAX's own cache writes an entry in place and never over one that is there: one cut short by a kill makes every later
start compile that program again. It proves none either (zlib has a checksum of 32 bits, zstd as JAX calls it has none),
and a program that was changed by a bad disk would compute wrong numbers without a sign.

So the entries are kept here: each is a file or an object with the SHA-256 of key and content before the content, which
appears whole. One that cannot be read or does not have its digest is as good as absent; what is compiled in its
stead replaces it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ratchet_trainer import storage
from ratchet_trainer.storage import Location

log = logging.getLogger(__name__)

DIGEST_BYTES = 32
LEFT_OVER_SECONDS = 3600.0
"""Unfinished files that are older are those of processes that were killed."""


class ProgramCache:
    """What JAX asks of a cache: `get`, `put` and the attribute `_path`. Raises OSError, which JAX warns of."""

    def __init__(self, folder: Location | Path, kind: str = "program"):
        """`kind`: the ending of the files' names."""
        self.folder = Location.parse(folder)
        self._path = str(self.folder)
        self._kind = kind
        self._swept = False
        self._asked = threading.local()

    @contextlib.contextmanager
    def watched(self) -> Iterator[list[str]]:
        """The keys that this thread asks for meanwhile."""
        keys: list[str] = []
        self._asked.keys = keys
        try:
            yield keys
        finally:
            del self._asked.keys

    def get(self, key: str) -> bytes | None:
        """The content of an entry, None if there is none that is whole."""
        if (asked := getattr(self._asked, "keys", None)) is not None:
            asked.append(key)
        data = storage.read(self._file(key))
        if data is None:
            return None
        digest, content = data[:DIGEST_BYTES], data[DIGEST_BYTES:]
        if digest != _digest(key, content):
            log.warning("%s is damaged and will be replaced", self._file(key))
            return None
        return content

    def put(self, key: str, value: bytes) -> None:
        """Makes an entry, in place of one that could not be used."""
        self._sweep()
        storage.write(self._file(key), _digest(key, value) + value, durable=False)

    def _file(self, key: str) -> Location:
        return self.folder / f"{key}.{self._kind}"

    def _sweep(self) -> None:
        if self._swept or self.folder.on_bucket:
            return
        self._swept = True
        for left_over in self.folder.local.glob(".*.tmp"):
            with contextlib.suppress(OSError):
                if time.time() - left_over.stat().st_mtime > LEFT_OVER_SECONDS:
                    left_over.unlink()


def use(folder: Location | Path) -> ProgramCache:
    """Lets JAX keep its compiled programs in `folder`. To be called before anything is compiled."""
    import jax
    from jax._src import compilation_cache

    cache = ProgramCache(folder)
    # JAX has no setting for the kind of its cache; both 0.10 and 0.12 make it by this function.
    # The cache is none of JAX's class: that one would have to be imported before JAX is set up.
    compilation_cache.get_file_cache = lambda path: (cache, path)  # type: ignore[assignment, return-value]
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # XLA's own caches, for GPUs, would lie below the folder: before JAX 0.12 its name was then part of every key, and
    # what `ratchet fit --write-cache` has written was not found where it was put.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    return cache


def _digest(key: str, content: bytes) -> bytes:
    digest = hashlib.sha256(key.encode() + b"\0")
    digest.update(content)
    return digest.digest()
