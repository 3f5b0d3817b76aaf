"""What was sampled before a drain is not sampled again, and no bit depends on it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ratchet_trainer.errors import Drain
from ratchet_trainer.rollout import rollout_file, rollout_journal
from ratchet_trainer.rollout.rollout_file import Kept
from ratchet_trainer.rollout.rollout_journal import RolloutJournal
from ratchet_trainer.rollout.sampler import CHUNK, Sampler
from ratchet_trainer.run import run

CHUNKS = 3
STEPS = 3


def job() -> dict[str, Any]:
    """Responses of three chunks, which random weights hardly ever end earlier."""
    rl = {"promptsPerStep": 2, "groupSize": 2, "maxPromptTokens": 26, "maxResponseTokens": CHUNKS * CHUNK - 8}
    config = {"max_terms": 2, "max_digits": 1, "operators": ["+"], "allow_parentheses": False}
    return {
        "model": {"preset": "tiny"},
        "seed": 7,
        "datasets": [{"name": "sums", "reasoningGym": {"task": "basic_arithmetic", "size": 10, "config": config}}],
        "stages": [{"name": "a", "rl": {"dataset": "sums", **rl}, "advance": {"steps": STEPS}}],
        "checkpoint": {"directory": "/checkpoints/x"},
        "placements": [{"name": "cpu", "cpu": {"hosts": 1}}],
    }


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The response position of every chunk that is decoded."""
    found: list[int] = []
    decode = Sampler.decode

    def spied(self: Sampler, params: Any, state: Any, at: int, *rest: Any) -> Any:
        found.append(at)
        return decode(self, params, state, at, *rest)

    monkeypatch.setattr(Sampler, "decode", spied)
    return found


@pytest.fixture(scope="module")
def straight(memory_runtime: Any) -> Any:
    runtime = memory_runtime(job())
    run(runtime)
    return runtime


def same(a: Any, b: Any) -> bool:
    (step, arrays, control, *_), (other_step, others, other_control, *_) = a.commits[-1], b.commits[-1]
    equal = all(np.array_equal(leaf, others[path]) for path, leaf in arrays.items())
    return equal and step == other_step and control == other_control and a.stream == b.stream


def interrupted(memory_runtime: Any, folder: Path, point: int) -> Any:
    runtime = memory_runtime(job(), drain_at=point, rollouts=folder)
    with pytest.raises(Drain):
        run(runtime)
    return runtime


def test_no_chunk_is_decoded_twice_and_no_bit_differs(tmp_path, memory_runtime, straight, decoded) -> None:
    run(memory_runtime(job()))
    whole = len(decoded)
    assert whole == STEPS * CHUNKS
    for point in range(1, straight.safe_points + 1):
        decoded.clear()
        first = interrupted(memory_runtime, tmp_path / str(point), point)
        second = memory_runtime(job(), commits=first.commits, rollouts=tmp_path / str(point))
        run(second)
        assert len(decoded) == whole, f"stopped at safe point {point}"
        assert same(second, straight)


def test_stopped_again_and_again(tmp_path, memory_runtime, straight, decoded) -> None:
    commits = None
    for _ in range(straight.safe_points + 5):
        runtime = memory_runtime(job(), commits=commits, drain_at=4, rollouts=tmp_path)
        commits = runtime.commits
        try:
            run(runtime)
            break
        except Drain:
            continue
    assert same(runtime, straight) or commits[-1][2] == straight.commits[-1][2]
    assert len(decoded) == STEPS * CHUNKS


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing", "of another step"])
def test_what_cannot_be_trusted_is_sampled_again(tmp_path, memory_runtime, straight, decoded, damage: str) -> None:
    first = interrupted(memory_runtime, tmp_path, 2)
    (file,) = (tmp_path / "rollouts").iterdir()
    data = bytearray(file.read_bytes())
    commits = first.commits
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    elif damage == "cut":
        data = data[: len(data) // 2]
    file.write_bytes(bytes(data))
    if damage == "missing":
        file.unlink()
    elif damage == "of another step":
        commits = straight.commits[:1]
    decoded.clear()
    second = memory_runtime(job(), commits=commits, rollouts=tmp_path)
    run(second)
    assert decoded[:CHUNKS] == [0, CHUNK, 2 * CHUNK]
    assert second.commits[-1][2] == straight.commits[-1][2]


def test_a_call_that_another_process_lacks_is_used_by_none(tmp_path) -> None:
    made = np.zeros((3, 2, 2, CHUNK), np.float32)
    books = RolloutJournal(tmp_path, 0, 2, lambda mine: [mine, []])
    books.bind("here")
    books.keep("call", Kept(made))
    assert books.find("call", [0]) is None
    both = RolloutJournal(tmp_path, 0, 2, lambda mine: [mine, mine])
    both.bind("here")
    both.keep("call", Kept(made))
    assert both.find("call", [0]) is not None
    both.bind("the next step")
    assert both.find("call", [0]) is None


def test_state_that_is_too_large_for_the_notice_is_not_kept(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(rollout_journal, "LIMIT", 100)
    books = RolloutJournal(tmp_path, 0, 1, lambda mine: [mine])
    books.bind("here")
    unfinished = Kept(np.zeros((3, 1, 1, 1), np.float32), {0: (np.zeros(64, np.float32),)})
    books.keep("unfinished", unfinished, leaving=True)
    books.keep("finished", Kept(np.zeros((3, 8, 8, 8), np.float32)))
    assert books.find("unfinished", [0]) is None
    assert books.find("finished", [0]) is not None
    monkeypatch.setattr(rollout_journal, "LIMIT", 1000)
    monkeypatch.setattr(rollout_journal, "LIMIT_WHILE_DECODING", 100)
    books.keep("unfinished", unfinished)
    assert books.find("unfinished", [0]) is None
    books.keep("unfinished", unfinished, leaving=True)
    assert books.find("unfinished", [0]) is not None


def test_a_broken_local_disk_costs_a_warning(tmp_path, memory_runtime, straight, caplog) -> None:
    (tmp_path / "local").write_text("in the way")
    runtime = memory_runtime(job())
    runtime.rollouts = RolloutJournal(tmp_path / "durable", 0, 1, runtime.gather, tmp_path / "local", seconds=0.0)
    runtime.rollouts.asked = True
    run(runtime)
    assert same(runtime, straight)
    runtime.rollouts._thread.join(30)
    assert not runtime.rollouts.due
    assert sum("any more in this attempt" in record.message for record in caplog.records) == 1


def test_what_is_kept_of_a_call_is_not_what_the_call_makes_of_it_later(tmp_path) -> None:
    """Decoding goes on in the same memory: what waits to be written must be a copy."""
    memory = np.zeros(4, np.float32)
    books = RolloutJournal(tmp_path / "durable", 0, 1, lambda mine: [mine], tmp_path / "local", seconds=3600.0)
    books.bind("here")
    books.keep("call", Kept(np.zeros((3, 1, 1, 2), np.float32), {0: (memory,)}))
    memory += 1
    assert books.find("call", [0]).parts[0][0].tolist() == [0, 0, 0, 0]


def test_a_file_holds_what_was_kept(tmp_path) -> None:
    import ml_dtypes

    parts = {
        0: (np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(4, ml_dtypes.bfloat16), np.zeros(2, bool)),
        8: (np.ones((2, 3), np.float32), np.zeros(4, ml_dtypes.bfloat16), np.ones(2, bool)),
    }
    books = RolloutJournal(tmp_path, 1, 2, lambda mine: [mine])
    books.bind("here")
    books.keep("call", Kept(np.ones((3, 1, 1, 2), np.float32), parts))
    books.keep("other", Kept(np.zeros((3, 1, 1, 3), np.float32), {0: (np.uint32(7).reshape(()), np.zeros((0, 2)))}))
    books.write()
    (tmp_path / "rollouts" / ".1-of-2.tmp").write_text("of a process that had no time to finish it")
    again = RolloutJournal(tmp_path, 1, 2, lambda mine: [mine])
    again.bind("here")
    found = again.find("call", [0, 8])
    assert found.made.tolist() == np.ones((3, 1, 1, 2)).tolist()
    assert found.parts.keys() == parts.keys()
    for row, part in parts.items():
        for leaf, wanted in zip(found.parts[row], part, strict=True):
            assert leaf.dtype == wanted.dtype
            assert leaf.tobytes() == wanted.tobytes()
    other = again.find("other", [0]).parts[0]
    assert [(leaf.shape, leaf.dtype) for leaf in other] == [((), "uint32"), ((0, 2), "float64")]
    assert [file.name for file in (tmp_path / "rollouts").iterdir()] == ["1-of-2"]


# Other rows after a restart


def part(row: int, at: int) -> tuple[np.ndarray, ...]:
    """What stands for the state of the rows from `row` on after `at` tokens."""
    return (np.array([row, at]),)


def left(folder: Path, process: int, rows: list[int], at: int) -> None:
    """The file of one of two processes that had these rows and left after so many tokens."""
    books = RolloutJournal(folder, process, 2, lambda mine: [mine, mine])
    books.bind("here")
    made = np.full((3, 16, 1, at), at, np.float32)
    books.keep("call", Kept(made, {row: part(row, at) for row in rows}), leaving=True)
    books.write()


class Together:
    """Processes that look for a call at the same time: each is asked in turn, and hears what all have said."""

    def __init__(self, folder: Path, rows: list[list[int]], local: Path | None = None):
        self.folder, self.rows, self.local = folder, rows, local

    def find(self) -> list[Kept | None]:
        count = len(self.rows)
        barrier, said = threading.Barrier(count), [[None] * count for _ in range(2)]
        found: list[Kept | None] = [None] * count

        def one(process: int) -> None:
            turn = 0

            def gather(mine: Any) -> list[Any]:
                nonlocal turn
                said[turn][process] = mine
                barrier.wait(30)
                turn += 1
                return said[turn - 1]

            books = RolloutJournal(self.folder, process, count, gather, self.local)
            books.bind("here")
            found[process] = books.find("call", self.rows[process])

        threads = [threading.Thread(target=one, args=(process,)) for process in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return found


@pytest.mark.parametrize("rows", [[[0, 4], [8, 12]], [[8, 12], [0, 4]], [[4, 12], [0, 8]]])
def test_a_process_finds_its_rows_in_whichever_files_they_are(tmp_path, rows) -> None:
    left(tmp_path, 0, [0, 4], 16)
    left(tmp_path, 1, [8, 12], 16)
    for mine, kept in zip(rows, Together(tmp_path, rows).find(), strict=True):
        assert kept.made.shape[-1] == 16
        assert {row: leaves[0].tolist() for row, leaves in kept.parts.items()} == {row: [row, 16] for row in mine}


def test_all_go_on_from_where_all_have_come(tmp_path) -> None:
    """Of a kill while the files were written: one process is ahead in one folder, behind in the other."""
    left(tmp_path / "durable", 0, [0], 16)
    left(tmp_path / "durable", 1, [8], 16)
    left(tmp_path / "local", 0, [0], 32)
    for kept in Together(tmp_path / "durable", [[8], [0]], tmp_path / "local").find():
        assert kept.made.shape[-1] == 16
    left(tmp_path / "local", 1, [8], 32)
    for kept in Together(tmp_path / "durable", [[8], [0]], tmp_path / "local").find():
        assert kept.made.shape[-1] == 32


def test_rows_that_are_nowhere_and_torn_ones_are_sampled_again_by_all(tmp_path) -> None:
    left(tmp_path, 0, [0], 16)
    assert Together(tmp_path, [[0], [8]]).find() == [None, None]
    left(tmp_path, 1, [8], 16)
    file = tmp_path / "rollouts" / "1-of-2"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert Together(tmp_path, [[0], [8]]).find() == [None, None]


# Kills without notice

SAFE_POINTS = CHUNKS + 2
"""Of a step: one at its beginning, one after each chunk, one after verifying."""


class Killed(BaseException):
    """The process is gone, without a word."""


def killed(memory_runtime: Any, folder: Path, point: int) -> Any:
    """A run that is killed at a safe point, and keeps what it has made of a call at every one."""
    runtime = memory_runtime(job(), rollouts=folder / "durable")
    runtime.rollouts = RolloutJournal(folder / "durable", 0, 1, runtime.gather, folder / "local", seconds=0.0)
    runtime.rollouts.asked = True
    passed = 0

    def safe_point() -> None:
        nonlocal passed
        passed += 1
        if passed == point:
            until_written(runtime.rollouts)
            raise Killed

    runtime.safe_point = safe_point
    with pytest.raises(Killed):
        run(runtime)
    return runtime


def until_written(journal: RolloutJournal) -> None:
    """Waits for the thread that writes: what is tested is what it leaves, not how quick it is."""
    deadline = time.monotonic() + 30
    made = lambda calls: {name: kept.progress for name, kept in calls.items()}  # noqa: E731
    while made(rollout_file.read(journal._local, journal._context)) != made(journal._calls):
        assert time.monotonic() < deadline, "nothing is written"
        time.sleep(0.001)


def test_what_a_kill_leaves_is_taken_up_and_no_bit_differs(tmp_path, memory_runtime, straight, decoded) -> None:
    for point in (3, 4, SAFE_POINTS, SAFE_POINTS + 3):
        decoded.clear()
        first = killed(memory_runtime, tmp_path / str(point), point)
        second = memory_runtime(job(), commits=first.commits)
        second.rollouts = RolloutJournal(
            tmp_path / str(point) / "durable", 0, 1, second.gather, tmp_path / str(point) / "local"
        )
        run(second)
        assert same(second, straight)
        assert len(decoded) - STEPS * CHUNKS == (0 if point % SAFE_POINTS == 0 else 1), f"killed at safe point {point}"
