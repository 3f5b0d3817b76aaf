"""`ratchet curve`: which steps of the metric stream are drawn, and what is said of those that are not there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from ratchet_cli.main import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [
        json.dumps({"step": step, "stage": "reason", "metrics": {"train/accuracy": repr(step / 10), "train/kl": "nan"}})
        for step in range(1, 10)
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 10, "stage"')  # the last is being written
    return tmp_path


def test_a_metric_is_drawn_with_its_first_and_last_value(folder: Path) -> None:
    done = CliRunner().invoke(main, ["curve", str(folder)])
    assert done.exit_code == 0
    assert done.output.startswith("train/accuracy 0.100 -> 0.900 (step 1 -> 9)\n")
    assert "█" in done.output


@pytest.mark.parametrize("metric", ["train/kl", "train/nothing"])
def test_a_metric_that_is_not_there_is_said_with_those_that_are(folder: Path, metric: str) -> None:
    done = CliRunner().invoke(main, ["curve", str(folder), "--metric", metric])
    assert done.exit_code == os.EX_NOINPUT
    assert f"no {metric}; there are train/accuracy" in done.output


def test_a_folder_without_a_run_is_said(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["curve", str(tmp_path)])
    assert done.exit_code == os.EX_NOINPUT
    assert "metrics.jsonl: no train/accuracy; there are no metrics yet" in done.output
