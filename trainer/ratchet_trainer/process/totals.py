"""What this attempt has done so far, added up for those who watch: steps, tokens, draws, and how long steps took."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

from ratchet_api.metrics import BY_NAME

STEP_SECONDS = BY_NAME["ratchet_step_duration_seconds"].buckets
GENERATED_FLOPS, TRAINED_FLOPS = 2, 6
"""Floating-point operations a parameter and token: forward alone, and forward with both gradients (arXiv 2001.08361,
section 2.1)."""


class Totals:
    """Sums of one attempt. `parameters` and `peak_flops` (of all its devices) are 0 until they are known, or for ever
    where nobody has published the peak."""

    def __init__(self) -> None:
        self.steps = self.skipped = self.generated = self.trained = 0
        self.draws: dict[str, int] = {}
        self.durations = [0] * (len(STEP_SECONDS) + 1)  # how many steps fell into each bucket; the last has the rest
        self.seconds = 0.0
        self.flops = 0.0
        self.parameters = 0
        self.peak_flops = 0.0
        self.gradient_norm: float | None = None

    def add(self, timing: Mapping[str, Any]) -> None:
        """Counts a complete step by what it says of its time (see `canonical_timing`)."""
        generated, trained = timing.get("generatedTokens", 0), timing.get("trainedTokens", 0)
        self.steps += 1
        self.skipped += timing.get("skippedUpdates", 0)
        self.generated += generated
        self.trained += trained
        self.flops += self.parameters * (GENERATED_FLOPS * generated + TRAINED_FLOPS * trained)
        self.gradient_norm = timing.get("gradientNorm")
        for disposition, count in timing.get("draws", {}).items():
            self.draws[disposition] = self.draws.get(disposition, 0) + count
        if (seconds := timing.get("seconds")) is not None:
            self.durations[bisect_left(STEP_SECONDS, seconds)] += 1
            self.seconds += seconds
