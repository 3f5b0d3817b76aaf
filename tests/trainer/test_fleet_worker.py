"""What a worker does beside sampling: it gives calls back that it will not answer, and reads once what stays."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fleet_calls import call

from ratchet_api.protocol import Exit
from ratchet_trainer import storage
from ratchet_trainer.checkpoints.identity import flags_with_devices, of_sampler
from ratchet_trainer.errors import ConfigurationInvalid, Drain, PeerLost
from ratchet_trainer.fleet.board import Board
from ratchet_trainer.fleet.call import Call
from ratchet_trainer.fleet.leases import LEASE, Holding
from ratchet_trainer.model.lora import joined
from ratchet_trainer.storage import Location
from ratchet_trainer.worker import Worker


class Process:
    """What a worker knows of its process, alone and without devices."""

    process, processes = 0, 1

    def __init__(self, directory: Location):
        self.directory = directory
        self.environment = SimpleNamespace(worker=0, jobset_uid="0123456789")
        self.job = SimpleNamespace(spec=SimpleNamespace(seed=3))
        self.last: Any = None

    def broadcast(self, value: Any) -> Any:
        return value

    def at_last(self, act: Any) -> None:
        self.last = act


@pytest.fixture
def worker(tmp_path) -> Worker:
    one = Worker(Process(Location.parse(tmp_path)))  # type: ignore[arg-type]
    one.board = Board(one.runtime.directory, 1, one.name)
    return one


def lease_of(worker: Worker, asked: Call) -> Holding:
    assert worker.board is not None
    found = Holding.from_bytes(storage.read(worker.board.folder / asked.folder / LEASE))
    assert found is not None
    return found


@pytest.mark.parametrize(("code", "ends"), [(Exit.DRAINED, 0), (Exit.STORAGE_UNAVAILABLE, 0), (Exit.HUNG, 1)])
def test_who_ends_beside_the_main_thread_gives_its_call_back(worker: Worker, code: Exit, ends: int) -> None:
    asked = call()
    with worker._leased(asked) as has:
        assert has
        worker.runtime.last(code)  # type: ignore[attr-defined]
        assert (lease_of(worker, asked).count, lease_of(worker, asked).errors) == (None, ends)
    worker.runtime.last(code)  # type: ignore[attr-defined]
    assert lease_of(worker, asked).count is None, "nothing is left to be given back"


@pytest.mark.parametrize(
    ("error", "ends"),
    [(Drain(), 0), (ConfigurationInvalid("another image"), 0), (PeerLost("process 1"), 1), (ValueError(), 1)],
)
def test_a_call_that_may_have_ended_another_process_is_counted(worker: Worker, error: Exception, ends: int) -> None:
    asked = call()
    with pytest.raises(type(error)), worker._leased(asked):
        raise error
    assert (lease_of(worker, asked).count, lease_of(worker, asked).errors) == (None, ends)


def test_in_mode_exact_a_worker_may_have_any_number_of_devices() -> None:
    def made_on(device: str, count: int) -> dict[str, Any]:
        settings = {"XLA_FLAGS": flags_with_devices("--a", count)}
        return {"versions": {}, "settings": settings, "topology": {"device": device, "mesh": {"data": count}}}

    for mode, same in (("Exact", True), ("PerTopology", False)):
        spec: Any = SimpleNamespace(reproducibility=SimpleNamespace(mode=mode))
        small, large, other = (of_sampler(made_on(*one), spec) for one in (("v6", 4), ("v6", 8), ("v5", 4)))
        assert (small == large) is same
        assert small != other


def test_frozen_parameters_are_read_once(worker: Worker) -> None:
    read, frozen = [], {"output": {"weights": "frozen"}}

    def whole(params: Any, seed: int) -> Any:
        read.append(seed)
        return joined(params, frozen)

    programs: Any = SimpleNamespace(whole=whole)
    for version in range(3):
        params = {"output": {"q_adapter": version}}
        assert worker._whole(params, programs) == {"output": {"q_adapter": version, "weights": "frozen"}}
    assert len(read) == 1
    assert worker._whole({"output": {"q_adapter": 9}}, SimpleNamespace(whole=whole))["output"]["q_adapter"] == 9  # type: ignore[arg-type]
    assert len(read) == 2, "other programs may have another number format"
