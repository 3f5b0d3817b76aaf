"""The demo as a newcomer runs it: the promises of the product on one job."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def run_demo(folder: Path, preemptions: int, seed: int) -> tuple[dict, str]:
    out = folder / "out.json"
    command = [sys.executable, "-m", "ratchet_cli.main", "demo", "--preemptions", str(preemptions), "--seed", str(seed)]
    done = subprocess.run([*command, "--json", str(out)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return json.loads(out.read_text()), done.stdout


@pytest.mark.timeout(1000)
def test_a_job_that_is_preempted_twice_loses_nothing(tmp_path):
    figures, text = run_demo(tmp_path, 2, 11)
    spec = yaml.safe_load((ROOT / "examples/sums.yaml").read_text())["spec"]
    assert figures["phase"] == "Completed"
    assert figures["weightsSha256"] == figures["undisturbedSha256"]
    assert len(figures["weightsSha256"]) == 64
    assert (figures["preemptions"], figures["attempts"]) == (2, 3)
    assert figures["accuracy"]["end"] - figures["accuracy"]["start"] >= 0.3
    assert [s["name"] for s in figures["stages"]] == [s["name"] for s in spec["stages"]]
    assert all(a["endStep"] == b["startStep"] for a, b in zip(figures["stages"], figures["stages"][1:], strict=False))
    graceful, abrupt = figures["recoveries"]
    assert (graceful["kind"], graceful["stepsLost"]) == ("graceful", 0)
    assert abrupt["kind"] == "abrupt"
    assert abrupt["stepsLost"] <= spec["checkpoint"]["everySteps"]
    assert figures["stepsLost"] == graceful["stepsLost"] + abrupt["stepsLost"]
    assert len(figures["recoverySeconds"]) == 1
    assert "equal, bit for bit" in text


@pytest.mark.soak
@pytest.mark.timeout(1000)
@pytest.mark.parametrize(("preemptions", "seed"), [(0, 1), (1, 2), (3, 3), (4, 4)])
def test_other_seeds_and_other_numbers_of_preemptions(tmp_path, preemptions, seed):
    figures, _ = run_demo(tmp_path, preemptions, seed)
    assert figures["preemptions"] == preemptions
    assert figures["weightsSha256"] == figures["undisturbedSha256"]
