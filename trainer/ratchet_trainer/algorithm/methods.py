"""Methods: how the manifest's settings of a stage replace parts of its preset, and which slots come of it.

The presets are a table (`ratchet_api.presets`). Formulas are in the slots. What the manifest may ask for, and which
choices go together, is decided at admission (`ratchet_api.method`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ratchet_api import drift as drift_api
from ratchet_api import expansion as expansion_api
from ratchet_api import method as api
from ratchet_api import sampled_values
from ratchet_api import selection as selection_api
from ratchet_api.presets import PRESETS
from ratchet_api.stage_metrics import full_metric
from ratchet_api.stages import Rl
from ratchet_trainer.algorithm.advantage.gae import Gae
from ratchet_trainer.algorithm.advantage.group import DELTA, GroupAdvantage
from ratchet_trainer.algorithm.advantage.vine import Vine
from ratchet_trainer.algorithm.expansion.dynamic_sampling import DynamicSampling
from ratchet_trainer.algorithm.expansion.hints import Hints
from ratchet_trainer.algorithm.expansion.none import NoExpansion
from ratchet_trainer.algorithm.expansion.templates import Templates
from ratchet_trainer.algorithm.objective.drift import Kl
from ratchet_trainer.algorithm.objective.policy_gradient import PolicyGradient
from ratchet_trainer.algorithm.reference.frozen import Frozen
from ratchet_trainer.algorithm.reference.none import NoReference
from ratchet_trainer.algorithm.reference.plateau import Plateau
from ratchet_trainer.algorithm.reference.scheduled import Scheduled
from ratchet_trainer.algorithm.rewards.registry import rewards_of
from ratchet_trainer.algorithm.selection.difficulty_band import DifficultyBand
from ratchet_trainer.algorithm.selection.history_resampling import HistoryResampling
from ratchet_trainer.algorithm.selection.learnability import Learnability
from ratchet_trainer.algorithm.selection.learnability_buffer import LearnabilityBuffer
from ratchet_trainer.algorithm.selection.uniform import Uniform
from ratchet_trainer.algorithm.slots import (
    Advantage,
    CriticSettings,
    Expansion,
    Objective,
    Reference,
    Rewards,
    Selection,
)


@dataclass(frozen=True)
class Method:
    selection: Selection
    expansion: Expansion
    rewards: Rewards
    advantage: Advantage
    objective: Objective
    reference: Reference


SELECTION: Mapping[str, Callable[[], Selection]] = {
    "uniform": Uniform,
    "learnability": Learnability,
    "learnability with a buffer": LearnabilityBuffer,
    "historyResampling": HistoryResampling,
    "difficultyBand": DifficultyBand,
}
EXPANSION: Mapping[str, Callable[[], Expansion]] = {
    "none": NoExpansion,
    "dynamicSampling": DynamicSampling,
    "hints": Hints,
    "templates": Templates,
}

MEASURED = "k3"
"""Estimator of the drift that is measured though nothing depends on it."""

STALE_CAP = 2.0
"""Most that a token counts for because the policy has come to like it since it was sampled, where the stage samples
ahead and says no other."""


def resolve(rl: Rl) -> Method:
    """The method of a stage: its preset with the parts that the stage replaces."""
    preset, own = PRESETS[rl.method], rl.objective
    kl, drift = Kl.of(MEASURED, 0.0, None), drift_api.kl(rl)
    if drift is not None:
        kl = Kl.of(drift.estimator, float(drift.coefficient), _number(drift.clamp))
    low, high = (float(mine or theirs) for mine, theirs in zip((own.clip_low, own.clip_high), preset.clip, strict=True))
    objective = PolicyGradient(
        api.surrogate(rl),
        own.aggregation or preset.aggregation,
        rl.max_response_tokens,
        low,
        high,
        kl,
        penalized=drift is not None and drift.in_ == "loss",
        dual_clip=_number(own.dual_clip),
        importance_cap=_number(own.importance_cap) or (STALE_CAP if rl.lag else None),
        entropy=_number(own.entropy),
        behind=rl.lag > 0,
    )
    advantage = _advantage(rl, kl if drift is not None and drift.in_ == "reward" else None)
    return Method(
        _selection(rl),
        EXPANSION[expansion_api.kind(rl)](),
        rewards_of(rl.rewards),
        advantage,
        objective,
        _reference(rl),
    )


def _selection(rl: Rl) -> Selection:
    kind = selection_api.kind(rl)
    return SELECTION[f"{kind} with a buffer" if selection_api.buffered(rl) else kind]()


def _reference(rl: Rl) -> Reference:
    own = drift_api.reference(rl)
    resets = own.optimizer == "reset"
    if own.every_steps is not None:
        return Scheduled(own.every_steps, resets)
    if own.kind == "plateau":
        metric, patience, min_delta = drift_api.plateau(rl)
        return Plateau(full_metric(metric), patience, min_delta, resets)
    return NoReference() if own.kind == "none" else Frozen()


def _advantage(rl: Rl, penalty: Kl | None) -> Advantage:
    own = rl.advantage
    masks = (own.cut or PRESETS[rl.method].cut) == "mask"
    if api.has_critic(rl):
        critic = CriticSettings(float(own.value_clip or "0.2"), own.critic_learning_rate)
        return Gae(float(own.gamma or "1"), float(own.lambda_ or "1"), critic, penalty, masks)
    if api.estimator(rl) == "vine":
        how = sampled_values.vine(rl)
        return Vine(how.steps, how.step_tokens, how.most_steps, how.continuations, rewards_of(rl.rewards), masks)
    by_tag = expansion_api.per_template(rl)
    return GroupAdvantage(api.estimator(rl), _number(own.delta) or DELTA, penalty, masks, by_tag)


def _number(decimal: str | None) -> float | None:
    return None if decimal is None else float(decimal)
