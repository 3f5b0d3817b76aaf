"""Expansion `none`: what was drawn is what is trained on."""

from __future__ import annotations

from collections.abc import Sequence

from ratchet_api.stages import Rl
from ratchet_trainer.algorithm.slots import Context, More, Reward, SlotState
from ratchet_trainer.algorithm.types import Group, Request, Rounds, StepSamples


class NoExpansion:
    """Keeps nothing and says nothing; other expansions replace what they answer otherwise."""

    def samples(self, rl: Rl) -> tuple[int, ...]:
        return ()

    def init(self, ctx: Context) -> SlotState:
        return SlotState()

    def first(self, e: SlotState, requests: list[Request], ctx: Context) -> list[Request]:
        return requests

    def run(
        self, e: SlotState, groups: list[Group], more: More, reward: Reward, ctx: Context
    ) -> Rounds[tuple[SlotState, StepSamples]]:
        return e, StepSamples(tuple(groups))
        yield  # a generator that needs no round

    def keep(self, e: SlotState, carried: Sequence[Group]) -> SlotState:
        raise ValueError("nothing is carried over without an expansion")

    def metrics(self, e: SlotState, ctx: Context) -> dict[str, float]:
        return {}
