"""Fixtures of the trainer's tests: a runtime in memory, and small jobs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

# Before JAX is imported: bits depend on the size of XLA's thread pool.
os.environ.setdefault("NPROC", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from ratchet_api.job import parse_spec
from ratchet_trainer.algorithm import keys
from ratchet_trainer.checkpoints.digests import ON_HOST
from ratchet_trainer.data.tokenizer import BYTES
from ratchet_trainer.errors import Drain
from ratchet_trainer.model.policy import Policy
from ratchet_trainer.process import distributed
from ratchet_trainer.process.runtime import Saved
from ratchet_trainer.process.stage_gate import Gate
from ratchet_trainer.rollout.rollout_journal import RolloutJournal
from ratchet_trainer.rollout.sampler import Sampler
from ratchet_trainer.run import run
from ratchet_trainer.storage import retries

sys.path.insert(0, str(Path(__file__).parent))  # helpers beside the tests

import places
from restarts import STEPS, made, restored, runtime
from squares import SMALL
from sums import job

serving, served, place, quickly = places.serving, places.served, places.place, places.quickly


def position(commit: Any) -> tuple[int, int]:
    """How far a committed state is: steps, and mini-batches of the step after them."""
    step, control = (commit.step, commit.control) if isinstance(commit, Saved) else (commit[0], commit[2])
    return step, control.get("pending", {}).get("miniBatch", 0)


class MemoryRuntime:
    """One process that keeps its commits in memory and is told to go at chosen safe points.

    A second one made with the first one's `commits` is a restart. It plays the operator: every stage may be entered.
    """

    process = 0
    processes = 1
    lineage = 1

    name_of_run = ("memory",)

    def __init__(
        self,
        spec: dict[str, Any],
        commits: list | None = None,
        drain_at: int | None = None,
        rollouts: Path = Path("/dev/null"),
        to_finish: float = float("inf"),
        grace: float = float("inf"),
    ):
        """`to_finish`: seconds that a step which was begun may still take once told to go; `grace`: from being told to
        the end by force."""
        self.job = SimpleNamespace(spec=parse_spec(spec), may_enter=len(spec["stages"]) - 1)
        self.mesh = distributed.one_device()
        self.dtype = self.job.spec.model.dtype or "float32"
        self.commits: list[tuple[int, dict, dict, list[bytes], dict | None]] = [] if commits is None else commits
        self.drain_at, self.safe_points = drain_at, 0
        self.steps: list[tuple[int, dict, dict]] = []
        self.boundaries: list[tuple[int, int, str]] = []
        self.phases: list[str] = []
        self.points_in_phase = 0
        self.drained: tuple[str, int, int] | None = None  # the phase, its safe points, how many steps had been made
        self.commit_requested = False
        self.rollouts = RolloutJournal(rollouts, 0, 1, self.gather)
        self.told: dict[str, Any] = {}
        self.directory = self.data_cache = None
        self.to_finish = to_finish
        self.grace = grace

    def broadcast(self, value: Any) -> Any:
        return value

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def enter(self, phase: str) -> None:
        if self.phases[-1:] != [phase]:
            self.points_in_phase = 0
        self.phases.append(phase)

    def alive(self) -> None:
        """Nobody waits."""

    def tell_work(self, parameters: int, peak_flops: float) -> None:
        """Nobody asks."""

    def ended_stages(self) -> list[dict[str, Any]]:
        return [boundary for *_, boundary in self.commits if boundary]

    def pin(self, steps: set[int]) -> None:
        self.pinned = steps

    def weights(self, step: int, shardings: Callable[..., Any]) -> dict[str, Any]:
        arrays = next(a for s, a, c, *_ in self.commits if s == step and "pending" not in c)
        return {k: jax.device_put(v, shardings(k, v.shape)) for k, v in arrays.items() if k.startswith("params/")}

    def tell(self, **shown: Any) -> None:
        self.told |= shown

    def spend(self, category: str) -> None:
        """Nobody keeps books."""

    def safe_point(self) -> None:
        self.safe_points += 1
        self.points_in_phase += 1
        if self.drain_at is not None and self.safe_points >= self.drain_at:
            self.drained = self.phases[-1], self.points_in_phase, len(self.steps)
            raise Drain

    def seconds_to_finish(self) -> float:
        return self.to_finish

    def restore(self, shardings: Callable[..., Any], lacks: Callable[..., Any] = lambda control: None) -> Saved | None:
        if not self.commits:
            return None
        step, arrays, control, _, _ = self.commits[-1]
        placed = {
            path: leaf if path.startswith(ON_HOST) else jax.device_put(leaf, shardings(path, leaf.shape))
            for path, leaf in arrays.items()
        }
        return Saved(step, placed, control)

    def commit(self, saved: Saved, boundary: dict | None = None, wait: bool = False) -> None:
        assert not self.commits or position(saved) > position(self.commits[-1]), "a state is committed once"
        arrays = {path: np.array(leaf) for path, leaf in saved.arrays.items()}
        self.commits.append((saved.step, arrays, saved.control, list(saved.lines), boundary))
        self.commit_requested = False

    def wait_for_commits(self) -> None:
        """A commit is durable at once."""

    def last_words(self, stage: dict[str, Any], reason: str = "Drained", text: str = "") -> None:
        self.last_stage, self.last_reason = stage, reason

    def step_done(self, step: int, target: int, stage: dict, record: dict, timing: dict) -> None:
        self.steps.append((step, record, timing))

    def boundary(self, index: int, step: int, rule: str, needs_approval: bool = False) -> Gate:
        self.boundaries.append((index, step, rule))
        return Gate(self.job.may_enter, finish=index == len(self.job.spec.stages) - 1)

    @property
    def stream(self) -> bytes:
        """The committed metric lines."""
        return b"".join(line for _, _, _, lines, _ in self.commits for line in lines)


@pytest.fixture(scope="session")
def memory_runtime() -> type[MemoryRuntime]:
    """The class: call it with a spec, and with an earlier one's commits for a restart."""
    return MemoryRuntime


@pytest.fixture(scope="module")
def after_warm_up() -> Callable[..., MemoryRuntime]:
    """Makes a run of the given stages of `sums` that goes on from the end of the warm-up, which is trained once."""
    warm = MemoryRuntime(job())
    run(warm)

    def start(*stages: dict[str, Any], commits: list | None = None, **more: Any) -> MemoryRuntime:
        return MemoryRuntime(job(*stages), commits=list(warm.commits if commits is None else commits), **more)

    return start


@pytest.fixture(scope="session")
def sampler() -> Sampler:
    """A sampler of the small policy on one device."""
    return Sampler(Policy(SMALL), distributed.one_device(), BYTES.ends)


@pytest.fixture(scope="session")
def params() -> Any:
    """Weights of the small policy."""
    return jax.jit(Policy(SMALL).init)(keys.seed_words(1))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Storage that fails is tried again at once."""
    monkeypatch.setattr(retries, "BACK_OFF_SECONDS", (0.0, 0.0))


@pytest.fixture(scope="session")
def whole_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    one = runtime(place := tmp_path_factory.mktemp("whole") / "checkpoints", 1)
    assert restored(one) is None
    made(one, 1, STEPS)
    return place


@pytest.fixture
def directory(whole_directory: Path, tmp_path: Path, quick: None) -> Path:
    """Steps 2 to 4 of attempt 1, which is gone; the journal has the claim and steps 1 to 4."""
    return shutil.copytree(whole_directory, tmp_path / "checkpoints")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for few steps."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", place], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)
