"""Between which values a metric lies, whatever a run does: a bound beyond them is never reached.

Decides only what is certain. Metrics whose values depend on rewards, on the user's own verifiers or on the vocabulary
have no range, or one side of it.
"""

from __future__ import annotations

import math

from ratchet_api.stages import Stage

SHARES = (
    "accuracy",
    "unsolved",
    "solved",
    "informative",
    "truncated",
    "unparsable",
    "verifier_failures",
    "clip_fraction",
    "clip_fraction_low",
    "clip_fraction_high",
    "hinted",
    "unhelped",
)
"""Shares of tokens, responses or prompts."""
COUNTS_AND_SIZES = (
    "entropy",
    "tokens",
    "response_tokens",
    "logprob_mismatch",
    "importance_ratio",
    "value_loss",
    "scored_rollouts",
    "active_items",
    "exhausted",
    "rounds",
    "dropped_right",
    "dropped_wrong",
    "surplus",
    "hint_rollouts",
)
"""Never negative."""
OF_EVALUATIONS_SHARES = ("accuracy", "truncated")


def metric_range(metric: str, stage: Stage) -> tuple[float, float]:
    """Smallest and largest value that a metric, by its full name, can have in a stage; infinite where nobody knows."""
    family, _, name = metric.partition("/")
    if family == "evaluation":
        what = name.partition("/")[2]
        if what in OF_EVALUATIONS_SHARES or what.startswith("pass_at_"):
            return 0.0, 1.0
        return (0.0, math.inf) if what == "response_tokens" else (-math.inf, math.inf)
    if family not in ("train", "curate"):
        return -math.inf, math.inf
    if name in SHARES:
        return 0.0, 1.0
    if name == "response_tokens" and stage.rl is not None:
        return 0.0, float(stage.rl.max_response_tokens)
    cross_entropy = name == "loss" and stage.sft is not None
    return (0.0 if name in COUNTS_AND_SIZES or cross_entropy else -math.inf), math.inf
