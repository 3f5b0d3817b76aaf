"""Expansions without a model: a made-up policy answers what they ask, and the loop around them is `run.batch`'s."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from drawing_path import rl, rollout

from ratchet_trainer.algorithm.group_outcomes import verified
from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.methods import resolve
from ratchet_trainer.algorithm.slots import Context, SlotState
from ratchet_trainer.algorithm.types import Draw, Group, Request, Rollout, StepSamples, grouped

Answer = Callable[[Request, int], bool | None]


@dataclass
class Expanding:
    """One stage's expansion; item = ordinal. `asked`: every round of requests that was answered."""

    settings: dict[str, Any]
    answer: Answer
    step: int = 0
    next_ordinal: int = 0
    seed: int = 5
    asked: list[list[Request]] = field(default_factory=list)
    state: SlotState | None = None

    def __post_init__(self) -> None:
        self.rl = rl(**self.settings)
        self.method = resolve(self.rl)
        if self.state is None:
            self.state = self.method.expansion.init(self.context)

    @property
    def context(self) -> Context:
        return Context(self.seed, self.step + 1, self.next_ordinal, self.rl)

    def drawn(self, n: int) -> list[Request]:
        first, self.next_ordinal = self.next_ordinal, self.next_ordinal + n
        plain = [Request(Draw(first + i, first + i), Purpose.TRAIN, self.rl.group_size) for i in range(n)]
        return self.method.expansion.first(self.state, plain, self.context)

    def answered(self, requests: Sequence[Request]) -> list[Rollout]:
        self.asked.append(list(requests))
        made = [(r, r.first + i) for r in requests for i in range(r.n)]
        return [replace(rollout(r, i, self.answer(r, i)), version=self.step) for r, i in made]

    def reward(self, group: Group) -> Group:
        return self.method.rewards.score(group, self.context)

    def advance(self, first: int | None = None) -> StepSamples:
        """Makes a step, whose first round draws `first` prompts (promptsPerStep)."""
        requests = self.drawn(first or self.rl.prompts_per_step)
        groups, failed = verified([self.reward(g) for g in grouped(requests, self.answered(requests))])
        rounds = self.method.expansion.run(self.state, groups, self.drawn, self.reward, self.context)
        try:
            requests = next(rounds)
            while True:
                requests = rounds.send(self.answered(requests))
        except StopIteration as stop:
            self.state, samples = stop.value
        carried = [g for g in samples.dropped if g.disposition == "carried"]
        if carried:
            kept = [
                replace(g, rollouts=tuple(replace(r, old_logp=np.float32([-2])) for r in g.rollouts)) for g in carried
            ]
            self.state = self.method.expansion.keep(self.state, kept)
        self.step += 1
        return replace(samples, dropped=(*samples.dropped, *failed))

    def metrics(self) -> dict[str, float]:
        return self.method.expansion.metrics(self.state, self.context)

    def restarted(self) -> Expanding:
        """What a restart makes of the state, which goes through the form that it has in a checkpoint."""
        arrays = {n: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape) for n, a in self.state.arrays.items()}
        state = SlotState(json.loads(json.dumps(self.state.plain)), arrays)
        return Expanding(self.settings, self.answer, self.step, self.next_ordinal, self.seed, list(self.asked), state)


def by_count(right: dict[int, int | None]) -> Answer:
    """A policy that is right in the first so many samples of an item (None: no verifier says anything)."""
    return lambda request, sample: None if right[request.draw.item] is None else sample < right[request.draw.item]


def ordinals(groups: Sequence[Group]) -> list[int]:
    return [g.draw.ordinal for g in groups]
