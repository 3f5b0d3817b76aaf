"""What an rl step says of itself in the metric stream.

Decides names and means: functions of the state alone, float64, left to right. What the clock says goes elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.types import StepSamples

Metrics = dict[str, float]


def rl_metrics(
    samples: StepSamples,
    updates: Sequence[Metrics],
    critic: Sequence[Metrics] | None,
    reference: bool,
    behind: int | None = None,
) -> Metrics:
    """Over all first rollouts before any filtering. `updates` and `critic` are what each update of the policy and of
    the critic (None without one) reported; `reference`: whether there is one. `behind`: updates since the weights that
    sampled (None: the stage does not sample ahead); where there are some, sampler and trainer cannot be compared.

    Where no mini-batch could teach anything, `train/loss` and the clip fractions are 0. `train/logprob_mismatch` and
    `train/importance_ratio` compare sampler and trainer at the step's first update, under the weights that sampled.
    They and `train/kl`, the mean drift over the tokens trained on, are NaN where there was no update: no rule takes
    that for 0.
    """
    groups = [g for g in samples.groups if g.disposition != "carried"]
    every = [(*g.rollouts, *g.replaced) for g in groups]
    firsts = [[r for r in all_of if r.request.purpose == Purpose.TRAIN] or list(all_of) for all_of in every]
    rollouts = [r for g in firsts for r in g]
    rewards = [g.first_rewards if g.replaced else g.rewards for g in groups]
    parts = [g.first_parts if g.replaced else g.parts for g in groups]
    right = [[r.outcome.accuracy for r in g] for g in firsts]
    statuses = [r.outcome.status for r in rollouts]
    tokens = sum(len(r.response) for r in rollouts)
    sampled = tokens - sum(r.forced for r in rollouts)
    found = {
        "train/accuracy": _mean([a for g in right for a in g]),
        "train/reward": _mean([reward for of_group in rewards for reward in of_group]),
        "train/loss": _mean([update["loss"] for update in updates]),
        "train/entropy": sum(float(e) for r in rollouts for e in r.entropy) / max(1, sampled),
        "train/unsolved": _mean([float(max(g) == 0.0) for g in right]),
        "train/solved": _mean([float(min(g) == 1.0) for g in right]),
        "train/informative": _mean([float(g.informative) for g in groups]),
        "train/truncated": _mean([float(r.finish == "length") for r in rollouts]),
        "train/unparsable": _mean([float(s == "unparsable") for s in statuses]),
        "train/verifier_failures": _mean([float(s in ("timeout", "crash")) for s in statuses]),
        "train/response_tokens": tokens / max(1, len(rollouts)),
        "train/clip_fraction": per_token(updates, "clipped_low", 0.0) + per_token(updates, "clipped_high", 0.0),
        "train/clip_fraction_low": per_token(updates, "clipped_low", 0.0),
        "train/clip_fraction_high": per_token(updates, "clipped_high", 0.0),
        "train/logprob_mismatch": math.nan if behind else per_token(updates[:1], "mismatch", math.nan),
        "train/importance_ratio": per_token(updates[:1], "importance", math.nan),
    }
    for name in parts[0] if parts else ():
        found[f"reward/{name}"] = _mean([value for of_group in parts for value in of_group[name]])
    if behind is not None:
        found["train/staleness"] = float(behind)
        weighed = [update for update in updates if "capped" in update]
        found["train/importance_capped"] = per_token(weighed, "capped", 0.0)
    if reference:
        found["train/kl"] = per_token(updates, "kl", math.nan)
    if critic is not None:
        found["train/value_loss"] = _mean([update["loss"] for update in critic])
    return found


def update_timing(updates: Sequence[Metrics]) -> dict[str, float]:
    """What the updates of a step say to those who watch a run and to nobody else; of none, that nothing was trained.

    At the first update, `samplerGap`: how far the sampler's log-probabilities were from the trainer's under the same
    weights; `oldGap`: how far the old policy's were from the new ones, which are of the same weights unless rollouts
    were carried over.
    """
    if not updates:
        return {"trainedTokens": 0}
    found = {
        "samplerGap": updates[0]["sampler_gap"],
        "gradientNorm": updates[-1]["gradient_norm"],
        "trainedTokens": sum(update["tokens"] for update in updates),
        "ratio": per_token(updates, "ratio", math.nan),
    }
    return found | ({"oldGap": updates[0]["old_gap"]} if "old_gap" in updates[0] else {})


def per_token(updates: Sequence[Metrics], name: str, otherwise: float) -> float:
    """A sum that updates report, over their tokens."""
    tokens = sum(update["tokens"] for update in updates)
    return sum(update[name] for update in updates) / tokens if tokens else otherwise


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
