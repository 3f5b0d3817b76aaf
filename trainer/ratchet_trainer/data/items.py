"""What a data set is to the trainer: numbered items, a digest that says which, and how an item becomes tokens.

Decides which source a manifest's data set means, and what a prompt is in tokens. Which items are too long for a stage
is in `lengths`; the sources themselves are in `reasoning_gym_items` and `file_items`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from ratchet_api.datasets import Dataset
from ratchet_trainer.data.item import Item, Message
from ratchet_trainer.data.prompt import Prompt
from ratchet_trainer.data.remembered import Remembered
from ratchet_trainer.data.tokenizer import Tokenizer
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.storage import Location

__all__ = ["Item", "Message", "Source", "answer_tokens", "open_source", "place_of", "prompt_of", "where"]


WITHOUT_ANSWER = ("code", "python", "http")
"""Verifiers that may do without an expected answer."""


class Source(Protocol):
    """Items 0..size-1 to train on. `digest` is hex and changes whenever any item could."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def held(self) -> bool:
        """Whether items are there already, or have to be made."""

    def item(self, index: int) -> Item: ...


def open_source(dataset: Dataset, cache: Location | Path | None = None, answers: bool = True) -> Source:
    """The source that a data set of the manifest means. `cache`: a folder for what need not be found out again in the
    next attempt; `answers`: whether items of a file must have an expected answer. Raises ConfigurationInvalid."""
    remembered = Remembered(cache)
    # Imported here: a process that needs the one should not pay for the other.
    if dataset.reasoning_gym is not None:
        from ratchet_trainer.data.reasoning_gym_items import ReasoningGymItems

        return ReasoningGymItems(dataset.name, dataset.reasoning_gym, dataset.system, remembered)
    from ratchet_trainer.data.file_items import FileItems

    if dataset.from_stage is not None:
        raise ConfigurationInvalid(
            f"data set {dataset.name}: it is there only in a run, once stage {dataset.from_stage} has made it; take "
            "the data set that the stage looks through"
        )
    assert dataset.file is not None  # the type's rules
    return FileItems(dataset.name, dataset.file, dataset.system, remembered, answers)


def needs_answer(dataset: Dataset) -> bool:
    """Whether the items of a data set need an expected answer to be verified."""
    return dataset.verifier not in WITHOUT_ANSWER


def where(source: Any, index: int) -> str:
    """Where an item is in its data set, for people: file and line, or its number."""
    named = getattr(source, "place", None)
    return str(named(index)) if named else f"item {index}"


def place_of(source: Any, index: int) -> str:
    """Data set and place of an item, for people."""
    return f"data set {source.name}, {where(source, index)}"


def prompt_of(source: Source, tokenizer: Tokenizer, index: int, limit: int) -> Prompt:
    """Item `index` as a prompt of 1 to `limit` tokens. Raises ConfigurationInvalid for another."""
    item = source.item(index)
    tokens = prompt_tokens(source, tokenizer, index, item)
    if len(tokens) > limit:
        raise ConfigurationInvalid(
            f"{place_of(source, index)}: the prompt has {len(tokens)} tokens, maxPromptTokens is {limit}; "
            f"raise it or leave the item out"
        )
    return Prompt(tokens, item.answer, item.question, item.fields)


def prompt_tokens(source: Source, tokenizer: Tokenizer, index: int, item: Item) -> tuple[int, ...]:
    """The tokens of an item's prompt. Raises ConfigurationInvalid for one that cannot be made or has none."""
    try:
        if item.messages is None:
            tokens = tuple(tokenizer.encode_prompt(item.question))
        else:
            tokens = tuple(tokenizer.encode_messages(item.messages))
    except ConfigurationInvalid as error:
        raise ConfigurationInvalid(f"{place_of(source, index)}: {error}") from None
    if not tokens:
        raise ConfigurationInvalid(
            f"{place_of(source, index)}: the prompt has no tokens, so nothing can follow it; leave the item "
            "out, or let the chat template begin with {{ bos_token }}"
        )
    return tokens


def answer_tokens(source: Source, tokenizer: Tokenizer, index: int, answer: str, limit: int) -> tuple[int, ...]:
    """An answer to be learned, END included, of at most `limit` tokens. Raises ConfigurationInvalid for a longer
    one."""
    tokens = tuple(tokenizer.encode_answer(answer))
    if len(tokens) > limit:
        raise ConfigurationInvalid(
            f"{place_of(source, index)}: the answer has {len(tokens)} tokens with its end, "
            f"maxResponseTokens is {limit}; raise it or leave the item out"
        )
    return tokens
