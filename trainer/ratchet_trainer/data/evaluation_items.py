"""The items of an evaluation: those of a data set that no stage trains on.

Decides nothing but what is asked of the source: generated data sets have items of their own that are held out, of files
those count whose question occurs in no data set that a stage trains on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet_api.job import Spec
from ratchet_trainer.data.item import Item
from ratchet_trainer.data.items import open_source
from ratchet_trainer.errors import ConfigurationInvalid

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeldOut:
    """Held-out items under their own numbers."""

    name: str
    digest: str
    items: Mapping[int, Item]
    held = True

    @property
    def size(self) -> int:
        return len(self.items)

    def item(self, index: int) -> Item:
        return self.items[index]


def held_out(spec: Spec, dataset: str, count: int, cache: Path | None = None) -> HeldOut:
    """`count` items of a data set whose questions occur in no data set that a stage trains on. Raises
    ConfigurationInvalid if there are none; fewer are said in the log."""
    trained_on = {name for stage in spec.stages for name in stage.dataset_names}
    sources: dict[str, Any] = {
        d.name: open_source(d, cache) for d in spec.datasets if d.name in trained_on or d.name == dataset
    }
    training = [source for name, source in sources.items() if name in trained_on or not source.held]
    found, left_out = sources[dataset].held_out(count, training)
    if not found:
        raise ConfigurationInvalid(f"evaluation on data set {dataset}: it has no items that are held out")
    if left_out:
        log.info("data set %s: %d candidates are left out of the held-out items", dataset, left_out)
    if len(found) < count:
        log.warning("data set %s: %d items are held out, %d were asked for", dataset, len(found), count)
    source = sources[dataset]
    return HeldOut(source.name, source.digest, dict(found))
