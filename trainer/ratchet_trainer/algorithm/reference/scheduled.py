"""Reference `scheduled`: the weights that the stage began with, and every so many steps those of then (GRPO's outer
iterations, arXiv 2402.03300, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ratchet_trainer.algorithm.slots import Context, Plain


@dataclass(frozen=True)
class Scheduled:
    """Resets after each `every_steps` steps of the stage, with the optimizer or without. Steps are counted from the
    stage's start, so that a restart changes none of them."""

    every_steps: int
    optimizer: bool = False

    def init(self, params: Any) -> Any:
        return params

    def after(self, window: Plain, metrics: dict[str, float], ctx: Context) -> tuple[Plain, str]:
        if (ctx.step - ctx.start_step) % self.every_steps:
            return window, "keep"
        return window, "reset+optimizer" if self.optimizer else "reset"
