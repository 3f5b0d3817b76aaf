"""A trainer and its workers, killed in any order at any point: every hash is that of the undisturbed run with one
worker, and without lag that of the run without a fleet."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import held_process
import pytest
from fleet_runs import NUMBERS, TRAINER_POINTS, WORKER_POINTS, WORKERS, disturb, hashes, job, running, schedule
from served import Served

from ratchet_api.protocol import Exit
from ratchet_trainer.tools import local, local_workers
from ratchet_trainer.tools.local import Folder, train

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module", autouse=True)
def forked() -> Iterator[None]:
    """Processes are forks of one that has imported everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "subprocess", held_process.SUBPROCESS)
        patch.setattr(local_workers, "subprocess", held_process.SUBPROCESS)
        yield
    held_process.Forked.end()


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Callable[..., dict[str, Any]]:
    """What the undisturbed run with one worker comes to; with 0 workers, the one without a fleet."""

    @cache
    def run(lag: int, workers: int = 1) -> dict[str, Any]:
        folder = Folder(tmp_path_factory.mktemp("calm"), "sums", job(lag, fleet=workers > 0), cache_folder)
        code, message = train(folder, 1, workers=workers)
        assert code == Exit.DONE, message
        return hashes(folder.result())

    return run


@pytest.fixture
def folder(tmp_path: Path, cache_folder: Path, serving: Callable[[str], Served]) -> Callable[..., Folder]:
    """A job that has not begun; `kind`: of the place where its checkpoints are."""

    def make(lag: int, kind: str = "path") -> Folder:
        place = serving(kind).bucket() / "jobs/sums" if kind != "path" else None
        return Folder(tmp_path / "work", "sums", job(lag), cache_folder, place)

    return make


PLACES = ("path", "path", "path", "gs", "gs")
SEEDS = [pytest.param(seed, kind, id=f"{kind}-{seed}") for seed, kind in enumerate(PLACES)]
MORE = [
    pytest.param(seed, kind, id=f"{kind}-{seed}", marks=pytest.mark.soak)
    for seed, kind in zip(range(5, 105), itertools.cycle(["path", "gs"]))
]


@pytest.mark.parametrize(("seed", "kind"), SEEDS + MORE)
def test_kills_of_trainer_and_workers_change_no_bit(
    calm: Callable[..., dict[str, Any]], folder: Callable[..., Folder], seed: int, kind: str
) -> None:
    lag = seed % 3
    with running(folder(lag, kind)) as run:
        for kill in schedule(seed):
            disturb(run, kill)
        found = run.to_the_end()
    assert run.attempts == 3
    assert hashes(found) == calm(lag)


def test_schedules_follow_from_the_seed_and_reach_every_point() -> None:
    assert schedule(3) == schedule(3) != schedule(4)
    kills = [kill for seed in range(50) for kill in schedule(seed)]
    assert {point for kill in kills for _, point in kill.points} == {*WORKER_POINTS, *TRAINER_POINTS}
    for seed in range(50):
        told = [(who, kill.number) for kill in schedule(seed) for who, _ in kill.points]
        assert all((f"worker-{i}", number) in told for i in range(WORKERS) for number in NUMBERS)
        assert [who for who, _ in told].count("trainer") == 2


def test_without_lag_a_fleet_changes_no_bit(calm: Callable[..., dict[str, Any]]) -> None:
    assert calm(0, 1) == calm(0, 0)


def test_any_number_of_workers_at_any_time_changes_no_bit(
    calm: Callable[..., dict[str, Any]], folder: Callable[..., Folder]
) -> None:
    with running(folder(1), workers=1) as run:
        for count in (1, 4, 2, 0, 3):
            run.hold("trainer", "await")
            run.stands("trainer")
            run.workers.wanted = count
            run.until(lambda count=count: run.alive == count, f"{count} workers")
            step = run.step
            run.free("trainer")
            if count:
                run.until(lambda step=step: run.step > step, "a step that they have sampled")
            else:
                waits = lambda: run.gang.document["phase"] == "await" and run.shown.get("workers") == 0  # noqa: E731
                run.until(waits, "a trainer that waits and says so")
                assert run.shown["waitingCalls"] > 0
        found = run.to_the_end()
    assert run.attempts == 1, "it waited"
    assert hashes(found) == calm(1)
