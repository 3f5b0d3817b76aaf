"""A prompt, as the sampler and the learner see it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """What an item asks, as tokens, and what it expects, as text."""

    tokens: tuple[int, ...]
    answer: str
