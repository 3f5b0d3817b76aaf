"""What a data set is to the trainer: numbered items, a digest that says which, and how an item becomes tokens.

Decides which source a manifest's data set means and what is refused for its length. The sources themselves are in
`reasoning_gym_items` and `jsonl`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ratchet_api.datasets import Dataset
from ratchet_trainer.data.prompt import Prompt
from ratchet_trainer.data.tokenizer import Tokenizer
from ratchet_trainer.errors import ConfigurationInvalid


@dataclass(frozen=True)
class Item:
    """A question and the answer that is expected."""

    question: str
    answer: str


class Source(Protocol):
    """Items 0..size-1 to train on. `digest` is hex and changes whenever any item could."""

    name: str
    digest: str
    size: int
    held: bool  # whether all items are in memory

    def item(self, index: int) -> Item: ...


def open_source(dataset: Dataset) -> Source:
    """The source that a data set of the manifest means. Raises ConfigurationInvalid."""
    # Imported here: a process that needs the one should not pay for the other.
    if dataset.reasoning_gym is not None:
        from ratchet_trainer.data.reasoning_gym_items import ReasoningGymItems

        return ReasoningGymItems(dataset.name, dataset.reasoning_gym)
    from ratchet_trainer.data.jsonl import JsonlItems

    assert dataset.jsonl is not None  # the type's rules
    return JsonlItems(dataset.name, dataset.jsonl)


def check_lengths(source: Source, tokenizer: Tokenizer, prompt_limit: int, answer_limit: int | None) -> None:
    """Raises ConfigurationInvalid for an item that is too long, before a step is made that could not be made again
    with another limit. All items of a file; of generated ones, which cost milliseconds each, the first hundred."""
    for index in range(source.size if source.held else min(source.size, 100)):
        prompt = prompt_of(source, tokenizer, index, prompt_limit)
        if answer_limit is not None:
            answer_tokens(source, tokenizer, index, prompt.answer, answer_limit)


def prompt_of(source: Source, tokenizer: Tokenizer, index: int, limit: int) -> Prompt:
    """Item `index` as a prompt of 1 to `limit` tokens. Raises ConfigurationInvalid for another."""
    item = source.item(index)
    tokens = tuple(tokenizer.encode_prompt(item.question))
    if not tokens:
        raise ConfigurationInvalid(
            f"data set {source.name}, item {index}: the prompt has no tokens, so nothing can follow it; leave the item "
            "out, or let the chat template begin with {{ bos_token }}"
        )
    if len(tokens) > limit:
        raise ConfigurationInvalid(
            f"data set {source.name}, item {index}: the prompt has {len(tokens)} tokens, maxPromptTokens is {limit}; "
            f"raise it or leave the item out"
        )
    return Prompt(tokens, item.answer)


def answer_tokens(source: Source, tokenizer: Tokenizer, index: int, answer: str, limit: int) -> tuple[int, ...]:
    """An answer to be learned, END included, of at most `limit` tokens. Raises ConfigurationInvalid for a longer
    one."""
    tokens = tuple(tokenizer.encode_answer(answer))
    if len(tokens) > limit:
        raise ConfigurationInvalid(
            f"data set {source.name}, item {index}: the answer has {len(tokens)} tokens with its end, "
            f"maxResponseTokens is {limit}; raise it or leave the item out"
        )
    return tokens
