"""Files on a file system: whole by rename, created once by link, durable by fsync.

Decides how `objects.py`'s promises are kept where there are paths. Unfinished files are hidden ones beside their place,
`.NAME.RANDOM.tmp`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.storage.location import Location

ABSENT = (FileNotFoundError, NotADirectoryError)
LEFT_OVER = ".*.tmp"


def read(place: Location) -> bytes | None:
    try:
        return place.local.read_bytes()
    except (*ABSENT, IsADirectoryError):
        return None


def read_all(places: Iterable[Location]) -> list[bytes | None]:
    return [read(place) for place in places]


def read_range(place: Location, begin: int, end: int) -> bytes:
    try:
        with open(place.local, "rb") as file:
            file.seek(begin)
            return file.read(end - begin)
    except (*ABSENT, IsADirectoryError):
        return b""


def exists(place: Location) -> bool:
    try:
        os.stat(place.local)
    except ABSENT:
        return False
    return True


def write(place: Location, data: bytes, durable: bool) -> None:
    write_parts(place, (data,), durable)


def write_parts(place: Location, parts: Iterable[bytes | memoryview], durable: bool) -> None:
    """A file of several parts, of which no copy is made."""
    path = place.local
    temporary = _beside(path, parts, durable)
    try:
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def write_all(folder: Location, files: Mapping[str, bytes], durable: bool) -> None:
    root = folder.local
    root.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        with open(root / name, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
    if durable:
        sync(root)
        sync(root.parent)


def create(place: Location, data: bytes) -> bool:
    path = place.local
    temporary = _beside(path, (data,), True)
    try:
        os.link(temporary, path)
    except (FileExistsError, FileNotFoundError):
        return False  # taken; or `sweep` has just removed our temporary file
    except OSError as error:
        # NFS may have made the link and lost the answer: the link count tells.
        if error.errno in (errno.EIO, errno.ETIMEDOUT) and os.stat(temporary).st_nlink == 2:
            return True
        if error.errno in (errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP):
            raise ConfigurationInvalid(
                f"spec.checkpoint.directory: {path.parent} is on a file system without hard links, by which writers "
                "are kept apart; use one that has them, such as Filestore or another NFS, or a bucket by its gs:// "
                "address"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)
    return True


def names(folder: Location) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder.local) if not name.startswith("."))
    except ABSENT:
        return []


def tree(folder: Location) -> list[str]:
    root = folder.local

    def failed(error: OSError) -> None:
        if not isinstance(error, ABSENT):
            raise error

    return sorted(
        Path(parent, name).relative_to(root).as_posix()
        for parent, _, files in os.walk(root, onerror=failed)
        for name in files
    )


def delete(place: Location) -> None:
    try:
        place.local.unlink()
    except ABSENT:
        return


def delete_tree(folder: Location) -> None:
    try:
        shutil.rmtree(folder.local)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        delete(folder)


def remove_empty(folder: Location) -> None:
    with contextlib.suppress(*ABSENT):
        try:
            folder.local.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def sweep(folder: Location) -> None:
    for left_over in folder.local.glob(LEFT_OVER):
        left_over.unlink(missing_ok=True)


def sync(path: str | Path) -> None:
    """Makes a file, or the names in a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _beside(path: Path, parts: Iterable[bytes | memoryview], durable: bool) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            for part in parts:
                file.write(part)
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary
