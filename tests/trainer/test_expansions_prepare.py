"""What an expansion samples and trains on has its programs before the first step: no step compiles anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from compiling import compiled_in
from sums import job

from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.outcome import Outcome
from ratchet_trainer.rollout.engine import Engine
from ratchet_trainer.run import run

TEMPLATES = [{"name": "plain", "text": "{question}"}, {"name": "polite", "text": "Please: {question}"}]
TO_HOST = "jit(<lambda>)"
"""Learner.on_host: it copies, and takes no time to compile."""
STAGES = {
    "dapo": {"method": "dapo", "expansion": {"promptsPerRound": 8, "surplus": "carry"}},
    "scaf-grpo": {"method": "scaf-grpo", "expansion": {"exemptSteps": 0}},
    "template-rl": {"method": "template-rl", "expansion": {"templates": TEMPLATES}},
}


def half_right(self: Engine, flat: Any) -> list[Outcome]:
    """Every third draw fails whole, and is right with a hint; the others are right in every second sample."""
    return [
        Outcome(s := float(r.purpose == Purpose.HINT or (r.draw.ordinal % 3 > 0 and made.sample % 2 > 0)), s)
        for r, _, made in flat
    ]


@pytest.mark.parametrize("method", STAGES)
def test_a_step_compiles_nothing(method: str, memory_runtime: Any, monkeypatch: Any, tmp_path: Path) -> None:
    rows = [{"question": f"{i} + 1 = ", "answer": str(i + 1), "hints": [str(i + 1)]} for i in range(10)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = job({"maxPromptTokens": 40, "updatesPerStep": 2, **STAGES[method]})
    spec["datasets"] = [{"name": "sums", "jsonl": {"path": str(tmp_path / "sums.jsonl"), "hints": "hints"}}]
    spec["stages"] = spec["stages"][1:]
    spec["stages"][0]["advance"]["steps"] = 3
    monkeypatch.setattr(Engine, "_verify", half_right)
    compiled, steps = compiled_in(monkeypatch, "rl_step")
    run(memory_runtime(spec))
    assert compiled, "it would have been heard"
    assert [[name for name in names if name != TO_HOST] for names in steps] == [[], [], []]
