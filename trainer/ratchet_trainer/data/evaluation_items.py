"""The items of an evaluation: those of a data set that no stage trains on.

Decides nothing but what is asked of the source: generated data sets have items of their own that are held out, of files
those count whose question occurs in no data set that a stage trains on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ratchet_api.job import Spec
from ratchet_trainer.data.faults import Faults
from ratchet_trainer.data.item import Item
from ratchet_trainer.data.items import needs_answer, open_source, prompt_tokens, where
from ratchet_trainer.data.tokenizer import Tokenizer
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.storage import Location

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeldOut:
    """Held-out items under their own numbers."""

    name: str
    digest: str
    items: Mapping[int, Item]
    origin: Any  # the source that they are of
    held = True

    @property
    def size(self) -> int:
        return len(self.items)

    def item(self, index: int) -> Item:
        return self.items[index]

    def place(self, index: int) -> str:
        """Where an item is, for people."""
        return where(self.origin, index)


def held_out(spec: Spec, dataset: str, count: int, cache: Location | Path | None = None) -> HeldOut:
    """`count` items of a data set whose questions occur in no data set that a stage trains on. Raises
    ConfigurationInvalid if there are none; fewer are said in the log."""
    trained_on = {name for stage in spec.stages for name in stage.dataset_names}
    sources: dict[str, Any] = {
        d.name: open_source(d, cache, needs_answer(d))
        for d in spec.datasets
        if (d.name in trained_on or d.name == dataset) and d.from_stage is None  # whose items are of another one
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
    return HeldOut(source.name, source.digest, dict(found), source)


def that_fit(source: HeldOut, tokenizer: Tokenizer, limit: int, leave_out: bool) -> HeldOut:
    """The items whose prompts have at most `limit` tokens, looked at before the first evaluation. Raises
    ConfigurationInvalid that names those that are longer, unless they may be left out, which is counted in the log."""
    sizes = {i: len(prompt_tokens(source, tokenizer, i, item)) for i, item in source.items.items()}
    faults = Faults()
    for i, size in sizes.items():
        if size > limit:
            faults.add(source.place(i), f"the prompt has {size} tokens", size)
    if not faults:
        return source
    said = faults.said(len(sizes), "items are too long")
    said = f"evaluation on data set {source.name}: {said}. maxPromptTokens is {limit}"
    if not leave_out or len(faults) == len(sizes):
        raise ConfigurationInvalid(
            f"{said}, raise it to {max(sizes.values())}, or leave them out: by hand, or under a new name with "
            "overlong: LeaveOut"
        )
    log.warning("%s; they are left out", said)
    return replace(source, items={i: item for i, item in source.items.items() if sizes[i] <= limit})
