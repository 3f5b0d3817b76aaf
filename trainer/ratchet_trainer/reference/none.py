"""Reference `none`: drift is not measured."""

from __future__ import annotations

from ratchet_trainer.slots import Context


class NoReference:
    def after(self, metrics: dict[str, float], ctx: Context) -> str:
        return "keep"
