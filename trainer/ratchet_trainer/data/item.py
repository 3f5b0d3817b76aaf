"""One item of a data set: what is asked, what is expected, and what else the data say of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Message = Mapping[str, str]
"""{role: system | user | assistant, content}."""


@dataclass(frozen=True)
class Item:
    """A question and the answer that is expected. `messages`: the whole prompt where it is more than one message of a
    user; the last of them is the question. `fields`: the other columns, for verifiers."""

    question: str
    answer: str
    messages: tuple[Message, ...] | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def asked(self) -> str:
        """What makes two items the same to whoever answers: the question, after the turns before it. System messages
        do not count."""
        turns = [[m["role"], m["content"]] for m in self.messages or () if m["role"] != "system"]
        return self.question if len(turns) < 2 else json.dumps(turns, ensure_ascii=False)

    @property
    def asked_hash(self) -> int:
        """64 bits of a hash of `asked`."""
        return int.from_bytes(hashlib.blake2b(self.asked.encode(), digest_size=8).digest())


def with_question(item: Item, question: str) -> Item:
    """The item that asks another question, after the same turns."""
    if item.messages is None:
        return replace(item, question=question)
    return replace(item, question=question, messages=(*item.messages[:-1], {"role": "user", "content": question}))


def with_system(item: Item, system: str | None) -> Item:
    """The item with a system message first, unless its messages have one or there is none to put."""
    messages = item.messages or ({"role": "user", "content": item.question},)
    if system is None or messages[0]["role"] == "system":
        return item
    return replace(item, messages=({"role": "system", "content": system}, *messages))
