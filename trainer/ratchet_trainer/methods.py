"""Methods: a table. A row says which answer a method takes in each of the six slots, and with which constants.

Decides presets only; the manifest's settings of a stage override their numbers. Formulas are in the slots.
"""

from __future__ import annotations

from dataclasses import dataclass

from ratchet_api.stages import Rl
from ratchet_trainer.credit.group import GroupAdvantage
from ratchet_trainer.expansion.none import NoExpansion
from ratchet_trainer.objective.clipped import ClippedRatio
from ratchet_trainer.reference.none import NoReference
from ratchet_trainer.rewards.accuracy import Accuracy
from ratchet_trainer.selection.uniform import Uniform
from ratchet_trainer.slots import Credit, Expansion, Objective, Reference, Rewards, Selection


@dataclass(frozen=True)
class Method:
    selection: Selection
    expansion: Expansion
    rewards: Rewards
    credit: Credit
    objective: Objective
    reference: Reference


def resolve(rl: Rl) -> Method:
    """The method of a stage: its preset with the stage's own numbers."""
    clipped = ClippedRatio(float(rl.objective.clip_low), float(rl.objective.clip_high))
    return {
        # arXiv 2402.03300; without the KL term, as a verified reward leaves no model to drift from.
        "grpo": Method(Uniform(), NoExpansion(), Accuracy(), GroupAdvantage(1e-6), clipped, NoReference()),
    }[rl.method]
