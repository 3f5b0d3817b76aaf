"""Checkpoints that were damaged, removed or written by somebody newer: found out before the first step."""

from __future__ import annotations

import functools
import operator
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest

from ratchet_trainer.checkpoints import digests, parts, trusted_step
from ratchet_trainer.checkpoints.checkpoint import Checkpoints
from ratchet_trainer.checkpoints.journal import Claim
from ratchet_trainer.checkpoints.trusted_step import Content
from ratchet_trainer.errors import Fenced, StorageUnavailable

IDENTITY = {"versions": {}}


def opened(directory: Path, attempt: int = 1, keep: int = 3) -> Checkpoints:
    checkpoints = Checkpoints(directory, f"a{attempt}-jobset{attempt}", keep, IDENTITY)
    checkpoints.journal.claim(Claim(0, "default", "sums", "uid", "hash", attempt, f"jobset{attempt}"), None, 0)
    return checkpoints


def arrays_of(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    return {
        "params/a": rng.standard_normal((17, 9)).astype(np.float32),
        "params/b": rng.standard_normal(5).astype(ml_dtypes.bfloat16),
        "params/many/blocks": rng.standard_normal((512, 1024)).astype(np.float32),
        "optimizer/count": np.array(step, np.int32),
        "selection/none": np.zeros((0, 3), np.int64),
    }


def content(step: int) -> Content:
    return Content(
        step, parts.host_part(arrays_of(step)), {"stage": {"index": 0}, "step": step}, [b'{"step":%d}\n' % step]
    )


def newest(directory: Path, attempt: int = 2) -> tuple[int, Content] | None:
    """What a restart would begin from."""
    return resumed(opened(directory, attempt))


def resumed(checkpoints: Checkpoints) -> tuple[int, Content] | None:
    for commit in checkpoints.candidates():
        proof = checkpoints.read_proof(commit)
        if proof is not None and (found := checkpoints.read(commit, proof)) is not None:
            checkpoints.resume(commit, proof, found.lines)
            return commit.step, found
    return None


def written(directory: Path, steps: int = 3) -> Checkpoints:
    checkpoints = opened(directory)
    for step in range(1, steps + 1):
        checkpoints.write(content(step))
    return checkpoints


def test_what_is_written_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    written(tmp_path)
    step, found = newest(tmp_path)
    assert step == 3
    expected = content(3)
    assert found.arrays.keys() == arrays_of(3).keys()
    for path, leaf in arrays_of(3).items():
        assert found.arrays[path].dtype == leaf.dtype
        assert found.arrays[path].shape == leaf.shape
        assert found.arrays[path].tobytes() == leaf.tobytes()
    assert (found.control, found.lines) == (expected.control, expected.lines)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b'{"step":1}\n{"step":2}\n{"step":3}\n'


def files_of(directory: Path, step: int) -> list[Path]:
    (folder,) = (directory / "steps").glob(f"{step}-*")
    return sorted(f for f in folder.rglob("*") if f.is_file() and f.stat().st_size)


def test_a_flipped_bit_anywhere_in_the_data_is_noticed(tmp_path: Path) -> None:
    """Of every file of the newest step, one bit in each of some places: it is either restored right or not at all."""
    written(tmp_path / "good")
    right, arrays = content(3), arrays_of(3)
    for number, original in enumerate(files_of(tmp_path / "good", 3)):
        size = original.stat().st_size
        for position in sorted({0, size // 3, size // 2, 2 * size // 3, size - 1}):
            directory = tmp_path / f"bad-{number}-{position}"
            shutil.copytree(tmp_path / "good", directory)
            file = directory / original.relative_to(tmp_path / "good")
            data = bytearray(file.read_bytes())
            data[position] ^= 0x10
            file.write_bytes(data)
            step, found = newest(directory)
            assert step in (2, 3), file.name
            if step == 3:  # a byte that means nothing, in Orbax's own metadata
                assert all(found.arrays[p].tobytes() == arrays[p].tobytes() for p in arrays), file.name
                assert found.control == right.control


def test_storage_that_fails_is_not_taken_for_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path)
    next(f for f in files_of(tmp_path, 3) if f.name == "manifest.ocdbt").write_bytes(b"")
    read_bytes = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path.name == "manifest.ocdbt":
            raise OSError("input/output error")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    monkeypatch.setattr("ratchet_trainer.storage.retries.BACK_OFF_SECONDS", (0.0,))
    with pytest.raises(StorageUnavailable, match="input/output"):
        newest(tmp_path)


def test_a_stock_orbax_opens_the_arrays(tmp_path: Path) -> None:
    written(tmp_path)
    (folder,) = (tmp_path / "steps").glob("3-*")
    for checkpointer in (ocp.PyTreeCheckpointer(), ocp.StandardCheckpointer()):
        tree = checkpointer.restore(folder / "arrays")
        for path, leaf in arrays_of(3).items():
            found = functools.reduce(operator.getitem, path.split("/"), tree)
            assert (found.dtype, found.shape) == (leaf.dtype, leaf.shape), path
            assert np.asarray(found).tobytes() == leaf.tobytes(), path


def test_orbax_alone_would_not_notice(tmp_path: Path) -> None:
    """Why there are digests: swapped array folders of two steps are both well-formed."""
    written(tmp_path)
    (two,), (three,) = ((tmp_path / "steps").glob(f"{step}-*") for step in (2, 3))
    shutil.rmtree(three / "arrays")
    shutil.copytree(two / "arrays", three / "arrays")
    assert newest(tmp_path)[0] == 2


def test_only_the_newest_and_the_ends_of_stages_are_kept(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path, keep=2)
    (tmp_path / "steps" / "4-a0-orphan").mkdir(parents=True)  # an attempt that died before its commit
    for step in range(1, 8):
        boundary = {"stage": 0, "step": 3, "rule": "steps 3"} if step == 3 else None
        checkpoints.write(content(step), boundary)
    assert sorted(p.name for p in (tmp_path / "steps").iterdir()) == ["3-a1-jobset1", "6-a1-jobset1", "7-a1-jobset1"]
    heir = opened(tmp_path, 2, keep=2)
    assert [c.step for c in heir.candidates()] == [7, 6, 3]
    heir.write(content(8))
    assert sorted(c.step for c in opened(tmp_path, 3).candidates()) == [3, 7, 8]


def test_a_writer_removes_no_folder_that_came_after_its_claim(tmp_path: Path) -> None:
    checkpoints = opened(tmp_path, keep=1)
    checkpoints.candidates()
    heirs = tmp_path / "steps" / "1-a2-jobset2"
    heirs.mkdir(parents=True)
    for step in (1, 2):
        checkpoints.write(content(step))
    assert sorted(p.name for p in (tmp_path / "steps").iterdir()) == ["1-a2-jobset2", "2-a1-jobset1"]


def test_a_step_that_is_journalled_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = opened(tmp_path)
    failures, folders = [OSError("stale file handle")], []

    def sync(folder: Path) -> None:
        if failures and list(folder.glob("0000000002.json")):
            raise failures.pop()

    finish = trusted_step.finish
    monkeypatch.setattr("ratchet_trainer.storage.posix.sync", sync)
    monkeypatch.setattr(trusted_step, "finish", lambda *a: folders.append(a[0]) or finish(*a))
    assert checkpoints.write(content(1))[0].seq == 2
    assert not failures
    assert len(folders) == 1
    assert [c.step for c in checkpoints.journal.candidates()] == [1]


def test_replayed_steps_are_in_the_metric_stream_once(tmp_path: Path) -> None:
    written(tmp_path)
    next(f for f in files_of(tmp_path, 3) if f.name == "control.json").unlink()
    assert newest(tmp_path)[0] == 2
    assert (tmp_path / "metrics.jsonl").read_bytes() == b'{"step":1}\n{"step":2}\n'


def test_hashes_depend_on_every_bit_path_dtype_and_shape_and_on_nothing_else() -> None:
    leaf = np.arange(6, dtype=np.float32)
    one = digests.leaf_digest("params/a", leaf)
    assert digests.leaf_digest("params/a", leaf.astype(">f4")) == one
    assert digests.leaf_digest("params/a", np.asfortranarray(leaf.reshape(2, 3))) == digests.leaf_digest(
        "params/a", leaf.reshape(2, 3)
    )
    others = [
        digests.leaf_digest("params/b", leaf),
        digests.leaf_digest("params/a", leaf.astype(np.float64)),
        digests.leaf_digest("params/a", leaf.reshape(2, 3)),
        digests.leaf_digest("params/a", leaf.view(np.int32)),
        digests.leaf_digest("params/a", np.nextafter(leaf, np.float32(9))),
    ]
    assert len({one, *others}) == 6
    own = {"params/a": one, "optimizer/mu": digests.leaf_digest("optimizer/mu", leaf)}
    changed = own | {"optimizer/mu": digests.leaf_digest("optimizer/mu", leaf + 1)}
    assert digests.weights_sha256(own) == digests.weights_sha256(changed)
    assert digests.state_sha256(own, {}) != digests.state_sha256(changed, {})
    assert digests.state_sha256(own, {"step": 1}) != digests.state_sha256(own, {"step": 2})


@pytest.mark.parametrize("keep", [1, 2])
def test_unreadable_steps_do_not_take_the_place_of_those_made_after_them(tmp_path: Path, keep: int) -> None:
    """The replay must be kept although steps with higher numbers, which nobody can read, are still there."""
    checkpoints = opened(tmp_path, 1, keep)
    for step in range(1, 21):
        checkpoints.write(content(step), {"stage": 0, "step": 5, "rule": "steps"} if step == 5 else None)
    for step in range(21 - keep, 21):
        (folder,) = (tmp_path / "steps").glob(f"{step}-*")
        (folder / "control.json").write_bytes(b"{}")
    again = opened(tmp_path, 2, keep)
    assert resumed(again)[0] == 5
    for step in (6, 7, 8):
        again.write(content(step))
    assert newest(tmp_path, 3)[0] == 8


def test_a_writer_that_slept_while_it_restored_leaves_the_stream_of_its_heir_alone(tmp_path: Path) -> None:
    written(tmp_path)
    slow = opened(tmp_path, 2)
    (best, *_) = slow.candidates()
    proof = slow.read_proof(best)
    found = slow.read(best, proof)
    heir = opened(tmp_path, 3)
    resumed(heir)
    heir.write(content(4))
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(Fenced, match="left alone"):
        slow.resume(best, proof, found.lines)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
