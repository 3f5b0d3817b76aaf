"""The board on every kind of storage: two workers on a call, frozen ones, older trainers, and what is not what it was
are a waste at most."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from fleet_calls import Clock, answer, call

from ratchet_trainer import storage
from ratchet_trainer.fleet import result as results
from ratchet_trainer.fleet.board import BY_NAME, CALL, MOST_RETRIES, OPEN, UNEQUAL, WORKERS, Board
from ratchet_trainer.fleet.call import Call
from ratchet_trainer.fleet.heartbeats import FORGOTTEN
from ratchet_trainer.fleet.leases import LEASE, MOST_ERRORS, MOST_SILENCES
from ratchet_trainer.storage import Location

PATIENCE = 10.0
Boards = Callable[..., Board]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(place: Location, clock: Clock) -> Boards:
    """Another process's view of one board."""
    return lambda worker="", clock=clock: Board(place, 1, worker, PATIENCE, clock)


def posted(trainer: Board, *calls: Call) -> None:
    trainer.publish(calls)
    trainer.announce(calls)


def work(worker: Board, change: int = 0) -> Call | None:
    """Takes a call and answers it."""
    if (found := worker.next_call()) is None or (lease := worker.take(found)) is None:
        return None
    worker.put(found, answer(found, worker.worker, change=change))
    lease.end()
    return found


def test_calls_are_answered_and_collected(board: Boards) -> None:
    trainer, worker = board(), board("w0")
    calls = [call(n) for n in range(3)]
    assert worker.next_call() is None, "nothing is there yet"
    posted(trainer, *calls)
    posted(trainer, *calls)
    assert trainer.collect(calls) == {}
    assert {work(worker).folder for _ in calls} == {one.folder for one in calls}
    assert work(worker) is None
    found = trainer.collect(calls)
    assert {folder: r.digest for folder, r in found.items()} == {c.folder: answer(c).digest for c in calls}
    assert board().collect(calls).keys() == found.keys(), "a restart finds them, too"
    assert trainer.unequal() == []


def test_the_oldest_step_comes_first_and_workers_begin_at_different_calls(board: Boards) -> None:
    calls = [call(n, step=step) for step in (7, 8) for n in range(20)]
    posted(board(), *calls)
    first = [board(f"w{n}").next_call() for n in range(8)]
    assert {one.step for one in first} == {7}
    assert len({one.folder for one in first}) > 3
    assert board("w0").next_call([c.folder for c in calls if c.step == 7]).step == 8


def test_a_leased_call_is_left_alone_until_its_holder_is_silent(board: Boards, clock: Clock) -> None:
    one, two, other = call(), board("w1"), board("w2")
    posted(board(), one)
    lease = two.take(two.next_call())
    assert other.take(one) is None
    for _ in range(5):
        assert other.next_call() is None
        clock.now += PATIENCE / 3
        assert lease.renew()
    other.next_call()
    clock.now += PATIENCE - 0.1
    assert other.next_call() is None
    clock.now += PATIENCE + 0.1
    assert other.next_call() == one
    mine = other.take(one)
    assert mine is not None
    assert not lease.renew(), "a worker that thaws learns that it lost it"
    lease.end()
    assert mine.renew()


def test_clocks_are_not_compared(board: Boards, clock: Clock) -> None:
    """A worker an hour ahead sees a lease as new as any other."""
    ahead = Clock()
    ahead.now = clock.now + 3600
    one = call()
    posted(board(), one)
    assert board("w1").take(one) is not None
    assert board("w2", ahead).next_call() is None


def test_a_call_that_is_given_back_is_free_at_once(board: Boards) -> None:
    one = call()
    posted(board(), one)
    for n in range(2 * MOST_SILENCES):
        worker = board(f"w{n}")
        worker.take(worker.next_call()).end()
    assert board().poisoned([one]) == []


def test_a_late_answer_of_a_frozen_worker_is_one_more_that_is_equal(board: Boards) -> None:
    one, trainer = call(), board()
    posted(trainer, one)
    frozen, heir = board("frozen"), board("heir")
    assert frozen.next_call() == heir.next_call() == one
    assert heir.put(one, answer(one, "heir"))
    assert not frozen.put(one, answer(one, "frozen"))
    assert trainer.collect([one])[one.folder].worker == "heir"
    assert trainer.unequal() == []


def test_unequal_answers_are_found(board: Boards) -> None:
    one, trainer = call(), board()
    posted(trainer, one)
    assert board("w1").put(one, answer(one, "w1"))
    for _ in range(2):
        assert not board("w2").put(one, answer(one, "w2", change=1))
    (found,) = trainer.unequal()
    assert (found.folder, found.workers) == (one.folder, ("w1", "w2"))
    assert found.digests == (answer(one).digest, answer(one, change=1).digest)
    assert trainer.collect([one])[one.folder].digest == answer(one).digest, "the first one stays"


@pytest.mark.parametrize("what", ["truncated", "empty", "swapped", "oversized", "noise"])
def test_a_damaged_result_is_read_twice_then_asked_for_again(board: Boards, clock: Clock, what: str) -> None:
    one, trainer, worker = call(), board(), board("w0")
    data = results.encode(answer(one))
    bad = {
        "truncated": data[:-1],
        "empty": b"",
        "swapped": results.encode(answer(call(1))),
        "oversized": results.MAGIC + (16).to_bytes(8, "little") + (1 << 50).to_bytes(8, "little") + bytes(99),
        "noise": bytes(300),
    }[what]
    posted(trainer, one)
    place = trainer.folder / one.folder
    storage.write(place / "result-0", bad)
    assert trainer.collect([one]) == {}
    assert not storage.exists(place / "retry-1"), "once may be the network's fault"
    assert trainer.collect([one]) == {}
    assert storage.exists(place / "retry-1")
    assert work(worker) == one
    assert storage.read(place / "result-0") == bad, "nothing is replaced"
    for who in (trainer, board()):
        who.collect([one])
        assert who.collect([one])[one.folder].digest == answer(one).digest
    storage.delete(place / "result-0")
    assert board().collect([one]).keys() == {one.folder}
    clock.now += PATIENCE
    assert work(worker) is None, "it is answered"


def test_a_worker_whose_answer_was_damaged_looks_again_after_its_patience(board: Boards, clock: Clock) -> None:
    one, trainer, worker = call(), board(), board("w0")
    posted(trainer, one)
    assert work(worker) == one
    storage.write(trainer.folder / one.folder / "result-0", b"damage")
    trainer.collect([one])
    trainer.collect([one])
    assert work(worker) is None
    clock.now += PATIENCE
    assert work(worker) == one
    assert trainer.collect([one]).keys() == {one.folder}


def test_a_result_that_reads_again_is_compared_with_the_one_after_it(board: Boards) -> None:
    one, trainer = call(), board()
    posted(trainer, one)
    place = trainer.folder / one.folder
    storage.write(place / "result-0", results.encode(answer(one, "w0")))
    storage.write(place / "result-1", results.encode(answer(one, "w1", change=1)))
    assert trainer.collect([one])[one.folder].worker == "w0"
    assert [u.workers for u in trainer.unequal()] == [("w0", "w1")]


def test_a_result_that_the_trainer_refuses_is_asked_for_again(board: Boards, clock: Clock) -> None:
    one, trainer = call(), board()
    posted(trainer, one)
    for n in range(MOST_RETRIES):
        assert trainer.poisoned([one]) == []
        assert work(board(f"w{n}")) == one
        assert trainer.collect([one])[one.folder].worker == f"w{n}"
        trainer.refuse(one, "made by another kind of machine")
        assert trainer.collect([one]) == {}
        clock.now += PATIENCE
    assert trainer.poisoned([one]) == [], "a machine of another kind says nothing against the call"


def test_a_call_that_ends_its_workers_is_left_alone(board: Boards, clock: Clock) -> None:
    poison, good = call(0), call(1)
    trainer = board()
    posted(trainer, poison, good)
    for n in range(MOST_SILENCES):
        victim = board(f"w{n}")
        assert victim.next_call([good.folder]) is None or n == 0
        clock.now += PATIENCE
        assert trainer.poisoned([poison, good]) == []
        assert victim.take(victim.next_call([good.folder])) is not None
    next_one = board("w9")
    assert next_one.next_call([good.folder]) is None
    clock.now += PATIENCE
    assert next_one.next_call([good.folder]) == poison
    assert next_one.take(poison) is None, "one more does not try"
    clock.now += PATIENCE
    assert trainer.poisoned([poison, good]) == [poison.folder]
    assert board("w10").next_call() == good
    assert board("w10").next_call([good.folder]) is None
    assert board().poisoned([poison]) in ([], [poison.folder])


def test_a_call_at_which_workers_fail_is_left_alone_sooner(board: Boards, clock: Clock) -> None:
    """Who fails and says so was not on a machine that was lost."""
    one, trainer = call(), board()
    posted(trainer, one)
    for n in range(MOST_ERRORS):
        clock.now += PATIENCE
        assert trainer.poisoned([one]) == []
        worker = board(f"w{n}")
        worker.take(worker.next_call()).end(failed=True)
    assert board("w9").next_call() is None
    clock.now += PATIENCE
    assert trainer.poisoned([one]) == [one.folder]


def test_workers_that_were_only_slow_make_no_poison(board: Boards, clock: Clock) -> None:
    one, trainer = call(), board()
    posted(trainer, one)
    trainer.poisoned([one])
    for n in range(2 * MOST_SILENCES):
        slow = board(f"w{n}")
        slow.next_call()
        clock.now += PATIENCE
        lease = slow.take(slow.next_call())
        heir = board(f"heir-{n}")
        heir.next_call()
        clock.now += PATIENCE
        heirs = heir.take(heir.next_call())
        assert not lease.renew()
        heirs.end()
    clock.now += PATIENCE
    assert trainer.poisoned([one]) == []
    trainer.withdraw([one.folder])
    assert not lease.renew()
    assert not storage.tree(trainer.folder / one.folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"noise", b'{"silent": 3}', b"[" * 100_000])
def test_a_lease_that_cannot_be_read_is_waited_for_and_replaced(board: Boards, clock: Clock, content: bytes) -> None:
    one, trainer, worker = call(), board(), board("w0")
    posted(trainer, one)
    storage.write(trainer.folder / one.folder / LEASE, content)
    assert worker.next_call() is None
    clock.now += PATIENCE
    assert worker.take(worker.next_call()) is not None


def test_an_older_trainer_that_thaws_costs_a_look(board: Boards, clock: Clock) -> None:
    old, new, worker = board(), board(), board("w0")
    gone, wanted = call(0), call(1, step=2)
    posted(old, gone)
    old.withdraw([gone.folder])
    posted(new, wanted)
    old.announce([gone])
    assert work(worker) is None
    new.announce([wanted])
    assert work(worker) == wanted
    assert new.collect([wanted]).keys() == {wanted.folder}
    old.announce([])
    assert json.loads(storage.read(new.folder / OPEN))["open"] == []


@pytest.mark.parametrize("content", [b"", b"{}", b'{"open": 3}', b'{"open": [1, "../../x", "1-1/../call"]}', b"\xff"])
def test_a_hint_that_is_none_is_no_error(board: Boards, content: bytes) -> None:
    trainer, worker = board(), board("w0")
    posted(trainer, call())
    storage.write(trainer.folder / OPEN, content)
    assert worker.next_call() is None
    trainer.announce([call()])
    assert worker.next_call() == call()


@pytest.mark.parametrize("content", [None, b"", b"noise", call(1).to_bytes()])
def test_a_call_that_is_lost_or_damaged_is_written_again(board: Boards, clock: Clock, content: bytes | None) -> None:
    one, trainer, worker = call(), board(), board("w0")
    posted(trainer, one)
    place = trainer.folder / one.folder / CALL
    storage.delete(place)
    if content is not None:
        storage.write(place, content)
    assert worker.next_call() is None
    assert trainer.collect([one]) == {}
    clock.now += PATIENCE if content is None else BY_NAME * PATIENCE
    assert trainer.collect([one]) == {}
    assert work(worker) == one
    storage.write(place, b"noise")
    trainer.publish([one])
    assert storage.read(place) == one.to_bytes()


def test_results_are_found_by_name_where_the_listing_lags(
    board: Boards, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, trainer = call(), board()
    posted(trainer, one)
    work(board("w0"))
    monkeypatch.setattr(storage, "tree", lambda folder: [])
    assert trainer.collect([one]) == {}
    clock.now += BY_NAME * PATIENCE
    assert trainer.collect([one]).keys() == {one.folder}


def test_a_withdrawn_call_is_wanted_no_more(board: Boards) -> None:
    one, trainer, worker = call(), board(), board("w0")
    posted(trainer, one, call(1))
    lease = worker.take(one)
    assert worker.is_wanted(one)
    trainer.withdraw([one.folder])
    trainer.withdraw([one.folder])
    assert not worker.is_wanted(one)
    assert not lease.renew()
    assert worker.is_wanted(call(1))
    worker.put(one, answer(one))
    assert board("w1").next_call([call(1).folder]) is None


def test_lineages_know_nothing_of_each_other(place: Location, clock: Clock) -> None:
    before, after = Board(place, 1, clock=clock), Board(place, 2, "w0", clock=clock)
    posted(before, call())
    assert after.next_call() is None
    assert after.collect([call()]) == {}


def test_heartbeats_count_while_they_change(board: Boards, clock: Clock) -> None:
    trainer, one, two = board(), board("w0"), board("w1")
    one.beat()
    assert trainer.workers() == [], "one may have been dead for long"
    for _ in range(4):
        clock.now += PATIENCE / 3
        one.beat()
        two.beat()
        seen = trainer.workers()
    assert seen == ["w0", "w1"]
    for _ in range(4):
        clock.now += PATIENCE / 3
        two.beat()
        seen = trainer.workers()
    assert seen == ["w1"]
    board("w0").beat()
    clock.now += PATIENCE / 3
    two.beat()
    assert trainer.workers() == ["w0", "w1"], "one that begins anew is alive"


def test_what_workers_that_are_long_gone_have_left_is_removed(board: Boards, clock: Clock) -> None:
    trainer, lives = board(), board("lives")
    for start in range(3):
        board(f"w0-{start}").beat()
    lives.beat()
    trainer.workers()
    for _ in range(2):
        clock.now += FORGOTTEN * PATIENCE / 2
        lives.beat()
        assert trainer.workers() == ["lives"]
    assert storage.names(trainer.folder / WORKERS) == ["lives"]
    frozen = board("w0-2")
    for _ in range(2):
        clock.now += PATIENCE / 3
        frozen.beat()
        seen = trainer.workers()
    assert seen == ["lives", "w0-2"], "one that was only frozen is seen again"


def test_of_unequal_answers_the_step_is_known(board: Boards) -> None:
    trainer = board()
    asked = call(step=7)
    posted(trainer, asked)
    board().put(asked, answer(asked, "w0"))
    assert not board().put(asked, answer(asked, "w1", change=1))
    storage.create(trainer.folder / UNEQUAL / "no-answer", b'{"folder": "elsewhere", "digests": [], "workers": []}')
    assert [one.step for one in trainer.unequal()] == [7]


def retained(board: Board) -> set[str]:
    return {name.partition("/")[0] for name in storage.tree(board.folder)}


def test_old_steps_go_after_the_append_and_versions_one_later(board: Boards, place: Location, clock: Clock) -> None:
    trainer = board()
    calls = [call(step=step) for step in (1, 2, 3)]
    posted(trainer, *calls)
    Board(place, 0, clock=clock).publish(calls)
    for name in ("a", "b", "c"):
        storage.write(trainer.folder / "versions" / name / "manifest.json", b"1")
    trainer.delete(trainer.list_old(2, {"c"}))
    assert retained(trainer) == {"0-3", "open.json", "versions"}
    assert storage.names(trainer.folder) == ["0-3", "open.json", "versions"]
    assert storage.names(trainer.folder / "versions") == ["a", "b", "c"]
    names = trainer.list_old(2, {"c", "b"})
    assert names == ["1/versions/a"]
    trainer.delete(names)
    trainer.delete(names)
    assert storage.names(trainer.folder / "versions") == ["b", "c"]
    assert storage.names(place / "fleet") == ["1"]


def test_a_trainer_that_slept_deletes_nothing_of_its_heirs(board: Boards) -> None:
    old, heir = board(), board()
    posted(old, call(step=1))
    names = old.list_old(1, ())
    posted(heir, call(step=1, round=1), call(step=2))
    storage.write(heir.folder / "versions" / "new" / "manifest.json", b"1")
    old.delete(names)  # only if its append came before the heir's claim
    assert retained(heir) == {"0-1", "0-2", "open.json", "versions"}
    assert storage.exists(heir.folder / call(step=1, round=1).folder / CALL)
    assert not storage.exists(heir.folder / call(step=1).folder / CALL)


def test_answers_may_come_with_another_worker_name_only(board: Boards) -> None:
    one = call()
    posted(board(), one)
    assert board("w0").put(one, answer(one))
    assert not board("w1").put(one, replace(answer(one), worker="w1", identity="other"))
    assert board().unequal() == []
