"""Arrays that lie on several processes: each writes and reads its part, and nothing tells how many there were."""

from __future__ import annotations

import functools
import json
import operator
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import pytest
from sharded_run import SHAPES, values_of

from ratchet_api.job import RLTrainingJob
from ratchet_api.protocol import Exit
from ratchet_trainer.storage import Location
from ratchet_trainer.tools.inspect_run import newest
from ratchet_trainer.tools.local import Folder, Gang

SHARDED_RUN = (sys.executable, str(Path(__file__).with_name("sharded_run.py")))
STATE_BYTES = sum(values_of(path, 0).nbytes for path in SHAPES)


def folder_in(path: Path, directory: Location | None = None) -> Folder:
    spec = {
        "model": {"preset": "tiny"},
        "datasets": [{"name": "d", "jsonl": {"path": "/unused"}}],
        "stages": [{"name": "only", "sft": {"dataset": "d"}, "advance": {"steps": 100}}],
        "checkpoint": {"directory": "/replaced", "keep": 10},
        "placements": [{"name": "here", "cpu": {"hosts": 1}}],
    }
    return Folder(path, "sharded", RLTrainingJob.model_validate({"spec": spec}), path / "cache", directory)


def runs(folder: Folder, processes: int, fsdp: int, tensor: int, devices: int = 1, **settings: Any) -> list[int]:
    """The exit codes of a gang on a mesh."""
    settings = {"fsdp": fsdp, "tensor": tensor, "values": 0} | settings
    (folder.local / "sharded.json").write_text(json.dumps(settings))
    gang = Gang.start(folder, processes, command=SHARDED_RUN, devices=devices)
    try:
        codes = gang.wait(240)
    finally:
        gang.end()
    assert codes is not None, "it hangs"
    return codes


def told(folder: Folder, processes: int) -> list[dict[str, Any]]:
    return [json.loads((folder.local / f"told-{process}.json").read_text()) for process in range(processes)]


def log(folder: Folder, process: int = 0) -> str:
    return (folder.local / f"process-{process}.log").read_text()


def stored(folder: Folder) -> int:
    """Bytes of the newest step's arrays."""
    commit = folder.last_commit()
    return sum(f.stat().st_size for f in (folder.path / commit.path / "arrays").rglob("*") if f.is_file())


@pytest.mark.timeout(600)
def test_what_some_processes_wrote_others_read_and_no_hash_tells(tmp_path: Path) -> None:
    folder, hashes, step = folder_in(tmp_path), [], 0
    meshes = [(4, 4, 1), (2, 1, 2), (8, 4, 2), (3, 3, 1), (2, 4, 1, 2)]
    for processes, fsdp, tensor, *devices in meshes:
        codes = runs(folder, processes, fsdp, tensor, *devices, step=step + 1)
        assert codes == [Exit.DONE] * processes, log(folder)[-3000:]
        assert [(one["step"], one["right"]) for one in told(folder, processes)] == [(step, True)] * processes
        step += 1
        found = folder.result()
        hashes.append((found["weightsSha256"], found["stateSha256"]))
        parts = folder.path / found["checkpoint"] / "arrays"
        assert len(list(parts.glob("ocdbt.process_*"))) == processes, "each has written"
        assert stored(folder) < 1.05 * STATE_BYTES + 30_000, "nothing is written twice"
    assert len(set(hashes)) == 1
    assert runs(folder, 1, 1, 1) == [Exit.DONE]
    assert told(folder, 1)[0]["right"]
    commit, _, content = newest(folder.path)
    assert commit.step == step
    for path in SHAPES:
        assert content.arrays[path].tobytes() == values_of(path, 0).tobytes()


@pytest.mark.timeout(300)
def test_a_stock_orbax_opens_what_several_processes_wrote(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    assert runs(folder, 4, 2, 2, step=1) == [Exit.DONE] * 4, log(folder)[-3000:]
    arrays = folder.path / folder.last_commit().path / "arrays"
    for checkpointer in (ocp.PyTreeCheckpointer(), ocp.StandardCheckpointer()):
        tree = checkpointer.restore(arrays)
        for path in SHAPES:
            found, right = functools.reduce(operator.getitem, path.split("/"), tree), values_of(path, 0)
            assert (found.dtype, np.asarray(found).tobytes()) == (right.dtype, right.tobytes()), path


@pytest.mark.timeout(300)
def test_a_flipped_bit_in_one_processes_part_is_found_and_all_take_the_step_before(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    for step in (1, 2):
        assert runs(folder, 2, 2, 1, step=step) == [Exit.DONE] * 2, log(folder)[-3000:]
    part = folder.path / folder.last_commit().path / "arrays" / "ocdbt.process_1" / "d"
    largest = max(part.iterdir(), key=lambda f: f.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    assert runs(folder, 2, 2, 1) == [Exit.DONE] * 2
    assert [(one["step"], one["right"]) for one in told(folder, 2)] == [(1, True)] * 2
    assert "does not have its digest" in log(folder, 0) + log(folder, 1)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("lost", [0, 1])
def test_a_process_that_is_lost_in_a_save_ends_it_for_all_and_the_step_does_not_exist(
    tmp_path: Path, lost: int
) -> None:
    folder = folder_in(tmp_path)
    assert runs(folder, 2, 2, 1, step=1) == [Exit.DONE] * 2
    codes = runs(folder, 2, 2, 1, step=2, values=5, killed=lost)
    assert codes[1 - lost] == Exit.PEER_LOST, log(folder, 1 - lost)[-3000:]
    assert folder.last_commit().step == 1
    assert runs(folder, 2, 2, 1, step=2) == [Exit.DONE] * 2
    assert [(one["step"], one["right"]) for one in told(folder, 2)] == [(1, True)] * 2


@pytest.mark.timeout(300)
def test_storage_that_one_process_cannot_write_to_ends_the_save_for_all(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    assert runs(folder, 2, 2, 1, step=1) == [Exit.DONE] * 2
    assert runs(folder, 2, 2, 1, step=2, full=1) == [Exit.STORAGE_UNAVAILABLE] * 2, log(folder)[-3000:]
    assert "let larger files be written there" in folder_message(folder)
    assert folder.last_commit().step == 1


def folder_message(folder: Folder) -> str:
    return json.loads((folder.local / "termination-0").read_bytes())["message"]
