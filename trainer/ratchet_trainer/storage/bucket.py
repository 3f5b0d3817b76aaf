"""Objects of a bucket, through TensorStore's key-value stores: the same code for Google Cloud Storage and S3.

Decides how `objects.py`'s promises are kept where there are buckets. An object appears whole. It is created once by a
write on the condition that the key has no generation (GCS `ifGenerationMatch=0`, S3 `If-None-Match: *`). A request
whose answer was lost may have been carried out, by TensorStore's own second try too: what a condition refused is read
back before anybody is told that it was somebody else.

The environment says where and who: for gs:// TENSORSTORE_GCS_HTTP_URL and Google's default credentials, for s3://
AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, AWS_REGION and Amazon's chain of credentials.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.storage.location import Location
from ratchet_trainer.storage.retries import short

T = TypeVar("T")

REQUEST_SECONDS = 30.0
"""How long a request may take, besides the time for its bytes."""
SLOWEST = 2 << 20
"""Bytes a second; a transfer that is slower counts as lost."""
TRIES = {"max_retries": 3, "initial_delay": "100ms", "max_delay": "1s"}
"""TensorStore's own tries of a request that the server was too busy for; `with_retries` comes on top."""
AT_ONCE = 64
"""Requests that are under way at the same time."""
PIECE = 64 << 20
"""Bytes of a large object that are read, or written as an object of their own, at a time."""

UNDEFINED = "OUT_OF_RANGE"
ABSENT = ".absent"
"""A name that nothing ever has."""
RIGHTS = {
    "gs": "roles/storage.objectUser; on GKE by Workload Identity",
    "s3": "s3:GetObject, s3:PutObject, s3:DeleteObject, s3:ListBucket",
}
WAYS_OUT: Mapping[str, str] = {
    # status -> way out; {0} is the bucket, {1} the rights
    "NOT_FOUND": "is there no bucket {0}, or is its name misspelt? Create it in the region of the nodes, or name "
    "another one",
    "PERMISSION_DENIED": "let the trainer's service account read, write, list and delete objects of {0} ({1})",
    "UNAUTHENTICATED": "give the trainer's service account credentials for {0} ({1})",
}
UNREACHABLE = re.compile(r"[Cc]ould not (connect|resolve)|[Ff]ailed to connect|Timeout was reached")
NO_ANSWER = "can the store be reached from here? Its address is the cloud's own unless {0} says another one"
ADDRESSES = {"gs": "TENSORSTORE_GCS_HTTP_URL", "s3": "AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL"}
REGION = re.compile(r"PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraint|[Rr]edirect|\b301\b")
OTHER_REGION = "{0} is in another region than AWS_REGION says; set it to the bucket's in spec.podTemplate.env"


class BucketError(OSError):
    """What a bucket answered, with the way out. `status`: of the gRPC codes, `UNAVAILABLE` where nothing else fits."""

    def __init__(self, place: Location, status: str, text: str):
        way = OTHER_REGION if REGION.search(text) else WAYS_OUT.get(status, "")
        way = way.format(f"{place.scheme}://{place.bucket}", RIGHTS[place.scheme])
        if not way and UNREACHABLE.search(text):
            way = NO_ANSWER.format(ADDRESSES[place.scheme])
        super().__init__(f"{place}: {short(text)}{f'; {way}' if way else ''}")
        self.status = status


def kvstore_spec(folder: Location) -> dict[str, Any]:
    """What TensorStore calls a place: a `kvstore` for arrays, whose keys are under the folder; of paths and buckets."""
    end = "/" if folder.key else ""
    if not folder.on_bucket:
        return {"driver": "file", "path": os.path.join(os.path.abspath(folder.key), "")}
    if folder.scheme == "gs":
        return {"driver": "gcs", "bucket": folder.bucket, "path": folder.key + end}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return (
        {"driver": "s3", "bucket": folder.bucket, "path": folder.key + end}
        | ({"endpoint": endpoint} if endpoint else {})
        | ({"aws_region": region} if region else {})
    )


def read(place: Location) -> bytes | None:
    found = wait(place, _store(place).read(place.key))
    return bytes(found.value) if found.state == "value" else None


def read_all(places: Iterable[Location]) -> list[bytes | None]:
    """The contents of many objects, read at the same time."""
    found: list[bytes | None] = []
    for some in _some(list(places)):
        begun = [(place, _store(place).read(place.key)) for place in some]
        results = [wait(place, future) for place, future in begun]
        found += [bytes(r.value) if r.state == "value" else None for r in results]
    return found


def read_piece(place: Location, begin: int) -> tuple[bytes, bytes]:
    """At most PIECE bytes from `begin` on, and the generation of the object that they are of; no bytes at its end."""
    store = _store(place)
    for part in (slice(begin, begin + PIECE), slice(begin, None)):
        try:
            found = wait(place, store.read(place.key, byte_range=part), PIECE)
        except BucketError as error:
            if error.status != UNDEFINED:
                raise
            continue  # fewer than PIECE are left
        if found.state != "value":
            raise BucketError(place, "NOT_FOUND", "the object is gone")
        return bytes(found.value), bytes(found.stamp.generation)
    return b"", generation(place) or b""


def read_range(place: Location, begin: int, end: int) -> bytes:
    """The bytes from `begin` to before `end`; fewer, or none, where the object has not so many."""
    for part in (slice(begin, end), slice(begin, None)):
        try:
            found = wait(place, _store(place).read(place.key, byte_range=part), end - begin)
        except BucketError as error:
            if error.status != UNDEFINED:
                raise
            continue
        return bytes(found.value)[: end - begin] if found.state == "value" else b""
    return b""


def generation(place: Location) -> bytes | None:
    """What an object's content has of its own: another one after every write. None where there is none."""
    found = wait(place, _store(place).read(place.key, byte_range=slice(0, 0)))
    return bytes(found.stamp.generation) if found.state == "value" else None


def exists(place: Location) -> bool:
    return generation(place) is not None


def write(place: Location, data: bytes, durable: bool = True) -> None:
    wait(place, _store(place).write(place.key, data), len(data))


def write_all(folder: Location, files: Mapping[str, bytes], durable: bool = True) -> None:
    for some in _some([(folder / name, data) for name, data in files.items()]):
        size = sum(len(data) for _, data in some)
        begun = [(place, _store(place).write(place.key, data)) for place, data in some]
        for place, future in begun:
            wait(place, future, size)


def create(place: Location, data: bytes) -> bool:
    store = _store(place)
    try:
        made = wait(place, store.write(place.key, data, if_equal=_absent()), len(data))
    except BucketError as error:
        if error.status in WAYS_OUT:
            raise
        if read(place) != data:  # carried out or not? if it was not, whoever asked may try again
            raise
        return True
    return bool(made.generation) or read(place) == data


def names(folder: Location) -> list[str]:
    found = {name.partition("/")[0] for name in tree(folder)}
    return sorted(name for name in found if not name.startswith("."))


def tree(folder: Location) -> list[str]:
    ts = _tensorstore(folder.scheme)
    begin = f"{folder.key}/" if folder.key else ""
    keys = ts.KvStore.KeyRange(begin, _after(begin))
    found = wait(folder, _store(folder).list(keys, strip_prefix_length=len(begin.encode())), 16 << 20)
    if folder.scheme == "gs":
        # TensorStore takes a listing that Google refuses for an empty one. Who may not list is refused this, too.
        generation(folder / ABSENT)
    return sorted(name for key in found if (name := key.decode()) and not name.endswith("/"))


def delete(place: Location) -> None:
    wait(place, _store(place).write(place.key, None))


def delete_tree(folder: Location) -> None:
    ts = _tensorstore(folder.scheme)
    delete(folder)
    begin = f"{folder.key}/" if folder.key else ""
    wait(folder, _store(folder).delete_range(ts.KvStore.KeyRange(begin, _after(begin))), 64 << 20)


def remove_empty(folder: Location) -> None:
    """Nothing: there are no folders."""


def sweep(folder: Location) -> None:
    """Nothing: a write that was not finished is no object."""


def _some(things: Sequence[T]) -> Iterable[Sequence[T]]:
    return (things[at : at + AT_ONCE] for at in range(0, len(things), AT_ONCE))


def _after(begin: str) -> str:
    """The first key behind all that begin so; "" has no end."""
    return begin[:-1] + chr(ord(begin[-1]) + 1) if begin else ""


def _store(place: Location) -> Any:
    return _opened(place.scheme, place.bucket)


@lru_cache
def _opened(scheme: str, name: str) -> Any:
    ts = _tensorstore(scheme)
    root = Location(scheme, name, "")
    try:
        return ts.KvStore.open(kvstore_spec(root), context=context()).result(timeout=REQUEST_SECONDS)
    except ValueError as error:
        if _status(error) in ("", "INVALID_ARGUMENT"):
            given = [name for name in ADDRESSES[scheme].split(" or ") if os.environ.get(name)]
            way = f"{given[0]} is an address such as https://HOST:PORT" if given else f"write {scheme}://BUCKET/PREFIX"
            raise ConfigurationInvalid(f"{root}: {short(str(error))}; {way}") from error
        raise BucketError(root, _status(error), str(error)) from error


@lru_cache
def context(durable: bool = True) -> Any:
    """The settings of TensorStore that all requests have: few tries of its own. `durable` is for paths."""
    import tensorstore as ts

    return ts.Context({"gcs_request_retries": TRIES, "s3_request_retries": TRIES, "file_io_sync": durable})


@lru_cache
def _absent() -> Any:
    """The generation of a key that is not there; the same for all kinds of stores."""
    import tensorstore as ts

    return ts.KvStore.open({"driver": "memory"}).result().read("absent").result().stamp.generation


def _tensorstore(scheme: str) -> Any:
    try:
        import tensorstore
    except ImportError as error:
        raise ConfigurationInvalid(
            f"{scheme}:// needs the package tensorstore, which is not installed here ({error}); install "
            "ratchet-rl[trainer], or use an image that was built with it"
        ) from error
    return tensorstore


def wait(place: Location, future: Any, size: int = 0) -> Any:
    """What a request of TensorStore came to, that moves so many bytes. Raises BucketError."""
    seconds = REQUEST_SECONDS + size / SLOWEST
    try:
        return future.result(timeout=seconds)
    except TimeoutError as error:
        raise BucketError(place, "DEADLINE_EXCEEDED", f"no answer for {seconds:.0f} s") from error
    except Exception as error:  # TensorStore has ValueError and RuntimeError for all that a server may say
        raise BucketError(place, _status(error) or "UNAVAILABLE", str(error)) from error


def _status(error: Exception) -> str:
    found = re.match(r"([A-Z_]+): ", str(error))
    return found[1] if found else ""
