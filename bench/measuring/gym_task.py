"""A task of reasoning-gym, for rows of `experiments` that are to be less of a toy.

Decides what is asked and how the built-in tiny model is warmed up; there are no starting weights to share, so every run
begins with the same supervised steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Gym:
    """`task` and `config` as reasoning-gym names them, `size` items to train on, prompts and responses of at most so
    many tokens (bytes), and as many supervised steps of 64 items before learning."""

    task: str
    config: Mapping[str, Any]
    size: int
    prompt_tokens: int
    response_tokens: int
    warm_up: int

    def dataset(self, name: str) -> dict[str, Any]:
        return {"name": name, "reasoningGym": {"task": self.task, "size": self.size, "config": dict(self.config)}}

    def stage(self, dataset: str) -> dict[str, Any]:
        """The supervised stage."""
        limits = {"maxPromptTokens": self.prompt_tokens, "maxResponseTokens": self.response_tokens}
        sft = {"dataset": dataset, "batchSize": 64, **limits, "optimizer": {"learningRate": "0.004"}}
        return {"name": "warm-up", "sft": sft, "advance": {"steps": self.warm_up}}
