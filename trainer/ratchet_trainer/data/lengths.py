"""Which items are too long for a stage, found before its first step.

Decides what becomes of them: a file with some is refused with all of them named, or they are left out where the
manifest says so; generated items, which cannot be mended, are left out and the next one takes their place. Lengths of a
file are measured once and remembered by the digests of data and tokenizer, so any limit is checked at once later.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ratchet_trainer.data import held_out
from ratchet_trainer.data.faults import Faults
from ratchet_trainer.data.item import Item
from ratchet_trainer.data.items import Source, place_of, prompt_tokens, where
from ratchet_trainer.data.remembered import Remembered, key_of
from ratchet_trainer.data.tokenizer import Tokenizer
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.storage import Location

log = logging.getLogger(__name__)

VERSION = 1
"""Of how text becomes tokens here; lengths of another one are measured again."""
LOOKED_AT = 100
"""Generated items, of milliseconds each, that are measured before the first step."""
TRIED = 1000
"""Items in the place of one that is too long."""
AT_ONCE = 20_000
"""Items after which what was measured is kept: an attempt may end in the middle."""


@dataclass(frozen=True)
class Limits:
    """Most tokens of a prompt, and of an answer with its end (None: answers are not learned). `asked`: what the stage
    allows prompts, where the model's positions leave less (None: `prompt`)."""

    prompt: int
    answer: int | None
    asked: int | None = None


def check_lengths(
    source: Source,
    tokenizer: Tokenizer,
    limits: Limits,
    cache: Location | Path | None = None,
    overlong: str | None = None,
    alive: Callable[[], None] = lambda: None,
) -> Source:
    """The source to train on, in which every item fits. `overlong` is the data set's setting; `alive` is called now and
    then while a large file is measured.

    Raises ConfigurationInvalid that names the items which are too long, before a step is made that could not be made
    again with another limit."""
    if not source.held and overlong != "Refuse":
        return _generated(source, tokenizer, limits, alive)
    lengths = measured(source, tokenizer, limits.answer is not None, Remembered(cache), source.size, alive)
    too_long = _too_long(lengths, limits)
    if not too_long.any():
        return source
    said = _said(source, lengths, limits, "items are too long")
    if overlong != "LeaveOut" or too_long.all():
        raise ConfigurationInvalid(said)
    log.warning("%s. They are left out, as overlong: LeaveOut says", said)
    return Kept(source, np.nonzero(~too_long)[0])


def _generated(source: Source, tokenizer: Tokenizer, limits: Limits, alive: Callable[[], None]) -> Source:
    """A source of items that cost milliseconds each, without those that are too long. Raises ConfigurationInvalid if
    most of the first ones are."""
    looked_at = min(source.size, LOOKED_AT)
    lengths = measured(source, tokenizer, limits.answer is not None, Remembered(None), looked_at, alive)
    too_long = _too_long(lengths, limits)
    if too_long.any():
        said = _said(source, lengths, limits, "items, the first ones, are too long")
        if 2 * too_long.sum() > looked_at:
            raise ConfigurationInvalid(said)
        log.warning("%s. They are left out: the next that fits takes the place of each", said)
    return Fitting(source, tokenizer, limits)


class Kept:
    """Some items of a source, numbered anew."""

    held = True

    def __init__(self, source: Source, kept: np.ndarray):
        self.name, self.size = source.name, len(kept)
        self._source, self._kept = source, kept
        self.digest = hashlib.sha256(f"{source.digest}/kept/".encode() + kept.astype("<i8").tobytes()).hexdigest()

    @property
    def origin(self) -> Source:
        """What they are of."""
        return self._source

    def item(self, index: int) -> Item:
        return self._source.item(int(self._kept[index]))

    def place(self, index: int) -> str:
        return where(self._source, int(self._kept[index]))

    @cached_property
    def asked(self) -> np.ndarray:
        return np.asarray(held_out.asked(self._source)[self._kept])


class Fitting:
    """A source of generated items in which the next item that fits stands for one that is too long. Which one follows
    from data, tokenizer and limits, so every attempt finds the same."""

    held = False

    def __init__(self, source: Source, tokenizer: Tokenizer, limits: Limits):
        self.name, self.digest, self.size = source.name, source.digest, source.size
        self._source, self._tokenizer, self._limits = source, tokenizer, limits
        self._found: dict[int, int] = {}
        self.left_out = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def item(self, index: int) -> Item:
        """Raises ConfigurationInvalid if nothing fits for long."""
        if index not in self._found:
            self._found[index] = self._first_that_fits(index)
        return self._source.item(self._found[index])

    def _first_that_fits(self, index: int) -> int:
        for tried in range(min(TRIED, self.size)):
            at = (index + tried) % self.size
            lengths = _lengths(self._source, self._tokenizer, at, self._limits.answer is not None)
            if not _too_long(np.array([lengths]), self._limits).any():
                if tried:
                    self._count(index, at)
                return at
        raise ConfigurationInvalid(
            f"{place_of(self._source, index)}: neither it nor the {TRIED} items after it fit maxPromptTokens "
            f"{self._limits.prompt} (maxResponseTokens {self._limits.answer}); raise them"
        )

    def _count(self, index: int, instead: int) -> None:
        self.left_out += 1
        if str(self.left_out).strip("0") == "1":  # 1, 10, 100 ...
            log.warning(
                "%s is longer than the stage allows: item %d takes its place (%d so far)",
                place_of(self._source, index), instead, self.left_out,
            )  # fmt: skip


def _lengths(source: Source, tokenizer: Tokenizer, index: int, answers: bool) -> tuple[int, int]:
    """Tokens of an item's prompt and, where asked for, of its answer. Raises ConfigurationInvalid."""
    item = source.item(index)
    prompt = prompt_tokens(source, tokenizer, index, item)
    return len(prompt), len(tokenizer.encode_answer(item.answer)) if answers else 0


def measured(
    source: Source, tokenizer: Tokenizer, answers: bool, remembered: Remembered, count: int, alive: Callable[[], None]
) -> np.ndarray:
    """Tokens of prompt and answer (0 without `answers`) of the first `count` items, int64[count, 2], as far as they are
    known from `remembered`. Raises ConfigurationInvalid that names the items that no prompt can be made of."""
    key = key_of("lengths", VERSION, source.digest, tokenizer.digest, answers)
    kept = remembered.find(key, "lengths")
    known = kept["lengths"][:count] if kept is not None else np.empty((0, 2), np.int64)
    lengths = np.zeros((count, 2), np.int64)
    lengths[: len(known)] = known
    faults = Faults()
    for index in range(len(known), count):
        try:
            lengths[index] = _lengths(source, tokenizer, index, answers)
        except ConfigurationInvalid as error:
            faults.add(where(source, index), str(error).removeprefix(f"{place_of(source, index)}: "))
        done = index + 1
        if done % AT_ONCE == 0:
            alive()
        if not faults and (done % AT_ONCE == 0 or done == count):
            remembered.keep(key, {"lengths": lengths[:done]})
    if faults:
        raise ConfigurationInvalid(f"data set {source.name}: {faults.said(count, 'items make no prompt')}")
    return lengths


def _too_long(lengths: np.ndarray, limits: Limits) -> np.ndarray:
    """bool[n]: which of int64[n, 2] are beyond the limits."""
    beyond = lengths[:, 0] > limits.prompt
    return beyond if limits.answer is None else beyond | (lengths[:, 1] > limits.answer)


def _said(source: Source, lengths: np.ndarray, limits: Limits, of: str) -> str:
    """Which items are too long, the longest first, and the ways out."""
    faults, ways = Faults(), []
    columns = (("prompt", "maxPromptTokens", limits.prompt), ("answer", "maxResponseTokens", limits.answer))
    too_long = _too_long(lengths, limits)
    for column, (_, setting, limit) in enumerate(columns):
        if limit is not None and (longest := int(lengths[:, column].max())) > limit:
            if column == 0 and limits.asked is not None and limits.asked > limit:
                ways.append(
                    f"The model's positions (max_position_embeddings) leave {limit} tokens for a prompt beside a "
                    "response of maxResponseTokens, lower that"
                )
            else:
                ways.append(f"{setting} is {limit}, raise it to {longest}")
    for index in map(int, np.nonzero(too_long)[0]):
        parts = [
            f"the {what} has {lengths[index, column]} tokens{' with its end' if column else ''}"
            for column, (what, _, limit) in enumerate(columns)
            if limit is not None and lengths[index, column] > limit
        ]
        faults.add(where(source, index), " and ".join(parts), size=int(lengths[index].sum()))
    way = ", or leave them out: by hand, or under a new name with overlong: LeaveOut" if source.held else ""
    return f"data set {source.name}: {faults.said(len(lengths), of)}. {'; '.join(ways)}{way}"
