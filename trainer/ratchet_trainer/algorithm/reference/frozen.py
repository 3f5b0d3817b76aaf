"""Reference `frozen`: the weights that the stage began with, for as long as it lasts."""

from __future__ import annotations

from typing import Any

from ratchet_trainer.algorithm.slots import Context, Plain


class Frozen:
    def init(self, params: Any) -> Any:
        return params

    def after(self, window: Plain, metrics: dict[str, float], ctx: Context) -> tuple[Plain, str]:
        return window, "keep"
