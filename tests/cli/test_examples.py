"""Examples of methods and recipes: complete, with the files that they need, and every stage of them trains."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from ratchet_api.job import RLTrainingJob
from ratchet_api.presets import PRESETS
from ratchet_cli.beside import with_files_beside

ROOT = Path(__file__).parents[2]
METHODS = sorted((ROOT / "examples/methods").glob("*.yaml"))
RECIPES = sorted((ROOT / "examples/recipes").glob("*.yaml"))


def spec_of(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text())["spec"]


def needs_files(file: Path) -> bool:
    text = file.read_text()
    return "claimName: data" in text or "configMap:" in text


TRAINED = [f for f in (*METHODS, *RECIPES) if "preset: tiny" in f.read_text() and (needs_files(f) or f in RECIPES)]
"""Methods without files of their own are trained by the proofs of tests/end_to_end/test_method_proofs.py."""


def test_every_preset_has_an_example_that_uses_it() -> None:
    used = {f.stem: {stage["rl"]["method"] for stage in spec_of(f)["stages"] if "rl" in stage} for f in METHODS}
    assert used == {name: {name} for name in PRESETS}


@pytest.mark.parametrize("file", [*METHODS, *RECIPES], ids=lambda f: f.stem)
def test_an_example_says_what_it_is_for_and_how_to_run_it(file: Path) -> None:
    said = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert 3 <= len(said) <= 8
    assert f"ratchet train {file.relative_to(ROOT)}" in "\n".join(said)
    assert "Watch" in "\n".join(said)


def script(folder: Path) -> ModuleType:
    there = importlib.util.spec_from_file_location("write_sums", folder / "write_sums.py")
    assert there
    assert there.loader
    module = importlib.util.module_from_spec(there)
    there.loader.exec_module(module)
    return module


def test_data_are_what_their_script_writes() -> None:
    folder = ROOT / "examples/methods/data"
    assert (folder / "sums.jsonl").read_text() == script(folder).text()


@pytest.mark.parametrize("file", TRAINED, ids=lambda f: f.stem)
def test_every_stage_makes_a_step(tmp_path: Path, file: Path) -> None:
    """With the files beside it: data, hints, checkers and lengths fit."""
    spec = spec_of(file)
    for stage in spec["stages"]:
        if "advance" in stage:
            stage["advance"] = {"steps": 1}
    for part in ("data", "steps"):
        if (file.parent / part).exists():
            (tmp_path / part).symlink_to(file.parent / part)
    short = tmp_path / file.name
    short.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"spec": spec}))
    where = "--processes", "1", "--workdir", str(tmp_path / "work"), "--approve"
    done = subprocess.run(
        [sys.executable, "-m", "ratchet_cli.main", "train", str(short), *where], capture_output=True, text=True
    )
    assert done.returncode == os.EX_OK, done.stderr
    assert f"stage {spec['stages'][-1]['name']}," in done.stdout


def job(path: str) -> RLTrainingJob:
    spec = spec_of(ROOT / "examples/minimal.yaml")
    spec["datasets"] = [{"name": "sums", "jsonl": {"path": path, "claimName": "data"}}]
    return RLTrainingJob.model_validate({"spec": spec})


def path_of(job: RLTrainingJob) -> str:
    file = job.spec.datasets[0].file
    assert file
    return file.path


def test_a_file_of_a_claim_is_looked_for_beside_the_manifest(tmp_path: Path) -> None:
    beside = tmp_path / "data" / "sums.jsonl"
    assert path_of(with_files_beside(job("/data/sums.jsonl"), tmp_path)) == "/data/sums.jsonl"  # nothing is there
    beside.parent.mkdir()
    beside.touch()
    assert path_of(with_files_beside(job("/data/sums.jsonl"), tmp_path)) == str(beside)


def test_a_file_that_is_where_the_manifest_says_is_taken_there(tmp_path: Path) -> None:
    for folder in ("data", "mounted"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "sums.jsonl").touch()
    there = str(tmp_path / "mounted" / "sums.jsonl")
    assert path_of(with_files_beside(job(there), tmp_path)) == there
