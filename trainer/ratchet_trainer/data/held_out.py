"""Which items of a data set may be used to evaluate what was trained on others.

Decides that a question which occurs in a data set that is trained on is none of them, nor the second of two equal ones.
Questions are compared by 64 bits of a hash, one pass over numbers instead of texts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import numpy as np

from ratchet_trainer.data.remembered import Remembered, key_of
from ratchet_trainer.errors import ConfigurationInvalid

log = logging.getLogger(__name__)


def asked(source: Any, remembered: Remembered | None = None) -> np.ndarray:
    """A hash of what each item of a source asks, uint64[size]. Generated items are made for it, once."""
    found = getattr(source, "asked", None)
    if found is not None:
        return np.asarray(found)
    remembered = remembered or getattr(source, "remembered", None) or Remembered(None)
    key = key_of("asked", source.digest)
    kept = remembered.find(key, "asked")
    if kept is not None and len(kept["asked"]) == source.size:
        return kept["asked"]
    made = np.fromiter((source.item(i).asked_hash for i in range(source.size)), np.uint64, source.size)
    remembered.keep(key, {"asked": made})
    return made


def all_asked(sources: Iterable[Any]) -> np.ndarray:
    """The hashes of all items of some sources, uint64[n]."""
    return np.concatenate([np.empty(0, np.uint64), *map(asked, sources)])


def of_file(source: Any, training: Iterable[Any]) -> tuple[np.ndarray, int]:
    """Numbers of the items that may be used, in order, and how many are left out. Raises ConfigurationInvalid if none
    may."""
    own = asked(source)
    first = np.zeros(len(own), bool)
    first[np.unique(own, return_index=True)[1]] = True
    trained = np.isin(own, all_asked(training))
    kept = np.nonzero(first & ~trained)[0]
    twice, overlap = int((~first & ~trained).sum()), int(trained.sum())
    if overlap or twice:
        log.warning(
            "data set %s: of %d items, %d are left out of the evaluation because a data set that is trained on asks "
            "the same, and %d because an item before asks the same",
            source.name, len(own), overlap, twice,
        )  # fmt: skip
    if not len(kept):
        raise ConfigurationInvalid(
            f"data set {source.name}: none of its {len(own)} items is held out: {overlap} occur in data sets that are "
            "trained on; evaluate on a file with other questions"
        )
    return kept, overlap + twice
