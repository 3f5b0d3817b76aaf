"""What of the board may go, and when: a cache is deleted by its owner alone.

Decides the order by which a trainer that slept since its last append deletes nothing of its heir's: list before one's
own append to the journal, delete after it. What was made after the listing has no name in it; who was fenced meanwhile
fails at the append. Versions go one commit later, since a worker may be about to load one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection

from ratchet_trainer import storage
from ratchet_trainer.storage import Location, with_retries

log = logging.getLogger(__name__)

VERSIONS, DAMAGED = "versions", "damaged"
MANIFEST = "manifest.json"
_STEP = re.compile(r"[0-9]+-([0-9]+)")


class Retention:
    """names = retention.list_old(step, versions)
    journal.commit(...)          # raises if there is an heir
    retention.delete(names)
    """

    def __init__(self, fleet: Location, lineage: int):
        self._fleet, self._lineage = fleet, lineage
        self._before: set[str] = set()  # versions that were not needed at the listing before

    def list_old(self, up_to: int, keep_versions: Collection[str]) -> list[str]:
        """Names below `fleet/` that nobody needs who begins at a step above `up_to` with these versions: calls of steps
        up to there (and their folders, which go if nothing else is in them), versions that were not needed at the
        listing before either, and all of lineages before. Raises StorageUnavailable."""
        return with_retries(f"listing {self._fleet}", lambda: self._old(up_to, keep_versions))

    def _old(self, up_to: int, keep_versions: Collection[str]) -> list[str]:
        own = f"{self._lineage}"
        lineages = [name for name in storage.names(self._fleet) if name.isdigit() and int(name) < self._lineage]
        calls = [
            f"{own}/{step}/{name}"
            for step in storage.names(self._fleet / own)
            if (found := _STEP.fullmatch(step)) and int(found[1]) <= up_to
            for name in ("", *storage.names(self._fleet / own / step))
        ]
        versions = set(storage.names(self._fleet / own / VERSIONS)) - set(keep_versions)
        gone, self._before = versions & self._before, versions
        notes = [
            f"{own}/{DAMAGED}/{name}"
            for name in storage.names(self._fleet / own / DAMAGED)
            if name.partition("-")[0] not in keep_versions
        ]
        return [*lineages, *sorted(calls, reverse=True), *(f"{own}/{VERSIONS}/{name}" for name in sorted(gone)), *notes]

    def delete(self, names: Collection[str]) -> None:
        """Removes what was listed; what cannot be removed stays for the next time."""
        for name in names:
            try:
                if name.endswith("/"):
                    storage.remove_empty(self._fleet / name[:-1])
                    continue
                storage.delete(self._fleet / name / MANIFEST)  # first, so that half a version is none
                storage.delete_tree(self._fleet / name)
            except OSError as error:
                log.warning("%s is not removed: %s", self._fleet / name, error)
