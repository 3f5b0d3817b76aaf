"""The weights that steps are sampled with: those of now, and the versions that are published below `fleet/`.

Decides when a version is made and from where an older one is had. Version v is what is trained after the last update of
step v, or what a stage starts from. It is published where somebody else samples with it, or a later step does: as soon
as it is made, before evaluations and the commit. Its digest is its name, so publishing it again, after a restart or
over a damaged copy, is the same act.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import jax

from ratchet_api.canonical import said
from ratchet_api.stages import Stage as StageSpec
from ratchet_trainer import storage
from ratchet_trainer.errors import StorageUnavailable
from ratchet_trainer.fleet import programs
from ratchet_trainer.fleet.board import FLEET, Board
from ratchet_trainer.fleet.retention import VERSIONS
from ratchet_trainer.fleet.sampling import FleetSampling
from ratchet_trainer.fleet.versions import Versions
from ratchet_trainer.fleet.watch import FleetWatch
from ratchet_trainer.model.lora import joined, split, trained
from ratchet_trainer.model.sharding import of_parameter
from ratchet_trainer.rollout.engine import Weights
from ratchet_trainer.step.plans import Plan
from ratchet_trainer.step.state import flat_paths, params_of

if TYPE_CHECKING:
    from ratchet_trainer.process.runtime import Runtime
    from ratchet_trainer.step.stage import Programs, Stage
    from ratchet_trainer.step.state import State

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Version:
    """Weights to sample with: those of the complete step `version`. `digest`: "" where they are not published."""

    version: int
    digest: str
    params: Weights


class SamplingWeights:
    """The weights of one job's run. All methods are *collective*."""

    def __init__(self, runtime: Runtime, programs: Programs):
        self._runtime, self._programs = runtime, programs
        self._named: tuple[tuple[int, int], str] | None = None  # (stage, step) of the newest version, and its digest
        self._board: Board | None = None
        self._steps: dict[str, int] = {}  # of the versions that this attempt knows
        self._lock = threading.Lock()  # for them: versions are made on one thread, looked through on another
        self._begun: int | None = None  # the step that it went on from
        self._lag = 0
        self._calls: FleetSampling | None = None  # of the stage
        self._now: tuple[str, Any] | None = None  # the newest version, and its parameters
        self._loaded: tuple[str, Any] | None = None  # the older version that was used last, as far as it is trained

    @cached_property
    def _versions(self) -> Versions:
        return Versions(self._runtime.directory, self._runtime.lineage)

    def publishes(self, stage: StageSpec) -> bool:
        """Whether anybody but the step itself samples with the weights."""
        return stage.rl is not None and (self._runtime.job.spec.rollouts is not None or stage.rl.lag > 0)

    def serve(self, stage: Stage) -> None:
        """Has the calls of a stage made where they are to be, from now on."""
        if not self.publishes(stage.spec):
            return
        one, wanted = self._runtime, self._runtime.job.spec.rollouts
        fleet = None
        if wanted is not None:
            fleet = FleetWatch(
                wanted.workers.min,
                wanted.wait_seconds,
                lambda shown: one.tell(rollouts=shown),
                self._versions.damaged,
                self._mend,
                self._refuses,
                self._doubt,
            )
        assert one.dtype is not None, "the programs are made"
        inputs = self._programs.inputs
        record = programs.record_of(said(stage.spec), one.dtype, inputs, one.identity, here=fleet is None)
        if self._board is None:
            self._board = Board(one.directory, one.lineage)
        if one.process == 0:
            programs.write(self._board.folder, record)
        name, of_stage = programs.digest_of(record), (stage.index, stage.hash)
        self._lag = max(self._lag, stage.rl.lag)  # commits of the stage before are kept for a while
        one.durable.cache = self
        self._calls = FleetSampling(one, self._board, of_stage, stage.shape, name, fleet)
        stage.engine.elsewhere = self._calls

    def _mend(self, digest: str) -> None:
        """Publishes weights again that workers could not read. Raises StorageUnavailable where they are not those of
        now: then the next attempt begins where they are made."""
        if self._now is None or self._now[0] != digest:
            raise StorageUnavailable(
                f"workers cannot read the weights {digest[:12]} below {self._runtime.directory / FLEET}, and the "
                "trainer has others now; the next attempt begins at a step that does without them"
            )
        one = self._runtime
        arrays = _as_sampled(self._now[1], one.dtype)
        self._versions.publish(arrays, one.process, one.processes, one.gather, again=True)
        log.warning("the weights %s could not be read by a worker and are published again", digest[:12])

    def _refuses(self, sampler: str) -> str | None:
        """Why what was made by workers of this identity cannot be used; None: it can, though the run may be exact only
        from here on. On process 0."""
        durable = self._runtime.durable
        before, durable.sampler = durable.sampler, sampler
        if before is None or before == sampler:
            return None
        mode = self._runtime.job.spec.reproducibility.mode
        if mode == "Exact":
            durable.sampler = before
            return "is another kind of machine than those that sampled before, whose bits mode Exact holds to"
        if mode == "PerTopology":
            durable.exact_since(self._runtime.progress.document["step"], "workers of another kind sample from here on")
        return None

    def _doubt(self, step: int, why: str) -> None:
        """A step need not have the bits of another run. What was known before, of a step after it too, stands: each
        attempt hears of all unequal answers again."""
        known = self._runtime.progress.document["exactSince"]
        if known is None or known["step"] < step:
            self._runtime.durable.exact_since(step, why)

    def now(self, state: State) -> Version:
        """The weights of the state, published where that is wanted."""
        stage = state.stage.index
        if not self.publishes(self._runtime.job.spec.stages[stage]):
            return Version(state.step, "", state.params)
        digest = self.publish(stage, state.step, state.params)
        self._now = digest, state.params
        return Version(state.step, digest, state.params)

    def publish(self, stage: int, step: int, params: Any) -> str:
        """Publishes the weights after a step of a stage, unless they are; their digest."""
        if self._named is None or self._named[0] != (stage, step):
            self._runtime.spend("save")
            arrays = _as_sampled(params, self._runtime.dtype)
            one = self._runtime
            digest = self._versions.publish(arrays, one.process, one.processes, one.gather)
            self._named = (stage, step), digest
            if self._calls is not None:
                self._calls.offer(digest)
            with self._lock:
                self._steps[digest] = step
            self._begun = step if self._begun is None else self._begun
            self._runtime.spend("other")
        return self._named[1]

    def of(self, plan: Plan, state: State) -> Version:
        """The weights that a planned step is sampled with; older ones than the state's are loaded when they are asked
        for."""
        if plan.version == state.step:
            return self.now(state)
        return Version(plan.version, plan.digest, partial(self._old, plan, state))

    def withdraw(self) -> None:
        """The stage is over, and its end committed: what it had sampled beyond that is dropped."""
        if self._calls is not None:
            self._calls.withdraw()
            self._calls = None

    # What may go

    def list_old(self, step: int) -> list[str]:
        """See `durable_state.Cache`; asked on the thread of commits, of process 0."""
        assert self._board is not None, "it is asked once there is one"
        oldest = step - self._lag
        if self._begun is None or oldest <= self._begun:  # versions that an attempt before made may still be needed
            keep = storage.names(self._board.folder / VERSIONS)
        else:
            with self._lock:
                self._steps = {digest: made for digest, made in self._steps.items() if made >= oldest}
                keep = list(self._steps)
        return self._board.list_old(step, keep)

    def delete(self, names: list[str]) -> None:
        """The same."""
        assert self._board is not None, "it is asked once there is one"
        self._board.delete(names)

    def _old(self, plan: Plan, state: State) -> Any:
        if self._loaded is None or self._loaded[0] != plan.digest:
            self._loaded = None  # before the other takes its place
            one, own = self._runtime, self._programs
            shardings = partial(of_parameter, one.mesh)
            arrays = self._versions.load(plan.digest, shardings)
            if not all(one.gather(arrays is not None)):
                if one.process == 0:
                    self._versions.note_damaged(plan.digest, "trainer")  # or the next attempt would begin here, too
                raise StorageUnavailable(
                    f"the weights of step {plan.version} ({plan.digest[:12]}), with which step {plan.step} is sampled, "
                    f"are not whole below {one.directory / 'fleet'}; the next attempt begins where nobody needs them"
                )
            assert arrays is not None
            self._loaded = plan.digest, weights_of(arrays, trained(own.template[0]))
        return joined(self._loaded[1], split(state.params)[1])  # what is frozen is the same in all versions


def _as_sampled(params: Any, dtype: str | None) -> dict[str, Any]:
    """What is trained of parameters, path -> array, matrices in the number format that the sampler has them in: that
    loses no bit, and in bfloat16 half of the bytes are written and read."""
    arrays = flat_paths({"params": trained(params)})
    if dtype in (None, "float32"):
        return arrays
    return {path: x.astype(dtype) if x.ndim == 2 else x for path, x in arrays.items()}


def weights_of(arrays: Mapping[str, Any], template: Any) -> Any:
    """The parameters of a version, in the number formats of `template`, which has their structure. Raises
    CheckpointUnreadable if they are another model's."""
    return jax.tree.map(lambda x, like: x.astype(like.dtype), params_of(arrays, template), template)


def lacks(runtime: Runtime, control: dict[str, Any]) -> str | None:
    """What the plans of a committed state need that is gone; None: nothing. At the end of a stage there are none."""
    versions = Versions(runtime.directory, runtime.lineage)
    pending = control.get("pending") or {}
    plans = pending.get("planned", control.get("planned", ()))
    wanted = dict.fromkeys(plan["digest"] for plan in plans)
    damaged = versions.damaged() if wanted else set()
    for digest in wanted:
        if digest in damaged or not versions.is_there(digest):
            return f"the weights {digest[:12]}, with which later steps are sampled, are damaged or no longer there"
    return None
