"""The engine: turns rounds of requests into verified rollouts, and alone knows where they are made.

Decides how requests become fixed shapes (dummies fill what is missing) and in which order processes agree: process 0
reads the items and tokenizes them, one record a round tells everyone; each process judges the responses of the ordinals
that are its own; outcomes are gathered in ordinal order. What is asked for is decided by the slots.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np

from ratchet_trainer.algorithm import keys
from ratchet_trainer.algorithm.types import Draw, Outcome, R, Request, Rollout, Rounds
from ratchet_trainer.algorithm.verifiers.exact import verify
from ratchet_trainer.data.items import Source, prompt_of
from ratchet_trainer.data.prompt import Prompt
from ratchet_trainer.data.tokenizer import Tokenizer
from ratchet_trainer.errors import Drain
from ratchet_trainer.model.policy import Params, lay_out_prompts
from ratchet_trainer.rollout.batch_slots import BatchSlots
from ratchet_trainer.rollout.endings import Endings, Finish, Stops
from ratchet_trainer.rollout.refill import Refilling, whole_chunks
from ratchet_trainer.rollout.refill_probe import refilled_alike
from ratchet_trainer.rollout.rollout_journal import RolloutJournal
from ratchet_trainer.rollout.sampler import Call, Sampler
from ratchet_trainer.rollout.truncation import Truncation

log = logging.getLogger(__name__)


class ProcessGroup(Protocol):
    """The processes that sample together; `Runtime` is one, `evaluate.Alone` another."""

    process: int
    processes: int
    rollouts: RolloutJournal | None

    def broadcast(self, value: Any) -> Any: ...
    def gather(self, value: Any) -> list[Any]: ...
    def enter(self, phase: str) -> None: ...
    def safe_point(self) -> None: ...


@dataclass(frozen=True)
class Shape:
    """Fixed sizes of sampling calls: prompts, and the longest prompt and response in tokens. A row's bits depend on the
    shapes it is computed in, so no neighbour may choose them: the slots of a prompt follow from it alone, by the
    manifest's `buckets` of prompt tokens and its limit. `refills`: a call may have more prompts than are decoded at a
    time; they wait until one of them is answered."""

    prompts: int
    prompt_tokens: int
    response_tokens: int
    refills: bool = False
    buckets: tuple[int, ...] = ()

    @property
    def all_slots(self) -> list[int]:
        """The prompt slots that there are."""
        return sorted({slots(tokens) for tokens in (*self.buckets, self.prompt_tokens)})

    def slots_of(self, prompt: Sequence[int]) -> int:
        """The prompt slots of the calls that a prompt is in: the fewest that it fits."""
        return next(found for found in self.all_slots if len(prompt) - 1 <= found)

    @property
    def response_slots(self) -> int:
        return whole_chunks(self.response_tokens) if self.refills else self.response_tokens


def slots(prompt_tokens: int) -> int:
    """Slots for prompts of at most that many tokens: the last token goes with the response; a multiple of 8."""
    return max(8, -(-(prompt_tokens - 1) // 8) * 8)


class Engine:
    """Rollouts of one stage: its source, shapes and temperature, the job's seed."""

    def __init__(
        self,
        team: ProcessGroup,
        sampler: Sampler,
        tokenizer: Tokenizer,
        source: Source | None,
        seed: int,
        shape: Shape,
        temperature: float,
        journal: RolloutJournal | None = None,
        cut: Truncation | None = None,
        stop: Sequence[str] = (),
    ):
        """`source` is needed on process 0 only; `journal` keeps what is sampled over a restart. `cut` and the strings
        `stop` as in `Sampler.begin`."""
        self.journal, self.cut = journal, cut
        self.stops = Stops(tokenizer, stop) if stop else None
        self.team, self.sampler, self.tokenizer, self.source = team, sampler, tokenizer, source
        self.seed = keys.seed_words(seed)
        self.shape, self.temperature = shape, temperature
        self._exact: dict[int, bool] = {}  # by samples of a prompt, whether a refilled slot changes no bit

    def prepare(self, params: Params, samples: int) -> None:
        """Compiles what samples so many responses of each prompt; `params` may be shapes."""
        shape = self.shape
        for prompt_slots in shape.all_slots:
            sizes = shape.prompts, prompt_slots, samples, shape.response_slots
            self.sampler.prepare(params, *sizes, self.cut, shape.refills)

    def refills(self, params: Params, samples: int) -> bool:
        """Whether a free slot is taken before all are free; a probe says so once. *Collective.*"""
        if self.shape.refills and samples not in self._exact:
            shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), params)
            sizes = [(self.shape.prompts, n, samples, self.shape.response_tokens) for n in self.shape.all_slots]
            each = [refilled_alike(self.sampler, shapes, *size, self.cut) for size in sizes]  # on every process
            alike = self.team.broadcast(all(each))
            self._exact[samples] = alike
            if not alike:
                log.warning("no slot is refilled before all are free: here a probe row's bits depend on its neighbours")
        return self._exact.get(samples, False)

    def answer(self, rounds: Rounds[R], params: Params, version: int) -> R:
        """Runs a slot's generator to its end, answering each round that it yields."""
        try:
            requests = next(rounds)
            while True:
                requests = rounds.send(self.sample(requests, params, version))
        except StopIteration as stop:
            return stop.value

    def prompts(self, draws: Sequence[Draw]) -> list[Prompt]:
        """What the drawn items ask and expect: read on process 0, equal on all."""
        record = None
        if self.team.process == 0:
            assert self.source is not None
            found = [prompt_of(self.source, self.tokenizer, draw.item, self.shape.prompt_tokens) for draw in draws]
            record = [[list(p.tokens), p.answer] for p in found]
        return [Prompt(tuple(tokens), answer) for tokens, answer in self.team.broadcast(record)]

    def sample(self, requests: Sequence[Request], params: Params, version: int) -> list[Rollout]:
        """Verified rollouts of every request, in request and then sample order."""
        self.team.enter("generate")
        prompts = self.prompts([r.draw for r in requests])
        unverified: dict[int, list[_Unverified]] = {}
        for indices in self._calls(requests, prompts):
            unverified |= self._call(indices, requests, prompts, params)
        self.team.enter("verify")
        flat = [(r, prompts[i], u) for i, r in enumerate(requests) for u in unverified[i]]
        outcomes = self._judge(flat)
        self.team.safe_point()
        return [
            Rollout(r, p, u.sample, u.tokens, u.log_probs, u.entropy, version, u.finish, o)
            for (r, p, u), o in zip(flat, outcomes, strict=True)
        ]

    def _calls(self, requests: Sequence[Request], prompts: Sequence[Prompt]) -> Iterator[list[int]]:
        """Indices of requests that share a call: same samples, purpose and slots, in request order, at most
        `shape.prompts` unless some may wait."""
        alike: dict[tuple[int, int, int, int], list[int]] = {}
        for i, (r, p) in enumerate(zip(requests, prompts, strict=True)):
            alike.setdefault((r.n, r.first, r.purpose, self.shape.slots_of(p.tokens)), []).append(i)
        for indices in alike.values():
            most = len(indices) if self.shape.refills else self.shape.prompts
            for start in range(0, len(indices), most):
                yield indices[start : start + most]

    def _call(
        self, indices: list[int], requests: Sequence[Request], prompts: Sequence[Prompt], params: Params
    ) -> dict[int, list[_Unverified]]:
        name = _name_of_call([requests[i] for i in indices])
        going = self._begin(name, [requests[i] for i in indices], [prompts[i] for i in indices], params)
        try:
            while not going.over:
                going.advance()
                self.team.safe_point()
                if self.journal is not None and self.journal.asked and not going.over:
                    self._keep(name, going)
        except Drain:
            self._keep(name, going, leaving=True)
            raise
        self._keep(name, going)
        sampled, first = going.result(), requests[indices[0]]
        return {
            i: [
                _Unverified(
                    first.first + s,
                    tuple(sampled.tokens[row, s, : (n := int(sampled.lengths[row, s]))].tolist()),
                    sampled.log_probs[row, s, :n],
                    sampled.entropy[row, s, :n],
                    str(sampled.finish[row, s]),  # type: ignore[arg-type]
                )
                for s in range(first.n)
            ]
            for row, i in enumerate(indices)
        }

    def _begin(self, name: str, requests: Sequence[Request], prompts: Sequence[Prompt], params: Params) -> Call:
        """The call of that name, from where it was left."""
        shape, first, n = self.shape, requests[0], len(requests)
        rows = n if shape.refills else shape.prompts
        missing = [0] * (rows - n)
        limits = np.array([self._limit(r) for r in requests] + missing)
        arguments = (
            params,
            self.seed,
            lay_out_prompts([p.tokens for p in prompts], rows, shape.slots_of(prompts[0].tokens)),
            keys.row_words(
                first.purpose, [r.draw.ordinal for r in requests] + missing, [r.tag for r in requests] + missing
            ),
            np.arange(first.first, first.first + first.n),
            shape.response_tokens,
            self.temperature,
        )
        kept = self.journal.find(name) if self.journal is not None else None
        if not shape.refills:
            return self.sampler.begin(*arguments, kept, self.cut, self.stops, limits)
        batch_slots = BatchSlots(n, shape.prompts, self.refills(params, first.n))
        endings = [Endings(self.sampler.ends, np.full((1, first.n), limit), self.stops) for limit in limits]
        return Refilling(self.sampler, *arguments, batch_slots, endings, kept, self.cut)

    def _limit(self, request: Request) -> int:
        """Most tokens of a response."""
        return min(request.max_new or self.shape.response_tokens, self.shape.response_tokens)

    def _keep(self, name: str, going: Call, *, leaving: bool = False) -> None:
        if self.journal is not None:
            self.journal.keep(name, going.kept(), leaving=leaving)

    def _judge(self, flat: Sequence[tuple[Request, Prompt, _Unverified]]) -> list[Outcome]:
        """Outcomes in the order given. Each process judges its share of ordinals, then all learn all."""
        mine = [
            [i, *_to_plain(verify(self.tokenizer.decode(u.tokens), p.answer))]
            for i, (r, p, u) in enumerate(flat)
            if r.draw.ordinal % self.team.processes == self.team.process
        ]
        outcomes: list[Outcome | None] = [None] * len(flat)
        for share in self.team.gather(mine):
            for i, *plain in share:
                outcomes[i] = Outcome(*plain)
        return [o for o in outcomes if o is not None]


@dataclass(frozen=True)
class _Unverified:
    sample: int
    tokens: tuple[int, ...]
    log_probs: np.ndarray
    entropy: np.ndarray
    finish: Finish


def _name_of_call(requests: Sequence[Request]) -> str:
    """What tells the calls of one step apart."""
    return ",".join(f"{r.purpose}:{r.draw.ordinal}:{r.tag}:{r.first}+{r.n}:{r.max_new}" for r in requests)


def _to_plain(outcome: Outcome) -> list:
    return [outcome.accuracy, outcome.score, outcome.parts, outcome.status, outcome.pure]
