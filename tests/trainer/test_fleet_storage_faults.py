"""A store that is full, forbidden or loses answers: said with the place and a way out, or not noticed at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from faulty_proxy import is_create
from fleet_calls import answer, call
from served import Served

from ratchet_trainer import storage
from ratchet_trainer.errors import StorageUnavailable
from ratchet_trainer.fleet.board import Board
from ratchet_trainer.storage import Location, posix

MUST = ("publish", "announce", "collect", "next_call", "take", "put", "list_old", "withdraw", "workers", "unequal")


def ask(board: Board, what: str) -> Any:
    one = call()
    return {
        "publish": lambda: board.publish([one]),
        "announce": lambda: board.announce([one]),
        "collect": lambda: board.collect([one]),
        "next_call": board.next_call,
        "take": lambda: board.take(one),
        "put": lambda: board.put(one, answer(one)),
        "list_old": lambda: board.list_old(1, ()),
        "withdraw": lambda: board.withdraw([one.folder]),
        "workers": board.workers,
        "unequal": board.unequal,
    }[what]()


def test_a_full_disk_is_named_with_a_way_out(small_disk: Path, quickly: None) -> None:
    board, one = Board(Location.parse(small_disk), 1, "w0"), call()
    board.publish([one])
    lease = board.take(one)
    (small_disk / "other").write_bytes(bytes(_room(small_disk)))
    for what in ("publish", "put"):
        with pytest.raises(StorageUnavailable, match=f"{small_disk}.*free some space") as raised:
            board.publish(call(n) for n in range(1, 99)) if what == "publish" else ask(board, what)
        assert isinstance(raised.value.__cause__, OSError)
    lease.renew()
    lease.end()
    board.beat()
    (small_disk / "other").unlink()
    assert board.put(one, answer(one))
    assert board.collect([one]).keys() == {one.folder}


def _room(folder: Path) -> int:
    there = os.statvfs(folder)
    return there.f_bavail * there.f_frsize


@pytest.mark.parametrize("what", ["publish", "announce", "take", "put"])
def test_a_path_that_may_not_be_written_is_named(
    tmp_path: Path, what: str, quickly: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, *_: Any) -> Path:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(posix, "_beside", refused)
    with pytest.raises(StorageUnavailable, match=f"{tmp_path}.*let the trainer's user write there"):
        ask(Board(Location.parse(tmp_path), 1, "w0"), what)


@pytest.mark.parametrize("what", MUST)
def test_a_bucket_that_may_not_be_used_is_named(served: Served, what: str, quickly: None) -> None:
    place = served.bucket() / "jobs"
    board = Board(place, 1, "w0")
    board.publish([call()])
    denied = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>" if served.store.kind == "s3" else b"{}"
    served.proxy.answers = lambda request: (403, "application/xml", denied)
    with pytest.raises(StorageUnavailable, match=f"{place.bucket}.*service account"):
        ask(board, what)
    board.beat()


def test_answers_that_are_lost_change_nothing(served: Served, quickly: None) -> None:
    """Every first answer to a write is lost, and what was written counts once."""
    seen: set[str] = set()

    def loses(request: tuple[str, str]) -> bool:
        new = is_create(request) and request[1] not in seen
        seen.add(request[1])
        return new

    place, calls = served.bucket() / "jobs", [call(n) for n in range(3)]
    trainer, worker = Board(place, 1), Board(place, 1, "w0")
    served.proxy.loses = loses
    trainer.publish(calls)
    trainer.announce(calls)
    for _ in calls:
        found = worker.next_call()
        lease = worker.take(found)
        assert worker.put(found, answer(found, "w0"))
        lease.end()
    assert trainer.collect(calls).keys() == {one.folder for one in calls}
    assert trainer.unequal() == []
    assert len([name for name in storage.tree(place) if "/result-" in name]) == 3
