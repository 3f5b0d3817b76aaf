"""Git LFS pointers: small files that stand where `git lfs pull` puts the content.

Decides what counts as one. All of a folder are named at once.
"""

from __future__ import annotations

from pathlib import Path

from ratchet_trainer.errors import ConfigurationInvalid

POINTER = b"version https://git-lfs.github.com/spec/"
LARGEST = 1024
"""A pointer has fewer bytes."""


def is_pointer(file: Path) -> bool:
    """Whether a file is a pointer. A file that cannot be read is none: whoever reads it says so."""
    try:
        if file.stat().st_size > LARGEST:
            return False
        with open(file, "rb") as opened:
            return opened.read(len(POINTER)) == POINTER
    except OSError:
        return False


def refuse_pointers(folder: Path) -> None:
    """Raises ConfigurationInvalid that names every pointer among the files of a folder."""
    try:
        found = sorted(file.name for file in folder.iterdir() if file.is_file() and is_pointer(file))
    except OSError:
        return
    if found:
        raise ConfigurationInvalid(
            f"{folder}: {', '.join(found)} {'is a Git LFS pointer' if len(found) == 1 else 'are Git LFS pointers'}, "
            "not the content; fetch it with `git lfs pull` in that folder, or download the files again"
        )


def refuse_pointer(file: Path) -> None:
    """Raises ConfigurationInvalid for a file that is a pointer."""
    if is_pointer(file):
        raise ConfigurationInvalid(
            f"{file}: is a Git LFS pointer, not the content; fetch it with `git lfs pull` in its folder, or download "
            "the file again"
        )
