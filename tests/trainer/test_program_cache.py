"""Compiled programs that were cut short or changed on disk: compiled once more, never again, and no bit differs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from damage import DAMAGE

from ratchet_api.job import RLTrainingJob
from ratchet_api.protocol import Exit
from ratchet_trainer.checkpoints.program_cache import LEFT_OVER_SECONDS, ProgramCache
from ratchet_trainer.tools.local import Folder, train

SMALL_RUN = (sys.executable, str(Path(__file__).with_name("small_run.py")))


HARMS: dict[str, Callable[[Path], object]] = {
    **DAMAGE,
    "of another program": lambda file: file.write_bytes((file.parent / "other.program").read_bytes()),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_entry_is_absent_and_replaced(tmp_path: Path, harm: str) -> None:
    cache = ProgramCache(tmp_path / "cache")
    assert cache.get("one") is None
    cache.put("one", b"program" * 100)
    cache.put("other", b"another" * 100)
    HARMS[harm](tmp_path / "cache" / "one.program")
    assert cache.get("one") is None
    cache.put("one", b"program" * 100)
    assert ProgramCache(tmp_path / "cache").get("one") == b"program" * 100
    assert cache.get("other") == b"another" * 100


def test_what_a_killed_writer_left_goes_in_time(tmp_path: Path) -> None:
    old, young = tmp_path / ".old.tmp", tmp_path / ".young.tmp"
    for file in (old, young):
        file.write_bytes(b"half a prog")
    long_ago = young.stat().st_mtime - LEFT_OVER_SECONDS - 1
    os.utime(old, (long_ago, long_ago))
    ProgramCache(tmp_path).put("key", b"program")
    assert sorted(f.name for f in tmp_path.iterdir()) == [".young.tmp", "key.program"]


def run(directory: Path, cache: Path, processes: int) -> tuple[dict, list[dict[str, int]]]:
    """A whole run: its result, and how often each process asked the cache and found what it wanted."""
    stage = {"name": "one", "sft": {"dataset": "d"}, "advance": {"steps": 2}}
    spec = {
        "model": {"preset": "tiny"},
        "datasets": [{"name": "d", "jsonl": {"path": "/unused"}}],
        "stages": [stage],
        "checkpoint": {"directory": "/replaced"},
        "placements": [{"name": "here", "cpu": {"hosts": 1}}],
    }
    folder = Folder(directory, "small", RLTrainingJob.model_validate({"spec": spec}), cache)
    code, message = train(folder, processes, command=SMALL_RUN)
    assert code == Exit.DONE, message
    counts = [json.loads((folder.local / f"compiled-{p}.json").read_text()) for p in range(processes)]
    return folder.result(), counts


@pytest.mark.parametrize(("processes", "harms"), [(1, ["cut", "empty", "flipped"]), (2, ["flipped"])])
def test_a_run_with_damaged_programs_goes_on_and_mends_them(tmp_path: Path, processes: int, harms: list[str]) -> None:
    cache = tmp_path / "cache"
    calm, _ = run(tmp_path / "first", cache, processes)
    for harm in harms:
        entries = list(cache.glob("*.program"))
        assert entries
        for entry in entries:
            HARMS[harm](entry)
        damaged, counts = run(tmp_path / harm, cache, processes)
        assert counts[0]["cache_hits"] == 0, "nothing of it was used"
        assert damaged["stateSha256"] == calm["stateSha256"]
    again, counts = run(tmp_path / "again", cache, processes)
    assert again["stateSha256"] == calm["stateSha256"]
    for count in counts:
        assert count["cache_hits"] == count["compile_requests_use_cache"] > 0, "the next start compiles nothing"


COMPILES = """
import sys
import jax
from ratchet_trainer.process import distributed
from ratchet_trainer.storage import Location

distributed.use_cache(Location.parse(sys.argv[1]))
jax.jit(lambda x: 2 * x + 1)(jax.numpy.ones(3)).block_until_ready()
"""


def test_programs_have_the_same_names_in_every_folder(tmp_path: Path) -> None:
    """So that what `ratchet fit --write-cache` wrote is found in the checkpoint directory that it was put into."""
    names = []
    for folder in (tmp_path / "one", tmp_path / "another"):
        subprocess.run(
            [sys.executable, "-c", COMPILES, str(folder)], check=True, env=os.environ | {"JAX_PLATFORMS": "cpu"}
        )
        names.append(sorted(file.name for file in folder.glob("*.program")))
    assert names[0] == names[1] != []
