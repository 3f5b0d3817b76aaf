"""Which items of a data set a curate stage asks: without duplicates, contradictions and prompts that are too long.

Decides it from the data, the tokenizer and the stage's settings alone, so every attempt finds the same. An item that is
left out for several reasons is counted for the first one in the order of LEFT_OUT.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ratchet_api.curation import Curate
from ratchet_trainer.data.items import Source
from ratchet_trainer.data.lengths import AT_ONCE, Kept, measured
from ratchet_trainer.data.remembered import Remembered
from ratchet_trainer.data.tokenizer import Tokenizer
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.storage import Location

LEFT_OUT = ("contradictory", "duplicates", "tooLong")
"""Reasons, as the report counts them."""


class Candidates(Kept):
    """The items that are asked, numbered anew. `numbers` int64[n]: their numbers in the data set; `left_out`: how many
    others there are, by reason; `of`: all items."""

    def __init__(self, source: Source, numbers: np.ndarray, left_out: dict[str, int]):
        super().__init__(source, numbers)
        self.numbers, self.left_out, self.of = numbers, left_out, source.size


def candidates(
    source: Source,
    tokenizer: Tokenizer,
    settings: Curate,
    longest: int,
    cache: Location | Path | None = None,
    alive: Callable[[], None] = lambda: None,
) -> Candidates:
    """What a curate stage asks of a data set. `longest`: most tokens of a prompt; `cache`: a folder for lengths, which
    a later attempt need not measure again; `alive` is called now and then.
    Raises ConfigurationInvalid that names the items that no prompt can be made of, and where none is left."""
    lengths = measured(source, tokenizer, False, Remembered(cache), source.size, alive)
    first: dict[int, int] = {}  # hash of what is asked -> the first item that asks it
    answers: dict[int, set[bytes]] = {}
    asked, too_long = np.empty(source.size, np.uint64), lengths[:, 0] > longest
    for index in range(source.size):
        item = source.item(index)
        asked[index] = key = item.asked_hash
        first.setdefault(key, index)
        answers.setdefault(key, set()).add(hashlib.blake2b(item.answer.strip().encode(), digest_size=8).digest())
        if index % AT_ONCE == 0:
            alive()
    left_out, numbers = dict.fromkeys(LEFT_OUT, 0), []
    for index in range(source.size):
        key = int(asked[index])
        if settings.contradictions == "LeaveOut" and len(answers[key]) > 1:
            left_out["contradictory"] += 1
        elif settings.deduplicate == "byQuestion" and first[key] != index:
            left_out["duplicates"] += 1
        elif too_long[index]:
            left_out["tooLong"] += 1
        else:
            numbers.append(index)
    if not numbers:
        counts = ", ".join(f"{count} {name}" for name, count in left_out.items() if count)
        raise ConfigurationInvalid(
            f"data set {source.name}: none of its {source.size} items can be asked ({counts}); mend them, raise "
            "maxPromptTokens, or say contradictions: Keep"
        )
    return Candidates(source, np.array(numbers, np.int64), left_out)
