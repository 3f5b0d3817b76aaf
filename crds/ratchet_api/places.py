"""Whether the places of a manifest can be meant: buckets, prefixes and paths of checkpoints, models, data and exports.

Decides how a place must be written. Whether there is anything is found out by the trainer, whose
`ratchet_trainer/storage/location.py` reads places; whether a claim can be mounted is the operator's to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ratchet_api.job import Spec

SCHEMES = ("gs", "s3")
SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):/(/?)")
BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
WRITTEN = "write a path, gs://BUCKET/PREFIX or s3://BUCKET/PREFIX"


def impossible_places(spec: Spec) -> Iterator[tuple[str, str]]:
    """Path and message of each place that cannot be meant."""
    places = [("spec.checkpoint.directory", spec.checkpoint.directory, True)]
    if spec.checkpoint.local_directory is not None:
        places.append(("spec.checkpoint.localDirectory", spec.checkpoint.local_directory, False))
    if spec.model.path is not None:
        places.append(("spec.model.path", spec.model.path, False))
    if spec.export is not None:
        places.append(("spec.export.directory", spec.export.directory, False))
    board = spec.trackers.tensor_board if spec.trackers is not None else None
    if board is not None and board.directory is not None:
        places.append(("spec.trackers.tensorBoard.directory", board.directory, False))
    for i, dataset in enumerate(spec.datasets):
        if dataset.file is not None:
            places.append((f"spec.datasets[{i}].{dataset.kind}.path", dataset.file.path, False))
    for path, place, below in places:
        if (message := _impossible(place, below=below)) is not None:
            yield path, message


def _impossible(place: str, *, below: bool) -> str | None:
    """What is wrong with a place; `below`: in a bucket it needs a prefix."""
    if not place.isprintable() or place != place.strip():
        return f"{place!r} has blanks around it or control characters; {WRITTEN}, without them"
    if (found := SCHEME.match(place)) is None:
        return None
    scheme, (bucket, _, prefix) = found[1], place[found.end() :].partition("/")
    if scheme not in SCHEMES:
        meant = {"gcs": "gs"}.get(scheme.lower(), scheme.lower())
        return f"{scheme}: is not known; " + (f"write {meant}://BUCKET/PREFIX" if meant in SCHEMES else WRITTEN)
    if not found[2]:
        return f"one / is missing after {scheme}:/; write {scheme}://BUCKET/PREFIX"
    if not BUCKET.fullmatch(bucket):
        return f"{bucket!r} is no bucket's name; write {scheme}://BUCKET/PREFIX"
    if not prefix.strip("/"):
        return f"a prefix of the job's own is missing; write {scheme}://{bucket}/PREFIX" if below else None
    if any(part in ("", ".", "..") for part in prefix.rstrip("/").split("/")):
        return "a part of the prefix is empty, . or ..; write it without that part"
    return None
