"""The learning rate of an update: linear warm-up, then constant, or a linear decay.

A function of the updates made in this stage, computed on the host: inside the optax state a reset optimizer would
restart the warm-up at rate 0.
"""

from __future__ import annotations

from ratchet_api.stages import Optimizer

FLOOR = 0.1
"""What is left of the peak rate after the decay."""


def learning_rate(settings: Optimizer, updates: int) -> float:
    """The rate of the update that follows `updates` updates of this stage: linear warm-up, then linear decay if any.
    An absent peak is filled in before (`ratchet_api.default_learning_rate`)."""
    assert settings.learning_rate is not None, "see Stage.optimizer"
    rise = min(1.0, (updates + 1) / (settings.warmup_updates + 1))
    fallen = (
        min(1.0, max(0, updates - settings.warmup_updates) / settings.decay_updates) if settings.decay_updates else 0.0
    )
    return float(settings.learning_rate) * rise * (1.0 - (1.0 - FLOOR) * fallen)
