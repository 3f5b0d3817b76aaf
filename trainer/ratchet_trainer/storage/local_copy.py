"""What must be read as files, copied from a bucket to the machine's own disk: the tensors of a model are memory-mapped,
tables are opened by libraries.

Decides where copies lie, when one is still good (the object has the generation that was copied), and that the processes
of a machine share it. A path is used as it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path

from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.storage import bucket, objects
from ratchet_trainer.storage.location import Location
from ratchet_trainer.storage.retries import with_retries

log = logging.getLogger(__name__)

ENV_FOLDER = "RATCHET_COPIES"
"""Where copies are made, instead of `ratchet-copies-UID` in the folder for temporary files."""
GENERATIONS = "generations.json"
AT_ONCE = 4
"""Pieces that are read at once; so many are in memory."""


def local_copy(place: str | Path | Location, what: str = "") -> Path:
    """The path of a file or folder on this machine; of a bucket's, a copy. `what`: where it is named, for errors.

    Raises ConfigurationInvalid where there is nothing, StorageUnavailable.
    """
    place = Location.parse(place, what)
    if not place.on_bucket:
        return place.local
    copy = with_retries(f"copying {place}", lambda: _copied(place, f"{what}: " if what else ""))
    _sources[str(copy)] = str(place)
    return copy


_sources: dict[str, str] = {}


def at_its_source(text: str) -> str:
    """A text in which copies are named by what they are copies of: nobody can mend a copy."""
    for copy, source in sorted(_sources.items(), reverse=True):
        text = text.replace(copy, source)
    return text


def _copied(place: Location, about: str) -> Path:
    folder = _root() / hashlib.sha256(str(place).encode()).hexdigest()[:16]
    target = folder / (place.name or place.bucket)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = {name: bucket.generation(place / name) for name in objects.tree(place)}
        if not found:
            found = {"": bucket.generation(place)}
        known = _known(folder)
        for name, generation in found.items():
            if generation is None:
                raise ConfigurationInvalid(f"{about}{place} has nothing in it; is it the right bucket and name?")
            if known.get(name) == generation.hex() and (target / name).is_file():
                continue
            _fetch(place / name if name else place, target / name if name else target)
            known[name] = generation.hex()
            _note(folder, known)
        for name in known.keys() - found.keys():
            (target / name).unlink(missing_ok=True)
        _note(folder, {name: known[name] for name in found})
    return target


def _fetch(place: Location, target: Path) -> None:
    log.info("%s is copied to %s", place, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    first = None
    with open(temporary, "wb") as file:
        for piece, generation in _pieces(place):
            if first is not None and generation != first:
                raise OSError(f"{place} was replaced while it was read")
            first = generation
            file.write(piece)
    assert first is not None, "an empty object has a piece, too"
    # The same object has the same time on every machine, so what was found out about it is found again.
    stamp = int.from_bytes(hashlib.sha256(first).digest()[:4], "big") * 1_000_000_000
    os.utime(temporary, ns=(stamp, stamp))
    os.replace(temporary, target)


def _pieces(place: Location) -> Iterator[tuple[bytes, bytes]]:
    """The pieces of an object in order, each with its generation. Several are on their way at once: one connection to
    a bucket is slower than a machine's network, and every restart on a new machine waits for this."""
    piece, generation = bucket.read_piece(place, 0)
    yield piece, generation
    with ThreadPoolExecutor(AT_ONCE) as pool:
        begins = count(bucket.PIECE, bucket.PIECE)
        asked: deque[Future[tuple[bytes, bytes]]] = deque()
        while len(piece) == bucket.PIECE:
            while len(asked) < AT_ONCE:
                asked.append(pool.submit(bucket.read_piece, place, next(begins)))
            piece, generation = asked.popleft().result()
            yield piece, generation


def _root() -> Path:
    given = os.environ.get(ENV_FOLDER)
    return Path(given) if given else Path(tempfile.gettempdir()) / f"ratchet-copies-{os.getuid()}"


def _known(folder: Path) -> dict[str, str]:
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads((folder / GENERATIONS).read_bytes()))
    return {}


def _note(folder: Path, known: dict[str, str]) -> None:
    objects.write(Location.parse(folder / GENERATIONS), json.dumps(known).encode(), durable=False)
