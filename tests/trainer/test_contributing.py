"""What CONTRIBUTING.md shows works as it stands: a reward, a verifier, a method in one small file and its rows."""

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

from ratchet_api import presets
from ratchet_trainer.algorithm.advantage import group
from ratchet_trainer.run import run
from ratchet_trainer.step.samples import read

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```(python|yaml)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)


def python(place: str) -> str:
    """The block whose first line names a place."""
    (found,) = (text for kind, text in BLOCKS if kind == "python" and text.startswith(f"# {place}"))
    return found


def settings(word: str) -> dict[str, Any]:
    """The part of a manifest that has a word."""
    (found,) = (yaml.safe_load(text) for kind, text in BLOCKS if kind == "yaml" and word in text)
    return found


def job(folder: Path) -> dict[str, Any]:
    """One step of rl on sums, right after the start."""
    gym = {"task": "basic_arithmetic", "size": 10, "config": {"max_terms": 2, "max_digits": 1, "operators": ["+"]}}
    rl = {"dataset": "sums", "promptsPerStep": 4, "groupSize": 4, "maxPromptTokens": 40, "maxResponseTokens": 4}
    return {
        "model": {"preset": "tiny"},
        "datasets": [{"name": "sums", "reasoningGym": gym}],
        "stages": [{"name": "r", "rl": rl, "advance": {"steps": 1}}],
        "checkpoint": {"directory": str(folder)},
        "placements": [{"name": "cpu", "cpu": {"hosts": 1}}],
    }


def test_a_reward_has_ten_lines_at_most() -> None:
    assert len(python("mine.py").splitlines()) <= 10


def test_a_reward_and_a_verifier_of_ones_own(tmp_path) -> None:
    """The reward from PYTHONPATH, the verifier from a ConfigMap, as `ratchet train` has them."""
    (tmp_path / "mine.py").write_text(python("mine.py"))
    (maps := tmp_path / "maps/short").mkdir(parents=True)
    (maps / "short.py").write_text(python("short.py"))
    spec = job(tmp_path / "checkpoints")
    spec["datasets"][0] |= settings("short:verify")
    rewards = settings("mine:score")["rewards"]
    del rewards[1]["python"]["configMap"]
    spec["stages"][0]["rl"]["rewards"] = rewards
    head = {"apiVersion": "ratchet.dev/v1alpha1", "kind": "RLTrainingJob", "metadata": {"name": "own"}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(head | {"spec": spec}))
    packages = [str(ROOT / part) for part in ("crds", "operator", "trainer", "cli", "cluster")]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ratchet_cli.main",
            "train",
            str(tmp_path / "job.yaml"),
            "--workdir",
            str(tmp_path / "w"),
        ],
        capture_output=True,
        text=True,
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join([str(tmp_path), *packages]),
            "RATCHET_VERIFIERS_FOLDER": str(tmp_path / "maps"),
        },
    )
    assert done.returncode == 0, done.stderr
    (line,) = map(json.loads, (tmp_path / "w/metrics.jsonl").read_text().splitlines())
    assert {"reward/accuracy", "reward/brief"} <= line["metrics"].keys()
    assert line["metrics"]["train/verifier_failures"] == "0.0"
    for sample in read(tmp_path / "w"):
        assert sample["parts"]["brief"] == float("\n" not in sample["response"].strip())
        assert sample["reward"] == pytest.approx(sample["parts"]["accuracy"] + 0.2 * sample["parts"]["brief"])


def test_the_verifier_scores_as_it_says() -> None:
    names: dict[str, Any] = {}
    exec(python("short.py"), names)

    def case(response: str, extracted: str | None) -> Any:
        return type("Case", (), {"response": response, "extracted": extracted, "item": {"answer": "5"}})()

    assert names["verify"](case("2 + 3 = 5", "5")) == {"score": 1 - 9 / 2000, "accuracy": 1.0}
    assert names["verify"](case("5" + " " * 5000, "5"))["score"] == 0.5
    assert names["verify"](case("6", "6")) == names["verify"](case("", None)) == 0.0


def test_a_method_is_one_small_file_and_its_rows(tmp_path, monkeypatch, memory_runtime) -> None:
    names: dict[str, Any] = {"Preset": presets.Preset}
    exec(python("trainer/ratchet_trainer/algorithm/advantage/rank.py"), names)
    rows = eval("{" + python("a row of ESTIMATORS").partition("\n")[2] + "}", names)
    monkeypatch.setitem(group.ESTIMATORS, "rank", rows["rank"])
    monkeypatch.setitem(presets.PRESETS, "rank-grpo", rows["rank-grpo"])
    assert group.group_advantages([3.0, 9.0, 1.0], "rank").tolist() == [0.0, 1.0, -1.0]

    spec = job(tmp_path)
    spec["stages"][0]["rl"]["rewards"] = [{"name": "long", "length": {"kind": "overlong", "buffer": 4}}]
    runtime = memory_runtime(spec)
    stage = runtime.job.spec.stages[0]
    named = stage.rl.model_copy(update={"method": "rank-grpo"})  # the name in the API is the third line
    monkeypatch.setattr(
        runtime.job, "spec", runtime.job.spec.model_copy(update={"stages": [stage.model_copy(update={"rl": named})]})
    )
    run(runtime)
    assert len(runtime.steps) == 1
