"""The engine: turns rounds of requests into verified rollouts, and alone knows where they are made.

Decides the order of a round: prompts are read, calls of fixed shapes are made (dummies fill what is missing), responses
are verified. Reading prompts is in `prompts`, verifying in `verification`; what is asked for is decided by the slots.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
import numpy as np

from ratchet_trainer.algorithm import keys
from ratchet_trainer.algorithm.outcome import Case, Outcome
from ratchet_trainer.algorithm.types import R, Request, Rollout, Rounds
from ratchet_trainer.data.items import Source
from ratchet_trainer.data.tokenizer import Tokenizer
from ratchet_trainer.errors import Drain
from ratchet_trainer.model.policy import lay_out_prompts
from ratchet_trainer.model.programs import Program
from ratchet_trainer.model.sharding import Params
from ratchet_trainer.rollout.batch_slots import BatchSlots
from ratchet_trainer.rollout.endings import Endings, Finish, Stops
from ratchet_trainer.rollout.prompts import PromptReader, Prompts
from ratchet_trainer.rollout.refill import Refilling, whole_chunks
from ratchet_trainer.rollout.refill_probe import refilled_alike
from ratchet_trainer.rollout.rollout_journal import RolloutJournal
from ratchet_trainer.rollout.sampler import Call, Sampled, Sampler
from ratchet_trainer.rollout.sampling_call import Elsewhere, Round, SamplingCall, calls_of
from ratchet_trainer.rollout.truncation import Truncation
from ratchet_trainer.rollout.verification import Judges, Verification
from ratchet_trainer.storage import Location

log = logging.getLogger(__name__)

Weights = Params | Callable[[], Params]
"""Parameters, or what gets them when they are needed."""


class ProcessGroup(Protocol):
    """The processes that sample together; `Runtime` is one, `evaluate.Alone` another."""

    @property
    def process(self) -> int: ...
    @property
    def processes(self) -> int: ...
    @property
    def rollouts(self) -> RolloutJournal | None: ...
    @property
    def directory(self) -> Location | None:
        """Checkpoints, for what is kept beside them; None keeps nothing."""

    @property
    def data_cache(self) -> Location | None:
        """For what need not be found out again of data."""

    def alive(self) -> None: ...
    def broadcast(self, value: Any) -> Any: ...
    def gather(self, value: Any) -> list[Any]: ...
    def enter(self, phase: str) -> None: ...
    def spend(self, category: str) -> None: ...
    def safe_point(self) -> None: ...


@dataclass(frozen=True)
class Shape:
    """Fixed sizes of sampling calls: prompts, and the longest prompt and response in tokens. A row's bits depend on the
    shapes it is computed in, so no neighbour may choose them: the slots of a prompt follow from it alone, by the
    manifest's `buckets` of prompt tokens and its limit. `refills`: a call may have more prompts than are decoded at a
    time; they wait until one of them is answered. `prefixes`: samples may go on from prefixes in every step, so what
    that needs is compiled before."""

    prompts: int
    prompt_tokens: int
    response_tokens: int
    refills: bool = False
    buckets: tuple[int, ...] = ()
    prefixes: bool = False

    @property
    def all_slots(self) -> list[int]:
        """The prompt slots that there are."""
        return sorted({slots(tokens) for tokens in (*self.buckets, self.prompt_tokens)})

    def slots_of(self, prompt: Sequence[int]) -> int:
        """The prompt slots of the calls that a prompt is in: the fewest that it fits. A prefix may need more than any
        prompt does; it gets room for the longest."""
        return next((found for found in self.all_slots if len(prompt) - 1 <= found), self.slots_of_prefixes)

    @property
    def slots_of_prefixes(self) -> int:
        """Room for the longest prompt and the longest prefix after it."""
        return slots(self.prompt_tokens + self.response_tokens)

    @property
    def prepared_slots(self) -> list[int]:
        """Prompt slots that are known to be needed."""
        return sorted({*self.all_slots, *([self.slots_of_prefixes] if self.prefixes else [])})

    @property
    def response_slots(self) -> int:
        return whole_chunks(self.response_tokens) if self.refills else self.response_tokens

    def programs(self, sampler: Sampler, params: Params, samples: int, cut: Truncation | None) -> Iterator[Program]:
        """What samples so many responses of each prompt; `params` may be shapes."""
        for prompt_slots in self.prepared_slots:
            sizes = self.prompts, prompt_slots, samples, self.response_slots
            yield from sampler.programs(params, *sizes, cut, self.refills)


def slots(prompt_tokens: int) -> int:
    """Slots for prompts of at most that many tokens: the last token goes with the response; a multiple of 8."""
    return max(8, -(-(prompt_tokens - 1) // 8) * 8)


class Engine:
    """Rollouts of one stage: its source, shapes and temperature, the job's seed."""

    def __init__(
        self,
        group: ProcessGroup,
        sampler: Sampler,
        tokenizer: Tokenizer,
        source: Source | None,
        seed: int,
        shape: Shape,
        temperature: float,
        journal: RolloutJournal | None = None,
        cut: Truncation | None = None,
        stop: Sequence[str] = (),
        verification: Verification | None = None,
        name: str = "",
        elsewhere: Elsewhere | None = None,
    ):
        """`source` is needed on process 0 only; `journal` keeps what is sampled over a restart. `cut` and the strings
        `stop` as in `Sampler.begin`. `verification`: None compares with the expected answer as text. `name` tells its
        calls in the journal from those of other engines in the same step: two evaluations number their draws alike.
        `elsewhere` makes its calls; None: they are made here, one after the other."""
        self.verification = verification or Verification(Judges())
        self.reader = PromptReader(source, tokenizer, shape.prompt_tokens)
        self.journal, self.cut, self.name, self.elsewhere = journal, cut, name, elsewhere
        self.stops = Stops(tokenizer, stop) if stop else None
        self.group, self.sampler, self.tokenizer, self.source = group, sampler, tokenizer, source
        self.seed = keys.seed_words(seed)
        self.shape, self.temperature = shape, temperature
        self.tokens = 0  # of all responses that were sampled, for those who watch a run
        self._exact: dict[int, bool] = {}  # by samples of a prompt, whether a refilled slot changes no bit

    def refills(self, params: Params, samples: int) -> bool:
        """Whether a free slot is taken before all are free; a probe says so once. *Collective.*"""
        if self.shape.refills and samples not in self._exact:
            shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), params)
            sizes = [(self.shape.prompts, n, samples, self.shape.response_tokens) for n in self.shape.prepared_slots]
            each = [refilled_alike(self.sampler, shapes, *size, self.cut) for size in sizes]  # on every process
            alike = self.group.broadcast(all(each))
            self._exact[samples] = alike
            if not alike:
                log.warning("no slot is refilled before all are free: here a probe row's bits depend on its neighbours")
        return self._exact.get(samples, False)

    def answer(self, rounds: Rounds[R], params: Weights, version: int) -> R:
        """Runs a slot's generator to its end, answering each round that it yields."""
        try:
            requests = next(rounds)
            while True:
                requests = rounds.send(self.sample(requests, params, version))
        except StopIteration as stop:
            found: R = stop.value
            return found

    def sample(
        self, requests: Sequence[Request], params: Weights, version: int, phase: str | None = None
    ) -> list[Rollout]:
        """Verified rollouts of every request, in request and then sample order. `phase`: what the processes are in
        meanwhile, where that is not generate and verify. *Collective.*"""
        self.group.enter(phase or "generate")
        prompts, calls = self._asked(requests)
        here = partial(self.made_here, params=params)
        if self.elsewhere is not None:
            made = self.elsewhere.responses([call for _, call in calls], here)
        else:
            made = [here(call) for _, call in calls]
        responses: dict[int, list[_Response]] = {}
        for (places, call), sampled in zip(calls, made, strict=True):
            responses |= dict(zip(places, _responses(call, sampled), strict=True))
        self.group.enter(phase or "verify")
        flat = [(r, prompts[i], u) for i, r in enumerate(requests) for u in responses[i]]
        self.tokens += sum(len(made.tokens) for _, _, made in flat)
        outcomes = self._verify(flat)
        self.group.safe_point()
        self.group.spend(phase or "other")  # until the next call: what slots make of the rollouts
        return [self._rollout(r, p, u, version, o) for (r, p, u), o in zip(flat, outcomes, strict=True)]

    def bind(self, step: int, weights: str, rounds: Round) -> None:
        """What is asked from here on is of this step, sampled with the weights of that digest. `rounds`: while the step
        is planned, its first, or what comes after it."""
        if self.elsewhere is not None:
            self.elsewhere.bind(step, weights, rounds)

    def ahead(self, requests: Sequence[Request], params: Weights) -> None:
        """Has requests answered that `sample` is asked for in a later step, with the weights that there are now.
        *Collective.*"""
        assert self.elsewhere is not None, "what is sampled ahead is kept elsewhere"
        self.group.enter("generate")
        self.elsewhere.send([call for _, call in self._asked(requests)[1]], partial(self.made_here, params=params))

    def _asked(self, requests: Sequence[Request]) -> tuple[list[Prompts], list[tuple[list[int], SamplingCall]]]:
        """The prompts of requests, and their calls with the places of those that are in it. Calls have at most
        `shape.prompts` unless some may wait."""
        prompts = self.reader.read(requests, self.group)
        tokens = [p.sampled.tokens for p in prompts]
        slots_of, limits = [self.shape.slots_of(t) for t in tokens], [self._limit(r) for r in requests]
        most = None if self.shape.refills else self.shape.prompts
        return prompts, list(calls_of(requests, tokens, slots_of, limits, most))

    def _rollout(self, request: Request, prompt: Prompts, made: _Response, version: int, outcome: Outcome) -> Rollout:
        forced = len(request.prefix)
        none = np.zeros(forced, np.float32)
        return Rollout(
            request,
            prompt.shown,
            prompt.trained,
            made.sample,
            (*request.prefix, *made.tokens),
            np.concatenate([none, made.log_probs]) if forced else made.log_probs,
            np.concatenate([none, made.entropy]) if forced else made.entropy,
            version,
            made.finish,
            outcome,
            forced,
        )

    def made_here(self, call: SamplingCall, params: Weights) -> Sampled:
        """The responses of a call, made in this process. *Collective.* Raises Drain at a safe point; what is made is
        kept."""
        name = self.name + call.name
        going = self._begin(name, call, params() if callable(params) else params)
        try:
            while not going.over:
                going.advance()
                self.group.safe_point()
                if self.journal is not None and self.journal.asked and not going.over:
                    self._keep(name, going)
        except Drain:
            self._keep(name, going, leaving=True)
            raise
        self._keep(name, going)
        return going.result()

    def _begin(self, name: str, call: SamplingCall, params: Params) -> Call:
        """The call of that name, from where it was left."""
        shape, n = self.shape, len(call.prompts)
        rows = n if shape.refills else shape.prompts
        missing = [0] * (rows - n)
        limits = np.array([*call.limits, *missing])
        arguments = (
            params,
            self.seed,
            lay_out_prompts(call.prompts, rows, call.prompt_slots),
            keys.row_words(call.purpose, [*call.ordinals, *missing], [*call.tags, *missing]),
            np.arange(call.first, call.first + call.samples),
            shape.response_tokens,
            self.temperature,
        )
        own_rows = self.sampler.first_rows(shape.prompts)
        kept = self.journal.find(name, own_rows) if self.journal is not None else None
        if not shape.refills:
            return self.sampler.begin(*arguments, kept, self.cut, self.stops, limits)
        batch_slots = BatchSlots(n, shape.prompts, self.refills(params, call.samples))
        endings = [Endings(self.sampler.ends, np.full((1, call.samples), limit), self.stops) for limit in limits]
        return Refilling(self.sampler, *arguments, batch_slots, endings, kept, self.cut)

    def _limit(self, request: Request) -> int:
        """Most tokens that are sampled of a response: with its prefix it has as many as any other."""
        room = max(0, self.shape.response_tokens - len(request.prefix))
        return min(request.max_new or room, room)

    def _keep(self, name: str, going: Call, *, leaving: bool = False) -> None:
        if self.journal is not None:
            self.journal.keep(name, going.kept(), leaving=leaving)

    def _verify(self, flat: Sequence[tuple[Request, Prompts, _Response]]) -> list[Outcome]:
        cases = [
            Case(
                p.shown.item(r.draw.item),
                p.shown.question,
                self.tokenizer.decode((*r.prefix, *made.tokens)),
                made.finish,
            )
            for r, p, made in flat
        ]
        return self.verification.of(
            cases, [r.draw.ordinal for r, _, _ in flat], [p.place for _, p, _ in flat], self.group
        )


@dataclass(frozen=True)
class _Response:
    sample: int
    tokens: tuple[int, ...]
    log_probs: np.ndarray
    entropy: np.ndarray
    finish: Finish


def _responses(call: SamplingCall, sampled: Sampled) -> list[list[_Response]]:
    """Those of each prompt of a call."""
    return [
        [
            _Response(
                call.first + s,
                tuple(sampled.tokens[row, s, : (n := int(sampled.lengths[row, s]))].tolist()),
                sampled.log_probs[row, s, :n],
                sampled.entropy[row, s, :n],
                str(sampled.finish[row, s]),  # type: ignore[arg-type]  # `Endings` writes no other
            )
            for s in range(call.samples)
        ]
        for row in range(len(call.prompts))
    ]
