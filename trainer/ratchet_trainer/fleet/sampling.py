"""A stage's calls on the board: what the trainer has sampled elsewhere, and its waiting for it.

Decides who makes a call. With a fleet its workers do, and the trainer waits. Without one the trainer makes it itself,
and puts on the board only what a later step needs: after a restart the weights that sampled it may be gone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ratchet_trainer.data.tokenizer import FILLER
from ratchet_trainer.errors import CallPoisoned, NoWorkers, StorageUnavailable
from ratchet_trainer.fleet import result as results
from ratchet_trainer.fleet.board import Board
from ratchet_trainer.fleet.call import Call
from ratchet_trainer.fleet.result import Result
from ratchet_trainer.fleet.watch import FleetWatch
from ratchet_trainer.rollout.sampler import Sampled
from ratchet_trainer.rollout.sampling_call import Here, Round, SamplingCall

if TYPE_CHECKING:
    from ratchet_trainer.rollout.engine import ProcessGroup, Shape

log = logging.getLogger(__name__)

ROUNDS: dict[Round, int] = {"plan": 0, "first": 1, "later": 2}
"""How a round is numbered in the names of its calls."""
LOOK_SECONDS = 0.05, 0.5
"""Pause between two looks for results, on paths and in buckets."""
MEND_SECONDS = 1.0
"""How often it is looked whether workers have found weights damaged."""
TOLD_SECONDS = 10.0
"""How often the log says what is waited for."""
ERRORS = {kind.__name__: kind for kind in (StorageUnavailable, NoWorkers, CallPoisoned)}
"""What process 0 may raise here for all."""


class FleetSampling:
    """The calls of one stage, `rollout.sampling_call.Elsewhere`. All methods are *collective*."""

    def __init__(
        self,
        group: ProcessGroup,
        board: Board,
        stage: tuple[int, str],
        shape: Shape,
        program: str,
        fleet: FleetWatch | None,
    ):
        """`stage`: its index and hash. `program`: the digest of what makes the bits (`fleet.programs`). `fleet`: the
        workers that make the calls; None: there are none, and this group does."""
        self._group, self._board, self._stage, self._shape, self._program = group, board, stage, shape, program
        self._fleet = fleet
        self._made: dict[str, Sampled] = {}  # by folder, what is not asked for yet
        self._sent: dict[str, Call] = {}  # by folder, what workers have not answered
        self._step, self._weights, self._rounds = 0, "", ROUNDS["plan"]
        self._newest = ""  # the digest of the newest weights
        self._looked = 0.0  # when for weights that workers found damaged

    def offer(self, weights: str) -> None:
        """Tells workers of weights with which they will sample next."""
        self._newest = weights
        if self._fleet is not None:
            self._on_first(lambda: self._board.announce(self._sent.values(), weights))

    def withdraw(self) -> None:
        """Removes calls that nobody will ask for any more: the boundary of the stage is committed."""
        dropped = self._sent.keys() | self._made.keys()
        self._sent, self._made = {}, {}
        if self._fleet is not None:
            self._on_first(lambda: self._board.announce(()))
        if dropped:
            self._on_first(lambda: self._board.withdraw(sorted(dropped)))

    def bind(self, step: int, weights: str, rounds: Round) -> None:
        self._step, self._weights, self._rounds = step, weights, ROUNDS[rounds]

    def send(self, calls: Sequence[SamplingCall], here: Here) -> None:
        asked = self._calls(calls)
        if self._fleet is not None:
            self._publish(asked)
            return
        there = self._collected(asked)
        for call, one in zip(asked, calls, strict=True):
            if call.folder in there:
                self._made[call.folder] = there[call.folder]
                continue
            sampled = self._made[call.folder] = here(one)
            self._on_first(partial(self._keep, call, sampled))

    def responses(self, calls: Sequence[SamplingCall], here: Here) -> list[Sampled]:
        asked = self._calls(calls)
        if self._fleet is not None:
            self._wait_for(asked, self._fleet)
        elif self._rounds == ROUNDS["first"] and any(call.folder not in self._made for call in asked):
            self._made |= self._collected(asked)  # an attempt before may have made them
        made = self._made
        return [made.pop(c.folder) if c.folder in made else here(one) for c, one in zip(asked, calls, strict=True)]

    def _publish(self, calls: Sequence[Call]) -> None:
        self._sent |= {call.folder: call for call in calls}
        self._on_first(lambda: self._board.publish(calls))
        self._on_first(lambda: self._board.announce(self._sent.values(), self._newest))

    def _keep(self, call: Call, sampled: Sampled) -> None:
        self._board.publish([call])
        self._board.put(call, results.made(call, sampled, identity=self._program, worker="trainer"))

    def _wait_for(self, asked: Sequence[Call], fleet: FleetWatch) -> None:
        """Returns once all calls are answered. Raises Drain, NoWorkers, CallPoisoned, StorageUnavailable."""
        group, board = self._group, self._board
        missing = {call.folder: call for call in asked if call.folder not in self._made}
        if not missing:
            return
        if unsent := [call for folder, call in missing.items() if folder not in self._sent]:
            self._publish(unsent)
        group.enter("await")
        fleet.waits()
        said = time.monotonic()
        while True:
            group.safe_point()
            arrived = self._collected(list(missing.values()))
            fleet.arrived(len(arrived))
            for folder, sampled in arrived.items():
                self._made[folder] = sampled
                missing.pop(folder)
                self._sent.pop(folder, None)
            ahead = [call for folder, call in self._sent.items() if folder not in missing]
            self._on_first(partial(board.announce, [*missing.values(), *ahead], self._newest))
            self._on_first(partial(fleet.look, board, list(missing.values()), self._newest))  # though all is there
            if not missing:
                break
            for version in group.broadcast(self._damaged(missing.values(), fleet) if group.process == 0 else None):
                fleet.mend(version)
            if time.monotonic() - said > TOLD_SECONDS:
                said = time.monotonic()
                log.info("step %d: %d of %d calls are not answered yet", self._step, len(missing), len(asked))
            time.sleep(LOOK_SECONDS[board.folder.on_bucket])
        group.enter("generate")

    def _collected(self, asked: Sequence[Call]) -> dict[str, Sampled]:
        """What of these calls is answered. Process 0 looks, the others read what it has found."""
        by_folder = {call.folder: call for call in asked}
        own: dict[str, Result] = {}
        if self._group.process == 0:
            own = {f: result for f, result in self._board.collect(asked).items() if self._may_use(by_folder[f], result)}
        told: dict[str, str] = self._group.broadcast({folder: result.digest for folder, result in own.items()})
        if self._group.process != 0 and told:  # by digest: what process 0 did not take is there, too
            own = self._board.find((by_folder[folder], digest) for folder, digest in told.items())
        everywhere = set.intersection(*(set(names) for names in self._group.gather(sorted(own))))
        return {folder: _sampled(by_folder[folder], own[folder]) for folder in sorted(everywhere)}

    def _damaged(self, calls: Iterable[Call], fleet: FleetWatch) -> list[str]:
        """Weights of calls that workers could not read, by a look now and then. On process 0: its clock is the only
        one that says when, or the processes would not meet."""
        if time.monotonic() - self._looked <= MEND_SECONDS:
            return []
        self._looked = time.monotonic()
        return sorted(fleet.damaged({call.version for call in calls}))

    def _may_use(self, call: Call, result: Result) -> bool:
        why = self._fleet.refuses(result.identity) if self._fleet is not None else None
        if why is not None:
            log.warning("%s is asked for again: worker %s %s", call.folder, result.worker, why)
            self._board.refuse(call, why)
        return why is None

    def _calls(self, calls: Sequence[SamplingCall]) -> list[Call]:
        shape, (index, stage_hash) = self._shape, self._stage
        return [
            Call(
                stage=index,
                stage_hash=stage_hash,
                step=self._step,
                round=self._rounds,
                number=number,
                version=self._weights,
                shape=self._program,
                prompts=call.prompts,
                purpose=int(call.purpose),
                samples=call.samples,
                first=call.first,
                ordinals=call.ordinals,
                tags=call.tags,
                limits=call.limits,
                rows=len(call.prompts) if shape.refills else shape.prompts,
                prompt_slots=call.prompt_slots,
                response_slots=shape.response_slots,
                refills=shape.refills,
            )
            for number, call in enumerate(calls)
        ]

    def _on_first(self, operation: Callable[[], Any]) -> None:
        """Runs an operation on process 0; what it raises of ours is raised on all."""
        said = None
        if self._group.process == 0:
            try:
                operation()
            except tuple(ERRORS.values()) as error:
                said = [type(error).__name__, str(error)]
        if (told := self._group.broadcast(said)) is not None:
            raise ERRORS[told[0]](told[1])


def _sampled(call: Call, result: Result) -> Sampled:
    """The responses of a result, with the dummies that its call's shape has."""

    def filled(values: np.ndarray, filler: Any) -> np.ndarray:
        rest = [(0, call.rows - len(values)), *((0, 0) for _ in values.shape[1:])]
        return np.pad(values, rest, constant_values=filler)

    arrays = result.arrays
    return Sampled(
        filled(arrays["tokens"], FILLER),
        filled(arrays["log_probs"], 0),
        filled(arrays["entropy"], 0),
        filled(arrays["lengths"], 0),
        filled(results.finish_names(arrays["finish"]), "length"),
    )
