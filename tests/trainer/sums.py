"""A curriculum of small sums, for tests of whole runs: a supervised warm-up, then stages of reinforcement learning."""

from __future__ import annotations

from typing import Any

LENGTHS = {"maxPromptTokens": 26, "maxResponseTokens": 4}
SUMS = {"max_terms": 2, "max_digits": 1, "operators": ["+"], "allow_parentheses": False}
WARM = 45
"""Steps of sft before: untrained weights answer nothing right, so nothing would be learned from rewards."""


def job(*stages: dict[str, Any]) -> dict[str, Any]:
    """A warm-up, then the given stages; a stage is what it says of `rl`, and of `start`."""
    rl = {"dataset": "sums", "promptsPerStep": 4, "groupSize": 4, **LENGTHS, "optimizer": {"learningRate": "0.002"}}
    return {
        "model": {"preset": "tiny"},
        "seed": 7,
        "datasets": [{"name": "sums", "reasoningGym": {"task": "basic_arithmetic", "size": 10, "config": SUMS}}],
        "stages": [
            {"name": "warm-up", "sft": {"dataset": "sums", "batchSize": 16, **LENGTHS}, "advance": {"steps": WARM}},
            *(
                {"name": f"rl-{i}", "advance": {"steps": 2}, "start": stage.pop("start", {}), "rl": {**rl, **stage}}
                for i, stage in enumerate(map(dict, stages))
            ),
        ],
        "checkpoint": {"directory": "/checkpoints/x"},
        "placements": [{"name": "cpu", "cpu": {"hosts": 1}}],
    }
