"""A prompt, as the sampler, the learner and the verifiers see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Prompt:
    """What an item asks, as tokens and as text, and what it expects, as text. `fields`: what else the item has, for
    verifiers."""

    tokens: tuple[int, ...]
    answer: str
    question: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def item(self, index: int) -> dict[str, Any]:
        """The item as a verifier sees it."""
        return {**self.fields, "question": self.question, "answer": self.answer, "index": index}
