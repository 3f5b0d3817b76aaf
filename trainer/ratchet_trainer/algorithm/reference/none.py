"""Reference `none`: drift is not measured."""

from __future__ import annotations

from typing import Any

from ratchet_trainer.algorithm.slots import Context, Plain


class NoReference:
    def init(self, params: Any) -> None:
        return None

    def after(self, window: Plain, metrics: dict[str, float], ctx: Context) -> tuple[Plain, str]:
        return window, "keep"
