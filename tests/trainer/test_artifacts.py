"""Weights for other tools: written at the end of a stage, told over /progress, told again by a restarted attempt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ratchet_api.job import RLTrainingJob
from ratchet_api.protocol import Exit
from ratchet_trainer.tools.local import Folder, train

GOLDEN = Path(__file__).parents[1] / "golden/qwen2-tied"
SHORT = {"maxPromptTokens": 16, "maxResponseTokens": 4}


def job(folder: Path) -> RLTrainingJob:
    """One step of a Hugging Face model, whose end needs an approval."""
    (folder / "items.jsonl").write_text("".join(f'{{"question": "{i}?", "answer": "{i}"}}\n' for i in range(4)))
    spec: dict[str, Any] = {
        "model": {"path": str(GOLDEN), "chatTemplate": "{{ messages[0]['content'] }}"},
        "datasets": [{"name": "d", "jsonl": {"path": str(folder / "items.jsonl")}}],
        "stages": [
            {
                "name": "only",
                "sft": {"dataset": "d", "batchSize": 2, **SHORT},
                "advance": {"steps": 1, "approval": "Manual"},
            }
        ],
        "export": {"directory": str(folder / "exports"), "when": "EachStage"},
        "checkpoint": {"directory": "/replaced"},
        "placements": [{"name": "here", "cpu": {"hosts": 1}}],
    }
    return RLTrainingJob.model_validate({"spec": spec})


def test_an_attempt_tells_of_weights_that_it_wrote_or_found_written(tmp_path: Path) -> None:
    target = tmp_path / "exports/only"
    for _ in range(2):
        documents: list[dict[str, Any]] = []
        code, message = train(Folder(tmp_path / "work", "small", job(tmp_path)), 1, listener=documents.append)
        assert (code, message["unapproved"]["stage"]) == (Exit.DRAINED, 0)
        assert documents[-1]["artifacts"] == [{"stage": "only", "step": 1, "path": str(target)}]
    assert json.loads((target / "ratchet.json").read_text())["step"] == 1
    assert (target / "model.safetensors").exists()
