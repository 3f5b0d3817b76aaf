"""`ratchet fit` as a user calls it: what it says of what it cannot compile, and its exit codes."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ratchet_api.placements import Placement
from ratchet_cli.fit import model_here
from ratchet_cli.manifests import read_job
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.tools.fit_topology import devices_of

ROOT = Path(__file__).parents[2]
TPU = {"name": "spot", "accelerator": "tpu-v6e-slice", "topology": "2x2"}
COMPILER = importlib.util.find_spec("libtpu") is not None


def fit(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ratchet_cli.main", "fit", *arguments], capture_output=True, text=True, timeout=280
    )


def manifest(folder: Path, *placements: dict[str, Any], **parts: Any) -> str:
    content = yaml.safe_load((ROOT / "examples/minimal.yaml").read_text())
    content["spec"] |= {"placements": list(placements), **parts}
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(content))
    return str(file)


def test_a_placement_on_cpus_has_nothing_to_fit(tmp_path: Path) -> None:
    done = fit(manifest(tmp_path, {"name": "here", "cpu": {"hosts": 1}}))
    assert done.returncode == 0, done.stderr
    assert "placement here: its pods are on CPUs, so there is nothing to fit" in done.stdout


@pytest.mark.skipif(COMPILER, reason="the TPU compiler is here")
def test_without_the_compiler_one_line_says_how_to_get_it(tmp_path: Path) -> None:
    done = fit(manifest(tmp_path, TPU))
    assert done.returncode == 69
    assert done.stderr.count("\n") == 1
    assert "pip install 'ratchet-rl[tpu]'" in done.stderr


def test_a_model_that_is_not_here_needs_its_config_alone(tmp_path: Path) -> None:
    done = fit(manifest(tmp_path, TPU, model={"path": "/models/Some-1B"}))
    assert done.returncode == 66
    assert done.stderr.count("\n") == 1
    assert str(tmp_path / "models/Some-1B/config.json") in done.stderr
    done = fit("--model", str(tmp_path), manifest(tmp_path, TPU, model={"path": "/models/Some-1B"}))
    assert done.returncode == 66
    assert f"{tmp_path} has no config.json" in done.stderr


@pytest.mark.parametrize("file", sorted((ROOT / "examples/gke").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_example_for_gke_has_the_shapes_of_its_model_beside_it(file: Path) -> None:
    spec = read_job(str(file))[1].spec
    _, config = model_here(spec, str(file), None)
    assert (config is None) == (spec.model.path is None)
    if config is not None:
        assert config.is_relative_to(file.parent / "models")


def test_a_config_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    done = fit("--model", str(tmp_path), manifest(tmp_path, TPU, model={"path": "/models/Some-1B"}))
    assert done.returncode == 65
    assert "model_type 'mamba' is not known" in done.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"model_type": ["qwen2"]}', "model_type ['qwen2'] is not known"),
        ('{"model_type": "qwen2", "vocab_size": null}', "vocab_size is None"),
        (None, "eos_token_id is 'x'; it is a token's number, or a list of some"),
    ],
)
def test_a_value_in_a_config_is_named_with_its_file(tmp_path: Path, content: str | None, words: str) -> None:
    config = tmp_path / "here" / "config.json"
    config.parent.mkdir()
    known = json.loads((ROOT / "examples/gke/models/Qwen2.5-0.5B-Instruct/config.json").read_text())
    config.write_text(content or json.dumps(known | {"eos_token_id": "x"}))
    done = fit("--model", str(config), manifest(tmp_path, TPU, model={"path": "/models/Some-1B"}))
    assert done.returncode == 65
    assert done.stderr.count("\n") == 1
    assert f"{config}: " in done.stderr
    assert words in done.stderr


def test_problems_are_those_of_validate(tmp_path: Path) -> None:
    done = fit(manifest(tmp_path, TPU | {"topology": "3x3"}))
    assert done.returncode == 65
    assert "spec.placements[0].topology: " in done.stderr


def test_a_placement_that_is_none_is_named(tmp_path: Path) -> None:
    done = fit("--placement", "there", manifest(tmp_path, TPU))
    assert done.returncode == 64
    assert "no placement there; there are spot" in done.stderr


def test_every_file_is_looked_at_before_the_first_is_compiled(tmp_path: Path) -> None:
    good = manifest(tmp_path, {"name": "here", "cpu": {"hosts": 1}})
    done = fit(good, str(tmp_path / "absent.yaml"))
    assert (done.returncode, done.stdout) == (66, "")
    assert "absent.yaml: cannot be read" in done.stderr


@pytest.mark.parametrize("place", ["gs://bucket/cache", "s3:/bucket"])
def test_a_cache_is_a_folder_here(tmp_path: Path, place: str) -> None:
    done = fit("--write-cache", place, manifest(tmp_path, TPU))
    assert done.returncode == 64
    assert "is no folder of this machine; name one, and copy what is in it into cache/" in done.stderr


def test_a_cache_that_cannot_be_written_is_said_before_anything_is_compiled(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "cache", Path("/proc/cache")):
        done = fit("--write-cache", str(place), manifest(tmp_path, TPU))
        assert done.returncode == 73
        assert done.stderr.count("\n") == 1
        assert f"--write-cache: {place}: " in done.stderr
        assert "name a folder that can be written" in done.stderr


def test_a_model_is_given_where_there_is_one(tmp_path: Path) -> None:
    done = fit("--model", str(tmp_path), manifest(tmp_path, TPU))
    assert done.returncode == 64
    assert "--model is for a model with a path, and there is none; leave it out" in done.stderr


ENDINGS = {
    # how the compiling process ends -> exit code and words
    "raise ModuleNotFoundError('', name='jax')": (69, "(jax); install the extra: pip install 'ratchet-rl[tpu]'"),
    "raise RuntimeError('first line\\nsecond line')": (70, "ended with 1: second line; all that it said is in "),
    "import os; os.kill(os.getpid(), 9)": (70, "killed, most often for its memory: name one placement with"),
    "import sys; sys.stderr.write('x' * 300_000); sys.exit(3)": (70, "ended with 3: xxx"),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_end_of_the_compiling_process_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """Also one that says more than a pipe holds, which nobody reads meanwhile."""
    code, words = ENDINGS[ending]
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'ratchet_trainer.tools.fit' in sys.orig_argv:\n"
        "    from ratchet_trainer.tools import fit_topology\n"
        "    def set_environment(spec):\n"
        f"        {ending}\n"
        "    fit_topology.set_environment = set_environment\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = fit("-o", "json", manifest(tmp_path, TPU))
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert words in done.stderr
    assert json.loads(done.stdout) == []
    assert len(list(tmp_path.glob("ratchet-fit-*.log"))) == (code == 70)


@pytest.mark.parametrize("shape", [{"hosts": 2}, {"hosts": 2, "topology": "odd"}])
def test_a_slice_in_numbers_alone_is_none_that_a_compiler_knows(shape: dict[str, Any]) -> None:
    placement = Placement.model_validate({"name": "p", "accelerator": "tpu-v6e-slice", "chipsPerNode": 4, **shape})
    with pytest.raises(ConfigurationInvalid, match=r"placement p: .*topology.* with --placement"):
        devices_of(placement)


def test_a_chip_without_a_row_is_named(tmp_path: Path) -> None:
    if not COMPILER:
        pytest.skip("the TPU compiler is not here: it is asked for first")
    done = fit(manifest(tmp_path, {"name": "old", "accelerator": "tpu-v3-device", "topology": "2x2"}))
    assert done.returncode == 65
    assert "memory and speed of tpu-v3-device are not known here; known are" in done.stderr
