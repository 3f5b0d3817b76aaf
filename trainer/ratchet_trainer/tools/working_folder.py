"""Where the checkpoints of a working folder of `ratchet train` are: in it, or elsewhere, which it notes.

Decides that one file, so that commands which only read need not import what trains.
"""

from __future__ import annotations

from pathlib import Path

from ratchet_trainer.storage import Location

NOTE = Path("local", "directory")


def note_checkpoints(folder: Path, place: Location) -> None:
    """Notes where they are."""
    (folder / NOTE).write_text(f"{place}\n")


def checkpoints_in(folder: Path) -> Location:
    """Where they are; of any other folder, it itself."""
    try:
        return Location.parse((folder / NOTE).read_text().strip())
    except OSError:
        return Location.parse(folder)
