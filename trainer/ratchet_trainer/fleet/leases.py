"""Leases of calls: advice, so that workers do not all do the same. Two on one call are a waste, never an error.

    FOLDER/lease           JSON: who has it, a count that every renewal raises, how often the call failed, which holders
                           fell silent
    FOLDER/alive-HOLDER    one of those was only slow, and says so when it finds that another one took over

Decides when a call is free: without a lease, with one that was given back, or with one that has not changed for the
observer's patience; and when it is poison, so that nobody takes it: after `MOST_ERRORS` workers that failed at it and
said so, or after `MOST_SILENCES` that fell silent, which is noted by who finds out. Silence is what a lost machine
leaves, too, and long calls on spot capacity meet several of these; a machine that is busy must not count, hence
`alive`.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ratchet_trainer import storage
from ratchet_trainer.fleet.silence import Silence
from ratchet_trainer.storage import Location, with_retries

log = logging.getLogger(__name__)

LEASE = "lease"
_HOLDER = re.compile(r"[0-9a-f]{16}")
MOST_ERRORS = 3
"""Workers that may fail at a call before it counts as what makes them fail."""
MOST_SILENCES = 8
"""Holders that may fall silent before a call counts as what ends them. Where one try of seven loses its machine, three
in a row happen to one call of 340, eight to one of six million."""


@dataclass(frozen=True)
class Holding:
    """What a lease's object says. `holder` is new with every take; `count` None: given back."""

    worker: str
    holder: str
    count: int | None
    silent: tuple[str, ...] = ()
    errors: int = 0

    def to_bytes(self) -> bytes:
        return json.dumps(vars(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes | None) -> Holding | None:
        """None where there is none, or one that cannot be read: a lease is not worth an error."""
        try:
            said: dict[str, Any] = json.loads(data or b"")
            count = None if said["count"] is None else int(said["count"])
            silent = tuple(one for one in said["silent"] if _HOLDER.fullmatch(one))
            return cls(str(said["worker"]), str(said["holder"]), count, silent, int(said["errors"]))
        except (ValueError, TypeError, KeyError, RecursionError):
            return None

    @property
    def is_poison(self) -> bool:
        return self.errors >= MOST_ERRORS or len(self.silent) >= MOST_SILENCES


def _alive(lease: Location, holder: str) -> Location:
    return lease.parent / f"alive-{holder}"


class Lease:
    """What a worker has of a call. `renew` it every third of the patience, from a thread of its own."""

    def __init__(self, place: Location, holding: Holding):
        self.place, self._holding = place, holding

    def renew(self) -> bool:
        """Says that the holder is at work. False: another one took over, who thought it was not; a result is welcome
        all the same. Never fails."""
        try:
            if (holder := self._holder()) != self._holding.holder:
                if holder is not None:
                    storage.create(_alive(self.place, self._holding.holder), b"1")
                return False
            self._holding = replace(self._holding, count=(self._holding.count or 0) + 1)
            storage.write(self.place, self._holding.to_bytes(), durable=False)
        except OSError as error:
            log.warning("%s is not renewed: %s", self.place, error)
        return True

    def end(self, failed: bool = False) -> None:
        """Gives the call back: the worker is done or told to go, or else it has `failed` at it, which counts. Never
        fails."""
        try:
            if self.is_mine():
                given_back = replace(self._holding, count=None, errors=self._holding.errors + failed)
                storage.write(self.place, given_back.to_bytes(), durable=False)
        except OSError as error:
            log.warning("%s is not given back: %s", self.place, error)

    def is_mine(self) -> bool:
        """Whether nobody has taken over."""
        return self._holder() == self._holding.holder

    def _holder(self) -> str | None:
        found = Holding.from_bytes(storage.read(self.place))
        return None if found is None else found.holder


class Leases:
    """The leases of a board, as one observer sees them."""

    def __init__(self, worker: str, patience: float, clock: Callable[[], float]):
        self._worker, self._patience, self._silence = worker, patience, Silence(clock)

    def is_free(self, place: Location, data: bytes | None) -> bool:
        """Whether a call may be taken whose lease has this content."""
        if data is None:
            return True
        holding = Holding.from_bytes(data)
        if holding is not None and (holding.is_poison or holding.count is None):
            return not holding.is_poison
        return self._silence.of(place, data) >= self._patience

    def take(self, place: Location) -> Lease | None:
        """The lease of a call; None if it is not free, or another one was quicker."""
        return with_retries(f"taking {place}", lambda: self._take(place))

    def _take(self, place: Location) -> Lease | None:
        data = storage.read(place)
        if not self.is_free(place, data):
            return None
        before = Holding.from_bytes(data)
        mine = Holding(self._worker, secrets.token_hex(8), 0)
        if before is not None:
            silent = before.silent + ((before.holder,) if before.count is not None else ())
            mine = replace(mine, silent=silent, errors=before.errors)
        if mine.is_poison:
            mine = replace(mine, silent=tuple(one for one in mine.silent if not storage.exists(_alive(place, one))))
        if mine.is_poison:  # for the trainer to see, and whoever looks next
            storage.write(place, replace(mine, count=None).to_bytes())
            ended = mine.errors + len(mine.silent)
            log.warning("%s: %d workers ended with this call, so nobody takes it any more", place.parent, ended)
            return None
        if data is None:
            return Lease(place, mine) if storage.create(place, mine.to_bytes()) else None
        storage.write(place, mine.to_bytes(), durable=False)
        lease = Lease(place, mine)
        return lease if lease.is_mine() else None
