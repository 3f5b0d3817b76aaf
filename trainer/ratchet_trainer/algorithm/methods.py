"""Methods: a table. A row says which answer a method takes in each of the six slots, and with which constants.

Decides presets, and how the manifest's settings of a stage replace their parts. Formulas are in the slots. What the
manifest may ask for, and which choices go together, is decided at admission (`ratchet_api.method`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ratchet_api import method as api
from ratchet_api import selection as selection_api
from ratchet_api.stages import Rl
from ratchet_trainer.algorithm.advantage.gae import Gae
from ratchet_trainer.algorithm.advantage.group import DELTA, GroupAdvantage
from ratchet_trainer.algorithm.expansion.none import NoExpansion
from ratchet_trainer.algorithm.objective.drift import Kl
from ratchet_trainer.algorithm.objective.policy_gradient import PolicyGradient
from ratchet_trainer.algorithm.reference.frozen import Frozen
from ratchet_trainer.algorithm.reference.none import NoReference
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


@dataclass(frozen=True)
class Preset:
    """A row: form of advantage, surrogate, aggregation, clip widths below and above 1, which prompts are drawn, and
    what cut responses earn."""

    advantage: str
    surrogate: str
    aggregation: str
    clip: tuple[float, float]
    selection: str = "uniform"
    cut: str = "keep"


# All without a drift term, whatever their papers had: a verified reward leaves no model to drift from, and a reference
# costs a copy of the weights. `rl.kl` turns it on.
PRESETS = {
    # arXiv 2402.03300, equation 3.
    "grpo": Preset("mean-std", "ppo", "seq-mean-token-mean", (0.2, 0.2)),
    # arXiv 2503.20783: neither the deviation of the group nor the length of the response weighs.
    "dr-grpo": Preset("mean", "ppo", "seq-mean-token-sum-norm", (0.2, 0.2)),
    # arXiv 2507.18071: the ratio of a whole response hardly moves, so the widths are small.
    "gspo": Preset("mean-std", "gspo", "seq-mean-token-mean", (3e-4, 4e-4)),
    # arXiv 2506.13585, whose widths are not published: these are verl's.
    "cispo": Preset("mean-std", "cispo", "token-mean", (0.2, 0.28)),
    # arXiv 2402.14740: REINFORCE of whole responses, so tokens are summed; the clip acts from a second update on.
    "rloo": Preset("leave-one-out", "ppo", "seq-mean-token-sum", (0.2, 0.2)),
    # arXiv 2501.03262.
    "reinforce++-baseline": Preset("batch-whitened", "ppo", "token-mean", (0.2, 0.2)),
    # arXiv 1707.06347 with gamma = lambda = 1 and a value clip of 0.2, as VinePPO's baseline (arXiv 2410.01679).
    "ppo": Preset("gae", "ppo", "token-mean", (0.2, 0.2)),
    # arXiv 2502.12272, version 1 with a buffer of learnable prompts, version 6 without.
    "sfl": Preset("gae", "ppo", "token-mean", (0.2, 0.2), "learnability"),
    "lilo": Preset("gae", "ppo", "token-mean", (0.2, 0.2), "learnability"),
    # arXiv 2504.14286: no drift term, and a cut response earns nothing.
    "srpo": Preset("mean-std", "ppo", "token-mean", (0.2, 0.2), "historyResampling", "mask"),
}

SELECTION: Mapping[str, Callable[[], Selection]] = {
    "uniform": Uniform,
    "learnability": Learnability,
    "learnability with a buffer": LearnabilityBuffer,
    "historyResampling": HistoryResampling,
    "difficultyBand": DifficultyBand,
}
EXPANSION: Mapping[str, Callable[[], Expansion]] = {"none": NoExpansion}

MEASURED = "k3"
"""Estimator of the drift that is measured though nothing depends on it."""


def resolve(rl: Rl) -> Method:
    """The method of a stage: its preset with the parts that the stage replaces."""
    preset, own = PRESETS[rl.method], rl.objective
    kl = Kl.of(MEASURED, 0.0, None)
    if rl.kl is not None:
        kl = Kl.of(rl.kl.estimator, float(rl.kl.coefficient), _number(rl.kl.clamp))
    low, high = (float(mine or theirs) for mine, theirs in zip((own.clip_low, own.clip_high), preset.clip, strict=True))
    objective = PolicyGradient(
        own.surrogate or preset.surrogate,
        own.aggregation or preset.aggregation,
        rl.max_response_tokens,
        low,
        high,
        kl,
        penalized=rl.kl is not None and rl.kl.in_ == "loss",
        dual_clip=_number(own.dual_clip),
        importance_cap=_number(own.importance_cap),
        entropy=_number(own.entropy),
    )
    advantage = _advantage(rl, kl if rl.kl is not None and rl.kl.in_ == "reward" else None)
    return Method(
        _selection(rl),
        EXPANSION[rl.expansion.kind](),
        rewards_of(rl.rewards),
        advantage,
        objective,
        _reference(rl),
    )


def _selection(rl: Rl) -> Selection:
    kind = selection_api.knob(rl, "kind") or PRESETS[rl.method].selection
    return SELECTION[f"{kind} with a buffer" if selection_api.buffered(rl) else kind]()


def _reference(rl: Rl) -> Reference:
    if rl.reference is not None and rl.reference.every_steps is not None:
        return Scheduled(rl.reference.every_steps, rl.reference.optimizer == "reset")
    return Frozen() if api.has_reference(rl) else NoReference()


def _advantage(rl: Rl, penalty: Kl | None) -> Advantage:
    own = rl.advantage
    masks = (own.cut or PRESETS[rl.method].cut) == "mask"
    if api.has_critic(rl):
        critic = CriticSettings(float(own.value_clip or "0.2"), own.critic_learning_rate)
        return Gae(float(own.gamma or "1"), float(own.lambda_ or "1"), critic, penalty, masks)
    return GroupAdvantage(own.estimator or PRESETS[rl.method].advantage, _number(own.delta) or DELTA, penalty, masks)


def _number(decimal: str | None) -> float | None:
    return None if decimal is None else float(decimal)
