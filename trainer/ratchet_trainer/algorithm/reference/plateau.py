"""Reference `plateau`: the weights that the stage began with, and those of then whenever a metric no longer rises
(ProRL, arXiv 2505.24864, section 3, which resets by hand)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ratchet_trainer.algorithm.slots import Context, Plain


@dataclass(frozen=True)
class Plateau:
    """Resets after `patience` values of `metric` in a row of which none is above the best one since the last reset by
    more than `min_delta`, with the optimizer or without. The value after a reset is the first to compare with.

    The window is {best, since}: the best value, as float.hex(), and how many have come after it. A step without the
    metric (no evaluation was due), or in which it is NaN, says nothing.
    """

    metric: str
    patience: int
    min_delta: float = 0.0
    optimizer: bool = False

    def init(self, params: Any) -> Any:
        return params

    def after(self, window: Plain, metrics: dict[str, float], ctx: Context) -> tuple[Plain, str]:
        value = metrics.get(self.metric, math.nan)
        if math.isnan(value):
            return window, "keep"
        if not window or value > float.fromhex(window["best"]) + self.min_delta:
            return {"best": float(value).hex(), "since": 0}, "keep"
        if window["since"] + 1 < self.patience:
            return {**window, "since": window["since"] + 1}, "keep"
        return {}, "reset+optimizer" if self.optimizer else "reset"
