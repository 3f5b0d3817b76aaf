"""The functions over all kinds of storage: each asks the module that knows the place's kind.

Decides what they promise, which both kinds keep. A folder exists as long as something is in it: nothing makes empty
ones, and whoever writes a file need not make folders first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, cast

from ratchet_trainer.storage import bucket, posix
from ratchet_trainer.storage.location import Location


class Kind(Protocol):
    """What a module for one kind of storage has."""

    def read(self, place: Location) -> bytes | None: ...
    def read_all(self, places: Iterable[Location]) -> list[bytes | None]: ...
    def read_range(self, place: Location, begin: int, end: int) -> bytes: ...
    def exists(self, place: Location) -> bool: ...
    def write(self, place: Location, data: bytes, durable: bool) -> None: ...
    def write_all(self, folder: Location, files: Mapping[str, bytes], durable: bool) -> None: ...
    def create(self, place: Location, data: bytes) -> bool: ...
    def names(self, folder: Location) -> list[str]: ...
    def tree(self, folder: Location) -> list[str]: ...
    def delete(self, place: Location) -> None: ...
    def delete_tree(self, folder: Location) -> None: ...
    def remove_empty(self, folder: Location) -> None: ...
    def sweep(self, folder: Location) -> None: ...


def _kind(place: Location) -> Kind:
    return cast(Kind, bucket if place.on_bucket else posix)


def read(place: Location) -> bytes | None:
    """The content; None where there is no such file (a folder is none)."""
    return _kind(place).read(place)


def read_all(folder: Location, names: Iterable[str]) -> list[bytes | None]:
    """The contents of files of a folder, as `read` has them; of a bucket many at the same time."""
    return _kind(folder).read_all([folder / name for name in names])


def read_range(place: Location, begin: int, end: int) -> bytes:
    """The bytes of a file from `begin` to before `end`; fewer, or none, where there are not so many."""
    return _kind(place).read_range(place, begin, end)


def exists(place: Location) -> bool:
    """Whether there is such a file or, on a file system, folder."""
    return _kind(place).exists(place)


def write(place: Location, data: bytes, *, durable: bool = True) -> None:
    """Makes or replaces a file; readers see the one before or this one, never a part. With `durable` it outlives the
    machine once this returns; on buckets everything does."""
    _kind(place).write(place, data, durable)


def write_all(folder: Location, files: Mapping[str, bytes], *, durable: bool = True) -> None:
    """Makes the files of a folder that nobody reads yet, by their names; they are whole and durable once it returns."""
    _kind(folder).write_all(folder, files, durable)


def create(place: Location, data: bytes) -> bool:
    """Makes a file only if there is none: of any number of writers, True for one. Durable on return.

    Writers write different bytes. A writer whose answer was lost reads back whose the file is, and what it finds to be
    its own it has made.
    """
    return _kind(place).create(place, data)


def names(folder: Location) -> list[str]:
    """The names right under a folder, of files and folders, sorted; hidden ones (with a dot) are left out."""
    return _kind(folder).names(folder)


def tree(folder: Location) -> list[str]:
    """The files under a folder and all its folders, named from there with slashes, sorted."""
    return _kind(folder).tree(folder)


def delete(place: Location) -> None:
    """Removes a file, if there is one."""
    _kind(place).delete(place)


def delete_tree(folder: Location) -> None:
    """Removes a folder with all that is in it, or a file; if there is one."""
    _kind(folder).delete_tree(folder)


def remove_empty(folder: Location) -> None:
    """Removes a folder that has nothing in it any more; on buckets there is none then."""
    _kind(folder).remove_empty(folder)


def sweep(folder: Location) -> None:
    """Removes what writers that died have left unfinished right under a folder. One that still lives may lose its
    write: `create` then returns False."""
    _kind(folder).sweep(folder)
