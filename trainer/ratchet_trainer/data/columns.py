"""What an object of a file means as an item: its question or messages, its answer, and the rest.

Decides what is accepted and with which words the rest is refused. Numbers as answers are their JSON text; null, blank,
true, lists and objects are no answers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ratchet_api.datasets import Columns
from ratchet_trainer.data.hints import HINTS, Tiers, WrongHints, tiers
from ratchet_trainer.data.item import Item, Message

ROLES = ("system", "user", "assistant")
SHOWN = 8
"""Keys of an object that an error names."""


class Refused(ValueError):
    """An object is no item; the text says why and what to do. Whoever read it adds the place."""


class WrittenFloat(float):
    """A number that remembers how it was written, for `json.loads(parse_float=...)`."""

    text: str

    def __new__(cls, text: str) -> WrittenFloat:
        made = super().__new__(cls, text)
        made.text = text
        return made


def item_of(row: Mapping[str, Any], columns: Columns, answers: bool = True) -> Item:
    """The item that an object is. `answers`: whether an answer is needed, which some verifiers do without.

    Raises Refused.
    """
    asked = columns.messages or columns.question
    try:
        prompt = _at(row, asked)
    except KeyError:
        raise Refused(_no_key(row, asked, columns)) from None
    listed = columns.messages is not None or isinstance(prompt, list)
    said = _messages(prompt, asked) if listed else ()
    question = said[-1]["content"] if said else _text(prompt, asked)
    fields = {key: value for key, value in row.items() if key not in (asked, columns.answer, columns.hints)}
    if columns.hints is not None:
        fields.pop(HINTS, None)  # a column of that name is none of the hints
        if found := _hints(row, columns.hints):
            fields[HINTS] = found
    answer = _given_answer(row, columns, needed=answers and not (said and said[-1]["role"] == "assistant"))
    if said and said[-1]["role"] == "assistant":
        if answer is None:
            answer = _text(said[-1]["content"], f"{asked}: the assistant's last message")
        said = said[:-1]
    if said or listed:
        if not said or said[-1]["role"] != "user":
            raise Refused(f"{asked!r}: the last message before the answer is not a user's; ask something there")
        question = _text(said[-1]["content"], f"{asked}: the last message")
    if answer is None:
        if answers:
            raise Refused(_no_key(row, columns.answer, columns))
        answer = ""
    alone = len(said) < 2
    return Item(question, answer, None if alone else said, fields)


def _hints(row: Mapping[str, Any], key: str) -> Tiers:
    """The hints of an object; none where there is no such key."""
    try:
        return tiers(_at(row, key), key)
    except KeyError:
        return []
    except WrongHints as wrong:
        raise Refused(str(wrong)) from None


def _given_answer(row: Mapping[str, Any], columns: Columns, needed: bool) -> str | None:
    """The text of the answer's key; None where there is no such key, or null in it and no answer is needed."""
    try:
        value = _at(row, columns.answer)
    except KeyError:
        return None
    return None if value is None and not needed else _text(value, columns.answer, number=True)


def _at(row: Mapping[str, Any], key: str) -> Any:
    """The value of a key; with dots, where there is no such key, that of a key in an object. Raises KeyError."""
    if key in row:
        return row[key]
    first, dot, rest = key.partition(".")
    if dot and isinstance(row.get(first), Mapping):
        return _at(row[first], rest)
    raise KeyError(key)


def _no_key(row: Mapping[str, Any], key: str, columns: Columns) -> str:
    there = [repr(k) for k in row]
    more = f" and {len(there) - SHOWN} more" if len(there) > SHOWN else ""
    way = "set question (or messages) and answer of this data set to the keys of your file"
    if key == columns.question and isinstance(row.get("messages"), list):
        way = "set messages: messages of this data set to read chat messages"
    return f"no key {key!r} (there is {', '.join(there[:SHOWN]) or 'none'}{more}); {way}"


def _text(value: Any, key: str, number: bool = False) -> str:
    """A text that can be asked or answered. Raises Refused with the way out that fits."""
    kind = type(value).__name__
    if isinstance(value, str):
        if not value.strip():
            raise Refused(f"{key!r} is {'blank' if value else 'empty'}; fill it in or leave the item out")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise Refused(f"{key!r} holds half of a surrogate pair; write it whole") from None
        return value
    if value is None:
        raise Refused(f"{key!r} is null; fill it in or leave the item out")
    if isinstance(value, bool):
        raise Refused(f'{key!r} is {str(value).lower()}; write the text that is expected, for example "yes"')
    if isinstance(value, (int, float)):
        if number:
            return _number(value, key)
        raise Refused(f"{key!r} is a number, not a text; quote it")
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        raise Refused(f"{key!r} is a list of {len(value)}; an answer is one text: choose one or join them")
    if isinstance(value, Mapping):
        first = next(iter(value), "text")
        raise Refused(f"{key!r} is an object; name the key within it, for example {key}.{first}")
    raise Refused(f"{key!r} is of type {kind}; write it as text")


def _number(value: float, key: str) -> str:
    """A number as JSON writes it: as the file has it, or for tables the shortest form, whole ones without a point."""
    if not math.isfinite(value):
        raise Refused(f"{key!r} is {value}, which is no number; leave the item out")
    if isinstance(value, WrittenFloat):
        return value.text
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
    return json.dumps(int(value) if whole else value)


def _messages(value: Any, key: str) -> tuple[Message, ...]:
    """Messages, checked one by one. Raises Refused."""
    if not isinstance(value, list):
        raise Refused(f"{key!r} is no list of messages {{role, content}}; set question instead of messages for a text")
    if not value:
        raise Refused(f"{key!r} is an empty list; leave the item out")
    return tuple(_message(one, f"{key}[{i}]") for i, one in enumerate(value))


def _message(value: Any, key: str) -> Message:
    if not isinstance(value, Mapping) or "role" not in value or "content" not in value:
        hint = "; these have from and value: rename them" if isinstance(value, Mapping) and "from" in value else ""
        raise Refused(f"{key!r} is no message {{role, content}}{hint}")
    role, content = value["role"], value["content"]
    if role not in ROLES:
        raise Refused(f"{key!r} is of role {role!r}; {', '.join(ROLES)} are read")
    if value.get("tool_calls"):
        raise Refused(f"{key!r} calls tools, which are not read; leave the item out")
    if isinstance(content, list):  # parts, as multimodal data has them
        texts = [part for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
        parts = [part["text"] for part in texts if isinstance(part.get("text"), str)]
        if not parts or len(parts) < len(content):
            raise Refused(f"{key!r} holds something other than text; leave the item out")
        content = "".join(parts)
    if content == "" and role == "system":
        return {"role": role, "content": content}
    return {"role": role, "content": _text(content, f"{key}.content")}
