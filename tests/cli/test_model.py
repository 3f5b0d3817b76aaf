"""`ratchet model`: a model of others is checked, trained and written back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

GOLDEN = Path(__file__).parents[1] / "golden"


def ratchet(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ratchet_cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


def test_a_folder_with_another_implementation_s_numbers_is_checked(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = ratchet("model", "check", GOLDEN / "gemma3-text", "--json", out)
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text()).keys() == {"logits", "left_padded_logits", "greedy_ids"}
    done = ratchet("model", "check", GOLDEN / "gemma3-text", "--tolerance", "1e-9")
    assert done.returncode == 1
    assert "TOO MUCH" in done.stdout
    done = ratchet("model", "check", tmp_path / "nothing")
    assert done.returncode == os.EX_NOINPUT
    assert "nothing: no such folder" in done.stderr


@pytest.mark.parametrize("lora", [None, {"rank": 2, "targets": ["v_proj", "down_proj"]}])
def test_what_was_trained_is_written_in_the_layout_it_came_in(tmp_path: Path, lora: dict | None) -> None:
    model = tmp_path / "model"
    shutil.copytree(GOLDEN / "llama3-rope-scaled", model)
    (tmp_path / "data.jsonl").write_text('{"question": "1+1=", "answer": "2"}\n')
    spec = {
        "model": {"path": str(model), "chatTemplate": "{{ messages[-1]['content'] }}", "lora": lora},
        "datasets": [{"name": "d", "jsonl": {"path": str(tmp_path / "data.jsonl")}}],
        "stages": [{"name": "s", "sft": {"dataset": "d", "batchSize": 2}, "advance": {"steps": 2}}],
        "checkpoint": {"directory": "/checkpoints/x", "claimName": "c"},
        "export": {"directory": str(tmp_path / "exported"), "when": "EachStage"},
        "placements": [{"name": "cpu", "cpu": {"hosts": 1}}],
    }
    manifest = {"apiVersion": "ratchet.dev/v1alpha1", "kind": "RLTrainingJob", "metadata": {"name": "x"}, "spec": spec}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(manifest))
    done = ratchet("train", tmp_path / "job.yaml", "--workdir", tmp_path / "work")
    assert done.returncode == 0, done.stderr
    export = ("model", "export", tmp_path / "job.yaml", tmp_path / "out", "--workdir", tmp_path / "work")
    done = ratchet(*export)
    assert done.stdout == f"step 2 in {tmp_path / 'out'}\n", done.stderr
    before, after = load_file(model / "model.safetensors"), load_file(tmp_path / "out/model.safetensors")
    for name, tensor in load_file(tmp_path / "exported/s/model.safetensors").items():
        np.testing.assert_array_equal(tensor, after[name], "what the run wrote at the end of the stage is the same")
    note = json.loads((tmp_path / "exported/s/ratchet.json").read_text())
    assert (note["stage"], note["step"]) == ("s", 2)
    assert {k: v.shape for k, v in before.items()} == {k: v.shape for k, v in after.items()}
    moved = [name for name in before if not np.array_equal(before[name], after[name])]
    if lora is None:
        assert len(moved) > len(before) / 2, "it was trained"
    else:
        assert {name.split(".")[-2] for name in moved} == {"v_proj", "down_proj"}
    done = ratchet("model", "check", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "compared with nobody's, as there is no expected.npz" in done.stdout
    assert "responses end with 2 '<eos>'" in done.stdout
    assert "a prompt of one word has 3 tokens" in done.stdout, "the template that it was trained with is there"
    done = ratchet(*export)
    assert done.returncode == os.EX_CANTCREAT
    assert "out exists" in done.stderr
    if lora is not None:
        model.rename(tmp_path / "moved")
        again = ("model", "export", tmp_path / "job.yaml", tmp_path / "again", "--workdir", tmp_path / "work")
        assert ratchet(*again, "--base", tmp_path / "moved").returncode == 0
        done = ratchet(*again, "--base", GOLDEN / "qwen3")
        assert done.returncode == os.EX_DATAERR
        assert "not the model that the adapters were trained on" in done.stderr
