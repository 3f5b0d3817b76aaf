"""A call: some prompts of a step's round, with all that decides the bits of their responses.

Decides its bytes and its names. What is too big to be repeated is named: the weights by their digest, the program by
that of its shape, the settings of sampling by the stage's hash. So two calls of one name are one call, whoever made
them, and its object may be written again at any time.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

V = 1
MOST_BYTES = 64 << 20
"""Of a call's object; a larger one is damage."""
FOLDER = re.compile(r"([0-9]+)-([0-9]+)/([0-9]+)-([0-9]+)-([0-9a-f]{32})")
"""stage-step/round-number-digest."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Damaged(Exception):
    """Bytes that are not what was written, or not what was asked for; the message says in what."""


@dataclass(frozen=True)
class Call:
    """Tuples of integers are by prompt: `prompts` token ids, `ordinals` and `tags` of their draws, `limits` the most
    tokens of each one's responses.

    `step` is the one that it is for, `number` counts the calls of a `round`; `version` is the digest of the weights,
    `shape` that of the program (`fleet/programs.py`). `rows`: prompts of the call's shape, dummies included.
    """

    stage: int
    stage_hash: str
    step: int
    round: int
    number: int
    version: str
    shape: str
    prompts: tuple[tuple[int, ...], ...]
    purpose: int
    samples: int
    first: int
    ordinals: tuple[int, ...]
    tags: tuple[int, ...]
    limits: tuple[int, ...]
    rows: int
    prompt_slots: int
    response_slots: int
    refills: bool

    def to_bytes(self) -> bytes:
        """JSON with its fields in one order."""
        said = {"v": V} | {field.name: getattr(self, field.name) for field in fields(self)}
        return json.dumps(said, separators=(",", ":"), allow_nan=False).encode()

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of its bytes."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @cached_property
    def folder(self) -> str:
        """Where it lies on the board."""
        return f"{self.stage}-{self.step}/{self.round}-{self.number}-{self.digest[:32]}"

    @classmethod
    def from_bytes(cls, data: bytes, folder: str | None = None) -> Call:
        """The call of an object that lies in `folder`. Raises Damaged."""
        if len(data) > MOST_BYTES:
            raise Damaged(f"a call of {len(data)} bytes, more than {MOST_BYTES}")
        try:
            said = json.loads(data)
            if said.pop("v") != V:
                raise Damaged("a call of another format; use one image for trainer and workers")
            call = cls(**{name: _frozen(value) for name, value in said.items()})
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise Damaged(f"no call: {error!r}") from error
        if (wrong := call._wrong()) is not None:
            raise Damaged(f"a call with a bad value of {wrong}")
        if call.to_bytes() != data or (folder is not None and call.folder != folder):
            raise Damaged("a call that is not the one its name says")
        return call

    def _wrong(self) -> str | None:
        """The first field whose value cannot be."""
        n = len(self.prompts) if isinstance(self.prompts, tuple) else 0
        right = {
            "prompts": n > 0 and all(map(_counts, self.prompts)),
            **{name: _counts(value) and len(value) == n for name, value in _by_prompt(self).items()},
            **{name: _count(getattr(self, name)) for name in _NUMBERS},
            "samples": _count(self.samples) and self.samples > 0,
            "rows": _count(self.rows) and self.rows >= n,
            "refills": isinstance(self.refills, bool),
            "stage_hash": isinstance(self.stage_hash, str),
            "version": isinstance(self.version, str) and bool(_DIGEST.fullmatch(self.version)),
            "shape": isinstance(self.shape, str) and bool(_DIGEST.fullmatch(self.shape)),
        }
        return next((name for name, good in right.items() if not good), None)


_NUMBERS = ("stage", "step", "round", "number", "purpose", "first", "prompt_slots", "response_slots")


def _by_prompt(call: Call) -> dict[str, Any]:
    return {name: getattr(call, name) for name in ("ordinals", "tags", "limits")}


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 64


def _counts(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_count, value))


def _frozen(value: Any) -> Any:
    """Lists as tuples, but not those inside of a case."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
