"""Leases of calls: advice, so that workers do not all do the same. Two on one call are a waste, never an error.

    FOLDER/lease           JSON: who has it, a count that every renewal raises, which holders ended without notice
    FOLDER/alive-HOLDER    one of those was only slow, and says so when it finds that another one took over

Decides when a call is free: without a lease, with one that was given back, or with one that has not changed for the
observer's patience. Each holder that fell silent is noted by who finds out; after `MOST_ENDS` the call is poison, and
nobody takes it. A machine that is busy must not make one, hence `alive`.
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
MOST_ENDS = 3
"""Holders that may end without notice before a call counts as what ends them."""


@dataclass(frozen=True)
class Holding:
    """What a lease's object says. `holder` is new with every take; `count` None: given back."""

    worker: str
    holder: str
    count: int | None
    ended: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        return json.dumps(vars(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes | None) -> Holding | None:
        """None where there is none, or one that cannot be read: a lease is not worth an error."""
        try:
            said: dict[str, Any] = json.loads(data or b"")
            count = None if said["count"] is None else int(said["count"])
            ended = tuple(one for one in said["ended"] if _HOLDER.fullmatch(one))
            return cls(str(said["worker"]), str(said["holder"]), count, ended)
        except (ValueError, TypeError, KeyError, RecursionError):
            return None

    @property
    def is_poison(self) -> bool:
        return len(self.ended) >= MOST_ENDS


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

    def end(self, notice: bool = True) -> None:
        """Gives the call back. `notice`: because the worker is told to go or is done; without, because the call made it
        fail, which counts. Never fails."""
        try:
            if self.is_mine():
                ended = self._holding.ended + (() if notice else (self._holding.holder,))
                given_back = replace(self._holding, count=None, ended=ended)
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
        ended = () if before is None else before.ended + ((before.holder,) if before.count is not None else ())
        mine = Holding(self._worker, secrets.token_hex(8), 0, ended)
        if mine.is_poison:
            mine = replace(mine, ended=tuple(one for one in ended if not storage.exists(_alive(place, one))))
        if mine.is_poison:  # for the trainer to see, and whoever looks next
            storage.write(place, replace(mine, count=None).to_bytes())
            log.warning("%s: %d workers ended with this call, so nobody takes it any more", place.parent, len(ended))
            return None
        if data is None:
            return Lease(place, mine) if storage.create(place, mine.to_bytes()) else None
        storage.write(place, mine.to_bytes(), durable=False)
        lease = Lease(place, mine)
        return lease if lease.is_mine() else None
