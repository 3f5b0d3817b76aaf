"""A worker of the rollout fleet: takes calls from the board, samples them with the weights they name, and answers.

    look for a call - lease it - load its weights - sample - put the result

Decides that order alone. The sampler, its programs and chunks are the trainer's own (`rollout.engine`), so the bits
follow from the call, the weights and the program; whoever made them. A worker keeps nothing: one that is gone at any
point costs the time of its call. It leaves with 75 at the next chunk when it is told to go.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from ratchet_api.base import read_tolerantly
from ratchet_api.canonical import sha256
from ratchet_api.protocol import Exit
from ratchet_api.stages import Stage as StageSpec
from ratchet_trainer import storage
from ratchet_trainer.algorithm.slots import DataFacts
from ratchet_trainer.checkpoints.identity import of_sampler
from ratchet_trainer.errors import ConfigurationInvalid, Drain, StorageUnavailable
from ratchet_trainer.fleet import programs as fleet_programs
from ratchet_trainer.fleet import result as results
from ratchet_trainer.fleet.board import FLEET, Board
from ratchet_trainer.fleet.call import Call
from ratchet_trainer.fleet.leases import Lease
from ratchet_trainer.fleet.versions import Versions
from ratchet_trainer.fleet.weights_ahead import WeightsAhead
from ratchet_trainer.model.lora import joined, split, trained
from ratchet_trainer.model.programs import compile_each
from ratchet_trainer.model.sharding import of_parameter
from ratchet_trainer.rollout.engine import Engine
from ratchet_trainer.rollout.sampling_call import SamplingCall
from ratchet_trainer.rollout.verification import Judges, Verification
from ratchet_trainer.step.sampling_weights import weights_of
from ratchet_trainer.step.stage import Programs, Stage, programs_of

if TYPE_CHECKING:
    from ratchet_trainer.process.runtime import Runtime

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.05, 1.0
"""Pause between two looks for a call, on paths and in buckets."""
AHEAD_SECONDS = 0.1, 2.0
"""How often it looks which weights come next, likewise."""
LINEAGE_SECONDS = 5.0
"""How often a worker without a call looks whether the job was rewound."""
UNRELATED_ERRORS = StorageUnavailable, ConfigurationInvalid
"""Why a worker may end at a call that has nothing to do with the call: a store is down, or the worker is of another
image."""
UNRELATED_EXITS = Exit.DRAINED, *(kind.exit for kind in UNRELATED_ERRORS)
"""Exit codes that say so, or that the worker was told to go."""


def run(runtime: Runtime) -> None:
    """Works until it is told to go. Raises Drain then, and the errors of `errors`."""
    Worker(runtime).to_the_end()


class Worker:
    """One process of one worker. Process 0 finds the calls, all sample them."""

    def __init__(self, runtime: Runtime):
        self.runtime = runtime
        self.name = f"w{runtime.environment.worker}-{runtime.environment.jobset_uid[:8]}"
        self.board: Board | None = None
        self.lineage = 0
        self._looked = -LINEAGE_SECONDS
        self._samplers: dict[str, tuple[Engine, Programs]] = {}  # by the digest of the program that a call names
        self._weights: tuple[str, Any] | None = None  # the digest of the version on the devices, and its parameters
        self._ahead: tuple[int, WeightsAhead] | None = None  # of which lineage
        self._skipped: dict[str, float] = {}  # folder -> until when
        self._lease: Lease | None = None
        self._base: tuple[Programs, Any] | None = None  # the frozen parameters that every version has
        self._done = 0
        runtime.at_last(self._give_back)

    def to_the_end(self) -> None:
        if self.runtime.process == 0:
            threading.Thread(target=self._live, name="heartbeat", daemon=True).start()
        if self.runtime.processes == 1:  # several would have to agree on what is fetched
            threading.Thread(target=self._look_ahead, name="weights ahead", daemon=True).start()
        while True:
            self.runtime.enter("await")
            self.runtime.safe_point()
            call = self._next()
            if call is None:
                time.sleep(IDLE_SECONDS[self.runtime.directory.on_bucket])
                continue
            with self._leased(call) as lease:
                if lease:
                    self._answer(call)

    # Finding calls

    def _next(self) -> Call | None:
        """The next call, on every process. *Collective.*"""
        found = None
        if self.runtime.process == 0:
            self._follow_lineage()
            now = time.monotonic()
            self._skipped = {folder: until for folder, until in self._skipped.items() if until > now}
            call = self.board.next_call(self._skipped.keys()) if self.board is not None else None
            found = None if call is None else [self.lineage, call.to_bytes().decode()]
        told = self.runtime.broadcast(found)
        if told is None:
            return None
        self.lineage = told[0]
        return Call.from_bytes(told[1].encode())

    def _follow_lineage(self) -> None:
        """The board of the newest lineage, as soon as there is one."""
        if time.monotonic() - self._looked < LINEAGE_SECONDS and self.board is not None:
            return
        self._looked = time.monotonic()
        fleet = self.runtime.directory / FLEET
        found = storage.with_retries(f"looking for {fleet}", lambda: storage.names(fleet))
        newest = max((int(name) for name in found if name.isdigit()), default=0)
        if newest > self.lineage:
            self.lineage, self.board = newest, Board(self.runtime.directory, newest, self.name)

    @contextlib.contextmanager
    def _leased(self, call: Call) -> Iterator[bool]:
        """Whether this worker has the call; it is given back at the end, counted where it made the worker fail.
        *Collective.*"""
        lease = self.board.take(call) if self.board is not None and self.runtime.process == 0 else None
        if not self.runtime.broadcast(lease is not None):
            yield False
            return
        self._lease = lease
        failed = False
        try:
            yield True
        except Exception as error:
            # Also when a peer is gone: the call may be what ended it.
            failed = not isinstance(error, (Drain, *UNRELATED_ERRORS))
            raise
        finally:
            self._lease = None
            if lease is not None:
                lease.end(failed)

    def _give_back(self, code: int) -> None:
        """What is left to do where the process ends beside its main thread, as while weights are read: who is told to
        go there has not failed, so nobody is to wait for its call, or count it."""
        if (lease := self._lease) is not None:
            self._lease = None
            lease.end(failed=code not in UNRELATED_EXITS)

    def _live(self) -> None:
        """On a thread of its own: tells that this worker lives and is at its call."""
        while True:
            if (board := self.board) is not None:
                board.beat()
                if (lease := self._lease) is not None:
                    lease.renew()
                time.sleep(board.patience / 3)
            else:
                time.sleep(0.2)

    def _look_ahead(self) -> None:
        """On a thread of its own: weights that are announced are fetched while others sample."""
        while True:
            time.sleep(AHEAD_SECONDS[self.runtime.directory.on_bucket])
            try:
                if (board := self.board) is not None:
                    self._ahead_of(self.lineage).expect(board.weights_ahead())
            except OSError as error:
                log.warning("it is not known which weights come next: %s", error)

    # Answering them

    def _answer(self, call: Call) -> None:
        runtime = self.runtime
        sampler = self._sampler(call)
        params = None if sampler is None else self._params(call, sampler[1])
        if sampler is None or params is None:
            self._skipped[call.folder] = time.monotonic() + 1.0
            return
        runtime.enter("generate")
        sampled = sampler[0].made_here(
            SamplingCall(
                call.folder,
                call.purpose,
                call.samples,
                call.first,
                call.prompt_slots,
                call.prompts,
                call.ordinals,
                call.tags,
                call.limits,
            ),
            params,
        )
        self._done += 1
        if runtime.process == 0 and self.board is not None:
            who = of_sampler(runtime.identity, runtime.job.spec)
            self.board.put(call, results.made(call, sampled, identity=who, worker=self.name))
        runtime.tell(rollouts={"version": call.version[:12], "calls": self._done})

    def _sampler(self, call: Call) -> tuple[Engine, Programs] | None:
        """What samples as the call's stage does, and its programs; None while that is not known. *Collective.* Raises
        ConfigurationInvalid where the trainer is of another image."""
        if call.shape in self._samplers:
            return self._samplers[call.shape]
        runtime, record = self.runtime, None
        if runtime.process == 0 and self.board is not None:
            record = fleet_programs.read(self.board.folder, call.shape)
        record = runtime.broadcast(record)
        if record is None or sha256(record["stage"]) != call.stage_hash:
            log.warning("%s: what it is sampled with is not there", call.folder)
            return None
        if (wrong := fleet_programs.difference(record, runtime.identity)) is not None:
            raise ConfigurationInvalid(
                f"this worker is not of the trainer's image ({wrong}), so its responses would have other bits; give "
                "workers and trainer one spec.image"
            )
        runtime.enter("compile")
        runtime.compute_in(record["dtype"])
        job = runtime.job.spec
        programs = programs_of(job.model, runtime.mesh, job.reproducibility, record["dtype"])
        if programs.inputs != record["inputs"]:
            raise ConfigurationInvalid(
                f"spec.model.path: {job.model.path} is another folder here than at the trainer; give workers the same"
            )
        spec = read_tolerantly(StageSpec, record["stage"])
        found = self._samplers[call.shape] = self._made(call, spec, programs), programs
        return found

    def _made(self, call: Call, spec: StageSpec, programs: Programs) -> Engine:
        job = self.runtime.job.spec
        nothing = DataFacts("", 0)
        stage = Stage(
            call.stage, spec, call.stage_hash, job.seed, None, nothing, programs, self.runtime, job,
            job.reproducibility.rows_per_shard,
        )  # fmt: skip
        compile_each(stage.shape.programs(programs.sampler, programs.template[0], call.samples, stage.cut))
        return stage.engine_with(Verification(Judges(())), None)  # the trainer verifies

    def _params(self, call: Call, programs: Programs) -> Any | None:
        """The weights of a call on the devices; None, and a note for the trainer, where they are missing or damaged.
        *Collective.*"""
        if self._weights is None or self._weights[0] != call.version:
            runtime, self._weights = self.runtime, None  # before the others take their place
            runtime.enter("restore")
            arrays = self._ahead_of(self.lineage).arrays(call.version)
            if not all(runtime.gather(arrays is not None)):
                if self.board is not None and self.board.is_wanted(call):  # else its weights may be gone, too
                    Versions(runtime.directory, self.lineage).note_damaged(call.version, self.name)
                return None
            assert arrays is not None
            self._weights = call.version, self._whole(weights_of(arrays, trained(programs.template[0])), programs)
        return self._weights[1]

    def _whole(self, params: Any, programs: Programs) -> Any:
        """All parameters of a version; the frozen ones are read once."""
        if self._base is None or self._base[0] is not programs:
            whole = programs.whole(params, self.runtime.job.spec.seed)
            self._base = programs, split(whole)[1]
            return whole
        return joined(params, self._base[1])

    def _ahead_of(self, lineage: int) -> WeightsAhead:
        if self._ahead is None or self._ahead[0] != lineage:
            shardings = partial(of_parameter, self.runtime.mesh)
            self._ahead = lineage, WeightsAhead(Versions(self.runtime.directory, lineage), shardings)
        return self._ahead[1]
