"""Whether prompts still fit once a method has changed them, with a hint or by a template; found before the first step.

Decides what is measured: of every item of a file the changed prompts that may be the longest, of generated items the
first ones. What was measured is remembered, as in `lengths`. A generated item that turns out too long later ends the
run by name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ratchet_trainer.data.edits import edited
from ratchet_trainer.data.faults import Faults
from ratchet_trainer.data.item import Item
from ratchet_trainer.data.items import Source, prompt_tokens, where
from ratchet_trainer.data.lengths import AT_ONCE, LOOKED_AT
from ratchet_trainer.data.remembered import Remembered, key_of
from ratchet_trainer.data.tokenizer import Tokenizer
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.storage import Location

log = logging.getLogger(__name__)

VERSION = 1


def check_edited(
    source: Source,
    tokenizer: Tokenizer,
    limit: int,
    edits_of: Callable[[Item], Sequence[str]],
    name: str,
    cache: Location | Path | None = None,
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Measures the prompts that `edits_of` an item make of it; `name` says in one text which these are, for what is
    remembered. Raises ConfigurationInvalid that names the items of which one is longer than `limit` tokens, or a data
    set of which no item is ever changed."""
    count = source.size if source.held else min(source.size, LOOKED_AT)
    remembered = Remembered(cache)
    key = key_of("edited lengths", VERSION, source.digest, tokenizer.digest, name, count)
    if (kept := remembered.find(key, "longest")) is not None:
        longest = kept["longest"]
    else:
        longest = _measured(source, tokenizer, edits_of, count, alive)
        remembered.keep(key, {"longest": longest})
    faults = Faults()
    for index in map(int, np.flatnonzero(longest > limit)):
        faults.add(where(source, index), f"the prompt has {longest[index]} tokens then", size=int(longest[index]))
    if faults:
        said = faults.said(count, "items are too long with what expansion adds to their prompts")
        raise ConfigurationInvalid(
            f"data set {source.name}: {said}. maxPromptTokens leaves {limit}; raise it to {longest.max()}, or shorten "
            "the hints or templates"
        )
    unchanged = int((longest == 0).sum())
    if unchanged == count:
        raise ConfigurationInvalid(
            f"data set {source.name}: no item has a hint, so expansion.kind hints could never help; fill in its hints, "
            "or take expansion {kind: none}"
        )
    if unchanged:
        log.warning(
            "data set %s: %d of %d items have no hints; they are trained on without", source.name, unchanged, count
        )


def _measured(
    source: Source,
    tokenizer: Tokenizer,
    edits_of: Callable[[Item], Sequence[str]],
    count: int,
    alive: Callable[[], None],
) -> np.ndarray:
    """Tokens of the longest changed prompt of the first items, int64[count]; 0 where there is none."""
    longest = np.zeros(count, np.int64)
    for index in range(count):
        item = source.item(index)
        changed = [edited(source, edit) for edit in edits_of(item)]
        longest[index] = max((len(prompt_tokens(s, tokenizer, index, s.item(index))) for s in changed), default=0)
        if index % AT_ONCE == AT_ONCE - 1:
            alive()
    return longest
