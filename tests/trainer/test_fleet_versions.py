"""Versions of the weights: the same name for the same bits, and nothing taken that is not what was written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ratchet_trainer import storage
from ratchet_trainer.errors import StorageUnavailable
from ratchet_trainer.fleet.board import Board
from ratchet_trainer.fleet.versions import Versions
from ratchet_trainer.storage import Location

HERE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def weights(seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {
        "params/embedding": jnp.asarray(random.random((64, 512), np.float32), jnp.bfloat16),
        "params/layers/0/up": jnp.asarray(random.random((256, 300), np.float32)),
        "params/scale": np.float32(random.random()) * np.ones((), np.float32),
    }


def equal(found: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> bool:
    return (
        found is not None
        and found.keys() == wanted.keys()
        and all(
            np.asarray(found[path]).dtype == np.asarray(leaf).dtype
            and np.asarray(found[path]).tobytes() == np.asarray(leaf).tobytes()
            for path, leaf in wanted.items()
        )
    )


class Meeting:
    """`gather` of threads that stand for processes."""

    def __init__(self, processes: int):
        self._values: list[Any] = [None] * processes
        self._barrier = threading.Barrier(processes)

    def of(self, process: int) -> Callable[[Any], list[Any]]:
        def gather(value: Any) -> list[Any]:
            self._values[process] = value
            self._barrier.wait(60)
            found = list(self._values)
            self._barrier.wait(60)
            return found

        return gather


def published_by(place: Location, processes: int, arrays: Mapping[str, Any]) -> str:
    meeting = Meeting(processes)
    with ThreadPoolExecutor(processes) as pool:
        begun = [
            pool.submit(Versions(place, 1).publish, arrays, process, processes, meeting.of(process))
            for process in range(processes)
        ]
        (digest,) = {one.result(120) for one in begun}
    return digest


def damage(place: Location) -> None:
    """Turns a bit in the middle of the largest file."""
    sizes = {name: len(storage.read(place / name)) for name in storage.tree(place) if "manifest.json" not in name}
    name = max(sizes, key=sizes.get)
    data = bytearray(storage.read(place / name))
    data[len(data) // 2] ^= 1
    storage.write(place / name, bytes(data))


def test_a_version_comes_back_with_its_bits(place: Location) -> None:
    versions, wanted = Versions(place, 1), weights()
    digest = versions.publish(wanted)
    assert versions.is_there(digest)
    assert equal(versions.load(digest), wanted)
    loaded = Versions(place, 1).load(digest, lambda path, shape: HERE)
    assert equal(loaded, wanted)
    assert all(isinstance(leaf, jax.Array) and leaf.sharding == HERE for leaf in loaded.values())
    fetched = versions.fetch(digest, lambda path, shape: HERE).result(60)
    assert fetched is not None
    assert all(isinstance(region, np.ndarray) for one in fetched.held.values() for region in one.regions.values())
    assert equal(fetched.placed(), wanted)


def test_equal_weights_are_one_version_and_are_written_once(place: Location) -> None:
    digest = Versions(place, 1).publish(weights())
    before = storage.tree(place)
    assert Versions(place, 1).publish(weights()) == digest
    assert storage.tree(place) == before
    assert Versions(place, 1).publish(weights(1)) != digest
    renamed = {f"x/{path}": leaf for path, leaf in weights().items()}
    assert Versions(place, 1).publish(renamed) != digest


@pytest.mark.parametrize("processes", [2, 3])
def test_what_several_processes_write_has_the_name_that_one_gives_it(place: Location, processes: int) -> None:
    digest = published_by(place, processes, weights())
    assert equal(Versions(place, 1).load(digest), weights())
    assert Versions(place, 2).publish(weights()) == digest


def test_a_version_without_its_manifest_is_none(place: Location) -> None:
    versions = Versions(place, 1)
    digest = versions.publish(weights())
    storage.delete(versions._folder(digest) / "manifest.json")
    assert not versions.is_there(digest)
    assert versions.load(digest) is None
    assert versions.publish(weights()) == digest
    assert equal(versions.load(digest), weights())


def test_a_damaged_version_is_noted_and_published_again(place: Location) -> None:
    trainer, worker = Versions(place, 1), Versions(place, 1)
    digest = trainer.publish(weights())
    damage(trainer._folder(digest))
    assert worker.load(digest) is None
    assert trainer.damaged() == set()
    for name in ("w0", "w1"):
        worker.note_damaged(digest, name)
    assert trainer.damaged() == {digest}
    assert trainer.publish(weights()) == digest, "it is there, but noted as damaged"
    assert trainer.damaged() == set(), "what was noted is past"
    assert equal(worker.load(digest), weights())


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000])
def test_a_damaged_manifest_is_noted_and_replaced(place: Location, content: bytes) -> None:
    versions = Versions(place, 1)
    digest = versions.publish(weights())
    storage.write(versions._folder(digest) / "manifest.json", content)
    assert versions.load(digest) is None
    versions.note_damaged(digest, "w0")
    assert versions.damaged() == {digest}
    versions.publish(weights(), again=True)
    assert versions.damaged() == set()
    assert equal(versions.load(digest), weights())


def test_the_manifest_of_another_version_is_refused(place: Location) -> None:
    versions = Versions(place, 1)
    one, other = versions.publish(weights()), versions.publish(weights(1))
    storage.write(versions._folder(one) / "manifest.json", storage.read(versions._folder(other) / "manifest.json"))
    assert versions.load(one) is None


def test_a_version_that_is_missing_is_noted_until_it_is_there(place: Location) -> None:
    versions = Versions(place, 1)
    digest = versions.publish(weights())
    storage.delete_tree(versions._folder(digest))
    versions.note_damaged(digest, "w0")
    assert versions.damaged() == {digest}
    versions.publish(weights())
    assert versions.damaged() == set()


def test_two_trainers_that_publish_at_once_spoil_nothing(place: Location) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(Versions(place, 1).publish, weights()) for _ in range(4)]
        (digest,) = {one.result(120) for one in found}
    assert equal(Versions(place, 1).load(digest), weights())
    datas = {name.partition("/")[0] for name in storage.tree(Versions(place, 1)._folder(digest))}
    assert len(datas) == 2, "one manifest, and the data it names"


def test_versions_go_with_their_notes(place: Location) -> None:
    board, versions = Board(place, 1), Versions(place, 1)
    old, kept = versions.publish(weights()), versions.publish(weights(1))
    for one in (old, kept):
        versions.note_damaged(one, "w0")
    for _ in range(2):
        board.delete(board.list_old(0, {kept}))
    assert not versions.is_there(old)
    assert equal(versions.load(kept), weights(1))
    assert versions.damaged() == {kept}


def test_a_place_that_cannot_be_written_is_named(tmp_path: Any, quickly: None) -> None:
    (tmp_path / "fleet").write_text("a file where the folder should be")
    with pytest.raises(StorageUnavailable, match=str(tmp_path)):
        Versions(Location.parse(tmp_path), 1).publish(weights())
