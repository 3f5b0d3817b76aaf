"""Examples of methods and recipes: complete, with the files that they need, and every stage of them trains."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

from ratchet_api.job import RLTrainingJob
from ratchet_api.presets import PRESETS
from ratchet_api.verifiers import ENV_CONFIG_MAP_FOLDER
from ratchet_cli.beside import take_functions_beside, with_files_beside

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


def module(file: Path) -> ModuleType:
    there = importlib.util.spec_from_file_location(file.stem, file)
    assert there
    assert there.loader
    found = importlib.util.module_from_spec(there)
    there.loader.exec_module(found)
    return found


@pytest.mark.parametrize("script", ["methods/data/write_sums.py", "recipes/data/write_tasks.py"])
def test_data_are_what_their_script_writes(script: str) -> None:
    file = ROOT / "examples" / script
    writes = module(file)
    assert {name: writes.text(name) for name in writes.FILES} == {
        data.name: data.read_text() for data in file.parent.glob("*.jsonl")
    }


@pytest.mark.parametrize(
    ("checker", "response", "verdicts"),
    [
        ("running_sums", ["5", "12"], [True, True]),
        ("running_sums", ["5", "13"], [True, False]),
        ("running_sums", ["12"], [False]),
        ("running_sums", ["5", "12", "12"], [True, True, False]),
        ("equations", ["First, 4 + 1 = 5.", "So 5 + 7 = 12."], [True, True]),
        ("equations", ["4 + 1 = 5", "5 + 7 = 13", "It is 13."], [True, False, False]),
        ("equations", ["14 + 1 = 5"], [False]),
    ],
)
def test_checkers_of_steps(checker: str, response: list[str], verdicts: list[bool]) -> None:
    solution = {"running_sums": "5\n12", "equations": "4 + 1 = 5\n5 + 7 = 12"}[checker]
    case = SimpleNamespace(item={"solution": solution}, steps=response)
    assert getattr(module(ROOT / "examples/recipes/steps/steps.py"), checker)(case) == verdicts
    if checker == "running_sums":
        assert module(ROOT / "examples/methods/steps/steps.py").check(case) == verdicts


@pytest.mark.parametrize("file", [f for f in RECIPES if not f.stem.endswith("-smollm2")], ids=lambda f: f.stem)
def test_a_recipe_is_there_for_real_hardware_with_the_same_stages(file: Path) -> None:
    def stages(file: Path) -> list[tuple[str, str | None]]:
        found = [(stage["name"], stage.get("rl", {}).get("method")) for stage in spec_of(file)["stages"]]
        return [pair for pair in found if pair[0] != "warm-up"]  # a pretrained model needs none

    real = file.with_name(f"{file.stem}-smollm2.yaml")
    assert stages(real) == stages(file)
    assert spec_of(real)["placements"][0]["accelerator"].startswith("tpu")


@pytest.mark.parametrize(
    "file",
    # A recipe takes a minute or two: one of them, made short, in `make test`; the others, as they are, in `make soak`.
    [pytest.param(f, marks=[pytest.mark.soak] if f in RECIPES and f.stem != "scaffold" else []) for f in TRAINED],
    ids=lambda f: f.stem,
)
@pytest.mark.timeout(900)
def test_every_stage_makes_a_step(tmp_path: Path, file: Path) -> None:
    """With the files beside it: data, hints, checkers and lengths fit."""
    spec = spec_of(file)
    for stage in spec["stages"]:
        # The later stages of other recipes need what the earlier ones teach.
        if "advance" in stage and (file not in RECIPES or file.stem == "scaffold"):
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


@pytest.mark.parametrize(("folder", "said"), [("steps", None), ("steps", "/elsewhere"), ("others", None)])
def test_functions_of_a_config_map_are_looked_for_beside_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, said: str | None
) -> None:
    monkeypatch.setenv(ENV_CONFIG_MAP_FOLDER, said or "")
    if said is None:
        monkeypatch.delenv(ENV_CONFIG_MAP_FOLDER)
    (tmp_path / folder).mkdir()
    sgpo = RLTrainingJob.model_validate({"spec": spec_of(ROOT / "examples/methods/sgpo.yaml")})
    take_functions_beside(sgpo, tmp_path)
    beside = str(tmp_path) if folder == "steps" else None
    assert os.environ.get(ENV_CONFIG_MAP_FOLDER) == (said or beside)


def examples(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ratchet_cli.main", "examples", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=60)


def files_in(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("methods/sgpo", {"data/sums.jsonl", "steps/steps.py"}),
        ("recipes/scaffold", {"data/sums.jsonl", "steps/steps.py"}),
        ("gke/qwen0.5b-v6e-2x4", {"models/Qwen2.5-0.5B-Instruct/config.json"}),
        ("minimal", set()),
    ],
)
def test_an_example_is_copied_with_what_it_reads(tmp_path: Path, name: str, beside: set[str]) -> None:
    done = examples(tmp_path, name, "--to", "job.yaml")
    assert done.returncode == os.EX_OK, done.stderr
    assert files_in(tmp_path) == {"job.yaml", *beside}
    assert all(done.stdout.count(file) == 1 for file in beside)
    source = (ROOT / "examples" / name).with_name(name.rpartition("/")[2] + ".yaml")
    assert yaml.safe_load((tmp_path / "job.yaml").read_text()) == yaml.safe_load(source.read_text())
    for file in beside:
        assert (tmp_path / file).read_bytes() == (source.parent / file).read_bytes()
    assert "$schema" not in (tmp_path / "job.yaml").read_text(), "there is no such file beside the copy"


def test_a_copy_leaves_alone_what_is_there(tmp_path: Path) -> None:
    assert examples(tmp_path, "methods/sgpo", "--to", "job.yaml").returncode == os.EX_OK
    assert examples(tmp_path, "methods/sgpo", "--to", "again.yaml").returncode == os.EX_OK, "steps.py is the same"
    before = files_in(tmp_path)
    (tmp_path / "steps/steps.py").write_text("mine")
    done = examples(tmp_path, "methods/sgpo", "--to", "third.yaml")
    assert done.returncode == os.EX_CANTCREAT
    assert "steps/steps.py: File exists" in done.stderr
    assert files_in(tmp_path) == before
    assert (tmp_path / "steps/steps.py").read_text() == "mine"


def test_every_example_in_the_list_says_more_than_a_word(tmp_path: Path) -> None:
    for line in examples(tmp_path).stdout.splitlines():
        assert len(line.split()) > 3, line


def test_the_chart_is_where_the_command_says(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ratchet_cli.main", "chart"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == os.EX_OK, done.stderr
    assert (Path(done.stdout.strip()) / "Chart.yaml").is_file()
