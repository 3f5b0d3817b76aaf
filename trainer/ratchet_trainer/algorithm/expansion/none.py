"""Expansion `none`: what was drawn is what is trained on."""

from __future__ import annotations

from collections.abc import Callable

from ratchet_trainer.algorithm.slots import Context, Plain
from ratchet_trainer.algorithm.types import Draw, Group, Request, Rounds


class NoExpansion:
    def init(self, ctx: Context) -> Plain:
        return {}

    def first(self, e: Plain, requests: list[Request], ctx: Context) -> list[Request]:
        return requests

    def run(
        self, e: Plain, groups: list[Group], more: Callable[[int], list[Draw]], ctx: Context
    ) -> Rounds[tuple[Plain, list[Group]]]:
        return e, groups
        yield  # a generator that needs no round
