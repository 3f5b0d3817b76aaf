"""Whether a bucket can be used for a run at all, found out by trying, before anything is kept there.

Decides what is tried: that an object can be written, that a second one of the same name is refused, that it is listed
and can be removed. A store that takes the second one has no conditional writes: there two attempts would overwrite one
another's entries of the journal.
"""

from __future__ import annotations

import uuid

from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.storage import objects
from ratchet_trainer.storage.location import Location


def probe(folder: Location) -> None:
    """Tries the folder of a run. Raises ConfigurationInvalid for a store without conditional writes, OSError with the
    way out for a bucket that is not there or not ours. Paths are not tried: `link` says so itself."""
    if not folder.on_bucket:
        return
    place = folder / f"probe-{uuid.uuid4()}"
    try:
        if objects.create(place, b"1") and objects.create(place, b"2"):
            raise ConfigurationInvalid(
                f"{folder}: the object store behind it has no conditional writes (it replaced an object that was to be "
                "created only if absent), so two attempts could undo one another's checkpoints; use Google Cloud "
                "Storage, Amazon S3 or a store that honours If-None-Match, or a path on a volume"
            )
        objects.names(folder)
    finally:
        objects.delete(place)
