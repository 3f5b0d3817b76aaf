"""Reward parts of length: what the number of a response's tokens earns. Limits are the stage's maxResponseTokens.

`overlong` (DAPO, arXiv 2503.14476, equation 13): with L the limit and B the buffer, 0 up to L - B tokens, then
((L - B) - tokens) / B, so -1 at L.

`cosine` (arXiv 2502.03373, equation 1): r0 + (r1 - r0) (1 + cos(pi tokens / L)) / 2 with (r1, r0) = (1, 0.5) for a
right answer and (-1, -0.5) for a wrong one, where r1 is for no tokens and r0 for L; -1 where the limit
cut the response.

`unfinished` (ProRL, arXiv 2505.24864, runs 4 and 5): a constant where the limit cut the response, else 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ratchet_trainer.algorithm.slots import Context
from ratchet_trainer.algorithm.types import Group


def overlong(tokens: int, limit: int, buffer: int) -> float:
    """In [-1, 0]."""
    free = limit - buffer
    return 0.0 if tokens <= free else max(-1.0, (free - tokens) / buffer)


def cosine(tokens: int, limit: int, right: bool, cut: bool) -> float:
    """In [-1, 1]."""
    if cut:
        return -1.0
    short, long = (1.0, 0.5) if right else (-1.0, -0.5)
    return long + (short - long) * (1 + math.cos(math.pi * min(tokens, limit) / limit)) / 2


@dataclass(frozen=True)
class Overlong:
    name: str
    buffer: int

    def of(self, group: Group, ctx: Context) -> Sequence[float]:
        return [overlong(len(r.response), ctx.rl.max_response_tokens, self.buffer) for r in group.rollouts]


@dataclass(frozen=True)
class Cosine:
    name: str

    def of(self, group: Group, ctx: Context) -> Sequence[float]:
        limit = ctx.rl.max_response_tokens
        return [cosine(len(r.response), limit, r.outcome.accuracy == 1.0, r.finish == "length") for r in group.rollouts]


@dataclass(frozen=True)
class Unfinished:
    name: str
    value: float

    def of(self, group: Group, ctx: Context) -> Sequence[float]:
        return [self.value if r.finish == "length" else 0.0 for r in group.rollouts]
