"""The fast tier: a restart on the same node reads nearby, and nothing is lost where it cannot."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from restarts import fill
from test_checkpoints import arrays_of, content, opened

from ratchet_api.canonical import canonical
from ratchet_api.job import RLTrainingJob
from ratchet_api.protocol import Exit
from ratchet_trainer.checkpoints.checkpoint import Checkpoints
from ratchet_trainer.checkpoints.fast_tier import LocalTier
from ratchet_trainer.tools.local import Folder, Gang, train

SMALL_RUN = (sys.executable, str(Path(__file__).with_name("small_run.py")))
STEPS = 12


def copied(tmp_path: Path, steps: int = 3) -> tuple[Checkpoints, LocalTier]:
    """Steps that were committed, each with its copy."""
    checkpoints, tier = opened(tmp_path / "durable"), LocalTier(tmp_path / "local", 0)
    for step in range(1, steps + 1):
        commit, proof = checkpoints.write(content(step))
        tier.put(commit.path, content(step), canonical(proof))
        tier.settle()
    return checkpoints, tier


def test_a_copy_is_what_was_committed(tmp_path: Path) -> None:
    checkpoints, _ = copied(tmp_path)
    again = LocalTier(tmp_path / "local", 0)
    (newest, *_) = checkpoints.candidates()
    proof, found = again.find(newest)
    assert proof == checkpoints.read_proof(newest)
    assert {path: leaf.tobytes() for path, leaf in found.arrays.items()} == {
        path: leaf.tobytes() for path, leaf in arrays_of(3).items()
    }
    assert (found.step, found.control, found.lines) == (3, content(3).control, content(3).lines)


def test_few_copies_stay_and_none_once_the_job_is_done(tmp_path: Path) -> None:
    _, tier = copied(tmp_path, steps=5)
    assert sorted(f.name for f in (tmp_path / "local" / "steps").iterdir()) == ["4-a1-jobset1.0", "5-a1-jobset1.0"]
    tier.clear()
    assert list((tmp_path / "local").iterdir()) == []


@pytest.mark.parametrize("harm", ["cut", "flipped", "deleted", "of another commit"])
def test_a_copy_that_is_not_the_committed_step_is_not_used(tmp_path: Path, harm: str) -> None:
    checkpoints, _ = copied(tmp_path)
    (newest, older, *_) = checkpoints.candidates()
    copy = tmp_path / "local" / f"{newest.path}.0"
    if harm == "deleted":
        (copy / "arrays" / "manifest.ocdbt").unlink()
    elif harm == "of another commit":
        shutil.rmtree(copy)
        shutil.copytree(tmp_path / "local" / f"{older.path}.0", copy)
    else:
        for file in (f for f in copy.rglob("*") if f.is_file()):
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 1
            file.write_bytes(data[: len(data) // 2] if harm == "cut" else data)
    tier = LocalTier(tmp_path / "local", 0)
    assert tier.find(newest) is None
    assert not copy.exists(), "it does not stay in the way of a whole one"
    assert checkpoints.read(newest, checkpoints.read_proof(newest)).step == 3


def test_two_processes_of_one_node_share_the_copies(tmp_path: Path) -> None:
    checkpoints, tier = opened(tmp_path / "durable"), LocalTier(tmp_path / "local", 0)
    other = LocalTier(tmp_path / "local", 1)
    for step in range(1, 5):
        commit, proof = checkpoints.write(content(step))
        for one in (tier, other):
            one.put(commit.path, content(step), canonical(proof))
        for one in (tier, other):
            one.settle()
    assert all(one.wants and one.find(commit)[1].step == 4 for one in (tier, other))
    assert sorted(f.name[0] for f in (tmp_path / "local" / "steps").iterdir()) == ["3", "3", "4", "4"]
    shutil.rmtree(tmp_path / "local" / f"{commit.path}.1")
    assert other.find(commit)[1].step == 4, "what another process of the node has copied serves as well"


def test_a_broken_disk_is_warned_of_once_and_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "local").write_text("in the way")
    checkpoints, tier = copied(tmp_path)
    assert [step.step for step in checkpoints.candidates()] == [3, 2, 1]
    assert tier.find(checkpoints.candidates()[0]) is None
    assert not tier.wants
    assert sum("not used any more" in record.message for record in caplog.records) == 1
    tier.clear()


def test_a_full_disk_is_left_as_it_was(small_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "local").symlink_to(small_disk / "local")
    (small_disk / "local").mkdir()
    ballast = fill(small_disk)
    checkpoints, tier = copied(tmp_path)
    assert [commit.step for commit in checkpoints.candidates()] == [3, 2, 1]
    assert not tier.wants
    assert sorted(f for f in small_disk.rglob("*") if f.is_file()) == [ballast], "no half a copy stays"


# Whole runs


def small_job() -> RLTrainingJob:
    stage = {"sft": {"dataset": "d"}, "advance": {"steps": STEPS}}
    spec = {
        "model": {"preset": "tiny"},
        "datasets": [{"name": "d", "jsonl": {"path": "/unused"}}],
        "stages": [{"name": "one", **stage}],
        # A step that comes while another is copied gets no copy; of every third step there is one.
        "checkpoint": {"directory": "/replaced", "localDirectory": "/replaced-too", "everySteps": 3},
        "placements": [{"name": "here", "cpu": {"hosts": 1}}],
    }
    return RLTrainingJob.model_validate({"spec": spec})


@pytest.fixture
def start() -> Iterator[Callable[..., Gang]]:
    """Starts a gang that stands still before a step; a kill finds it there."""
    gangs: list[Gang] = []

    def begin(folder: Folder, processes: int, step: int) -> Gang:
        (folder.local / "small.json").write_text(json.dumps({"hold": f"generate:{step}"}))
        (folder.local / "held").unlink(missing_ok=True)
        gang = Gang.start(folder, processes, command=SMALL_RUN)
        gangs.append(gang)
        while not (folder.local / "held").exists():
            assert gang.wait(0.01) is None, (folder.local / "process-0.log").read_text()[-3000:]
        return gang

    yield begin
    for gang in gangs:
        gang.send(signal.SIGKILL)
        gang.wait()


def until_copied(folder: Folder, step: int, processes: int) -> str:
    """The name of a step's folder, once every process has copied it."""
    deadline = time.monotonic() + 60
    while len(found := list((folder.path / "fast" / "steps").glob(f"{step}-*"))) < processes:
        assert time.monotonic() < deadline, f"step {step} is not copied"
        time.sleep(0.01)
    return found[0].name.rpartition(".")[0]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_restart_needs_the_durable_arrays_only_where_there_is_no_copy(
    tmp_path: Path, start: Callable[..., Gang], processes: int
) -> None:
    """The durable arrays of the newest step are made unreadable: it is restored all the same, from the copy. Then the
    copies are: everything is read from the durable folder."""
    calm = Folder(tmp_path / "calm", "small", small_job(), tmp_path / "cache")
    assert train(calm, processes, command=SMALL_RUN)[0] == Exit.DONE
    folder = Folder(tmp_path / "killed", "small", small_job(), tmp_path / "cache")
    for step, harmed in ((4, "durable"), (7, "copies")):
        gang = start(folder, processes, step)
        copy = until_copied(folder, step - 1, processes)
        gang.send(signal.SIGKILL)
        gang.wait()
        hurt = folder.path / "steps" / copy / "arrays" if harmed == "durable" else folder.path / "fast"
        shutil.rmtree(hurt)
        if harmed == "copies":
            hurt.write_text("no folder any more")
    (folder.local / "small.json").unlink()
    assert train(folder, processes, command=SMALL_RUN)[0] == Exit.DONE
    assert folder.result() | NOT_COMPARED == calm.result() | NOT_COMPARED
    for process in range(processes):
        log = (folder.local / f"process-{process}.log").read_text()
        assert log.count("is read from") == 1
        assert "restored step 3 " in log
        assert "restored step 6 " in log
        assert log.count("is not used any more in this attempt") == 1


NOT_COMPARED = dict.fromkeys(("tokensPerSecond", "checkpoint", "ledger", "boundaries"))


def test_a_finished_job_leaves_nothing_on_the_node(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "work", "small", small_job())
    assert train(folder, 1, command=SMALL_RUN)[0] == Exit.DONE
    assert list((folder.path / "fast").iterdir()) == []
