"""Selections without a model: a made-up policy answers what they ask, and the loop around them is `run.batch`'s."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ratchet_api.stages import Rl
from ratchet_trainer.algorithm.methods import resolve
from ratchet_trainer.algorithm.slots import Context, DataFacts, SlotState
from ratchet_trainer.algorithm.types import Draw, Group, Outcome, Prompt, Request, Rollout, StepSamples, grouped

Answer = Callable[[Request, int], bool | None]
"""Whether a sample of a request is right; None: no verifier said so."""
PROMPT = Prompt((1,), "", "", {})
NOTHING = np.zeros(1, np.float32)


def rollout(request: Request, sample: int, right: bool | None, finish: str = "end") -> Rollout:
    outcome = Outcome(float(bool(right)), float(bool(right)), status="crash" if right is None else "ok")
    return Rollout(request, PROMPT, PROMPT, sample, (1,), NOTHING, NOTHING, 0, finish, outcome)  # type: ignore[arg-type]


def group(item: int, right: Sequence[bool | None], ordinal: int | None = None, **changes: Any) -> Group:
    """A group of these responses."""
    request = Request(Draw(item if ordinal is None else ordinal, item), 0, len(right))  # type: ignore[arg-type]
    return replace(Group(request.draw, tuple(rollout(request, i, r) for i, r in enumerate(right))), **changes)


def rl(prompts: int = 4, group_size: int = 4, **settings: Any) -> Rl:
    return Rl.model_validate({"dataset": "d", "promptsPerStep": prompts, "groupSize": group_size, **settings})


@dataclass
class Path:
    """One stage's data path. `asked`: every request that was answered; `steps`: what each step sampled."""

    rl: Rl
    source: DataFacts
    answer: Answer
    further: int = 0  # prompts that an expansion asks for besides, in each step
    seed: int = 5
    step: int = 0
    next_ordinal: int = 0
    state: SlotState = field(default_factory=SlotState)
    asked: list[Request] = field(default_factory=list)
    steps: list[StepSamples] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.selection = resolve(self.rl).selection
        if not self.state.plain:
            self.state = self.selection.init(self.source, self.context(0))

    def context(self, drawn: int) -> Context:
        return Context(self.seed, self.step + 1, self.next_ordinal + drawn, self.rl)

    def planned(self, need: int, drawn: int) -> tuple[list[Request], list[Group]]:
        rounds = self.selection.plan(self.state, self.source, need, self.context(drawn))
        try:
            requests = next(rounds)
            while True:
                requests = rounds.send(self.answered(requests))
        except StopIteration as stop:
            self.state, requests, ready = stop.value
        return requests, ready

    def answered(self, requests: Sequence[Request]) -> list[Rollout]:
        self.asked += requests
        return [rollout(r, r.first + i, self.answer(r, r.first + i)) for r in requests for i in range(r.n)]

    def advance(self) -> StepSamples:
        """Makes a step."""
        requests, ready = self.planned(self.rl.prompts_per_step, 0)
        if self.further:
            more, others = self.planned(self.further, len(requests) + len(ready))
            requests, ready = [*requests, *more], [*ready, *others]
        groups = [*ready, *grouped(requests, self.answered(requests))]
        trained = tuple(replace(g, disposition="trained") for g in groups if g.disposition is None)
        samples = StepSamples(trained, tuple(g for g in groups if g.disposition is not None))
        self.state = self.selection.observe(self.state, samples, self.context(0))
        self.next_ordinal += len(groups)
        self.step += 1
        self.steps.append(samples)
        return samples

    @property
    def metrics(self) -> dict[str, float]:
        return self.selection.metrics(self.state, replace(self.context(0), step=self.step))

    def restarted(self) -> Path:
        """What a restart makes of the state, which goes through the form that it has in a checkpoint."""
        plain = json.loads(json.dumps(self.state.plain))
        arrays = {name: np.frombuffer(a.tobytes(), a.dtype).copy() for name, a in self.state.arrays.items()}
        return Path(
            self.rl, self.source, self.answer, self.further, self.seed, self.step, self.next_ordinal,
            SlotState(plain, arrays), list(self.asked), list(self.steps),
        )  # fmt: skip


def items(samples: StepSamples) -> list[int]:
    """Those that a step trained on, in the order of their draws."""
    return [g.draw.item for g in sorted(samples.trained, key=lambda g: g.draw.ordinal)]


def by_chance(rates: Callable[[int], float]) -> Answer:
    """A policy that is right at `rates` of an item, by the keys of what is sampled."""

    def answer(request: Request, sample: int) -> bool:
        key = b"%d/%d/%d" % (request.purpose, request.draw.ordinal, sample)
        return zlib.crc32(key) / 2**32 < rates(request.draw.item)

    return answer
