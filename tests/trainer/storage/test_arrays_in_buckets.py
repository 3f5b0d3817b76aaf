"""Arrays of a step in a bucket: parts of several processes, damage, a server that goes away."""

from __future__ import annotations

import functools
import operator
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from served import Served
from test_checkpoints import arrays_of, opened
from test_sharded_checkpoints import folder_in, log, runs, told

from ratchet_api.protocol import Exit
from ratchet_trainer import storage
from ratchet_trainer.checkpoints import parts
from ratchet_trainer.checkpoints.checkpoint import Checkpoints
from ratchet_trainer.checkpoints.journal import Commit
from ratchet_trainer.checkpoints.trusted_step import Content
from ratchet_trainer.errors import StorageUnavailable
from ratchet_trainer.storage import Location

PROCESSES = 4


def saved(place: Location, step: int) -> tuple[Checkpoints, Commit]:
    """A step that several processes have written."""
    checkpoints = opened(place)
    control = {"stage": {"index": 0}, "step": step}
    contents = [
        Content(step, parts.host_part(arrays_of(step), process, PROCESSES), control, [b'{"step":%d}\n' % step])
        for process in range(PROCESSES)
    ]
    checkpoints.begin(contents[0])
    written = [checkpoints.write_part(content, process) for process, content in enumerate(contents)]
    return checkpoints, checkpoints.finish(contents[0], written)[0]


def read(checkpoints: Checkpoints, commit: Commit) -> Content | None:
    proof = checkpoints.read_proof(commit)
    assert proof is not None
    return checkpoints.read(commit, proof)


def test_what_several_processes_wrote_is_read_and_opened_by_a_stock_orbax(place: Location, tmp_path: Path) -> None:
    checkpoints, commit = saved(place, 3)
    arrays = place / commit.path / "arrays"
    assert {name.partition("/")[0] for name in storage.tree(arrays)} >= {f"ocdbt.process_{n}" for n in range(PROCESSES)}
    content = read(checkpoints, commit)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    spread = checkpoints.read(commit, checkpoints.read_proof(commit), lambda path, shape: here, "params/")
    assert content is not None
    assert spread is not None
    assert spread.arrays.keys() == {path for path in arrays_of(3) if path.startswith("params/")}
    for path, leaf in arrays_of(3).items():
        assert content.arrays[path].tobytes() == leaf.tobytes(), path
        assert path not in spread.arrays or np.asarray(spread.arrays[path]).tobytes() == leaf.tobytes(), path
    for name in storage.tree(arrays):  # Orbax wants a library of its own for gs://
        storage.write(Location.parse(tmp_path / "copy") / name, storage.read(arrays / name) or b"")
    tree = ocp.PyTreeCheckpointer().restore(tmp_path / "copy")
    for path, leaf in arrays_of(3).items():
        assert np.asarray(functools.reduce(operator.getitem, path.split("/"), tree)).tobytes() == leaf.tobytes(), path


@pytest.mark.parametrize("harm", ["flipped", "cut", "gone"])
def test_damage_in_one_processes_part_is_found(served: Served, harm: str, quickly: None) -> None:
    checkpoints, commit = saved(served.bucket() / "jobs/sums", 1)
    folder = checkpoints.directory / commit.path / "arrays" / "ocdbt.process_2" / "d"
    sizes = {name: len(storage.read(folder / name) or b"") for name in storage.names(folder)}
    largest = folder / max(sizes, key=sizes.__getitem__)
    data = bytearray(storage.read(largest) or b"")
    data[len(data) // 2] ^= 1
    if harm == "gone":
        storage.delete(largest)
    else:
        storage.write(largest, bytes(data if harm == "flipped" else data[: len(data) // 2]))
    assert read(checkpoints, commit) is None


def test_a_server_that_is_down_is_not_taken_for_damage(served: Served, quickly: None) -> None:
    checkpoints, commit = saved(served.bucket() / "jobs/sums", 1)
    proof = checkpoints.read_proof(commit)
    assert proof is not None

    served.proxy.answers = lambda request: (503, "text/plain", b"busy") if "ocdbt.process" in request[1] else None
    with pytest.raises(StorageUnavailable, match="reading"):
        checkpoints.read(commit, proof)
    served.proxy.reset()
    assert checkpoints.read(commit, proof) is not None


@pytest.mark.timeout(300)
def test_processes_of_a_gang_write_their_parts_and_others_read_theirs(served: Served, tmp_path: Path) -> None:
    hashes = []
    for name, directory in (("path", None), ("bucket", served.bucket() / "jobs/sums")):
        folder = folder_in(tmp_path / name, directory)
        assert runs(folder, 2, 2, 1, step=1) == [Exit.DONE] * 2, log(folder)[-3000:]
        hashes.append((folder.result()["weightsSha256"], folder.result()["stateSha256"]))
    assert hashes[0] == hashes[1]
    assert runs(folder, 4, 2, 2) == [Exit.DONE] * 4, log(folder)[-3000:]
    assert [(one["step"], one["right"]) for one in told(folder, 4)] == [(1, True)] * 4
