"""The policy's objective in its unified form, sum of sg(Agg IS) (sg(Adv) Grad), of which each method is a setting.

Decides how the parts meet: Agg is `aggregation`, Grad and IS are `surrogate`, drift is `drift`; Adv comes from the
advantage slot. Drift in the loss and the entropy bonus are further gradients under the same weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient

from ratchet_trainer.algorithm.objective.aggregation import token_weights
from ratchet_trainer.algorithm.objective.drift import Kl, estimate
from ratchet_trainer.algorithm.objective.surrogate import (
    SURROGATES,
    dual_clipped,
    importance,
    mean_of_response,
    ratio_of,
)
from ratchet_trainer.algorithm.slots import Metrics, Micro


@dataclass(frozen=True)
class Loss:
    """The part of an objective that shapes a program: objectives that differ in numbers only share it.

    `estimator` measures drift where the rows have a reference. `behind`: rows may be sampled by older weights than the
    step begins with (decoupled PPO, arXiv 2110.00641).
    """

    surrogate: str
    estimator: str
    behind: bool = False

    def __call__(
        self, log_probs: jax.Array, entropy: jax.Array, micro: Micro, settings: Metrics
    ) -> tuple[jax.Array, Metrics]:
        """See slots.Objective.loss. Which of `dual_clip`, `importance_cap`, `kl_coefficient` and `entropy` are in
        `settings` says which terms there are. Sums over tokens: `clipped_low`, `clipped_high`, `ratio`, `kl` (with
        a reference)."""
        old = stop_gradient(log_probs) if micro.old is None else micro.old
        advantages, weight = micro.advantages, micro.weight
        decoupled, start = True, old
        if self.behind and self.surrogate == "cispo":  # it clips the whole way from what sampled
            assert micro.behaviour is not None, "the rows were sampled"
            decoupled, start = False, micro.behaviour
        log_ratio = log_probs - start
        gain, side = SURROGATES[self.surrogate](
            log_probs, log_ratio, micro.real, advantages, settings["clip_low"], settings["clip_high"]
        )
        if "dual_clip" in settings:
            gain = dual_clipped(gain, advantages, settings["dual_clip"])
        each = {"clipped_low": side < 0, "clipped_high": side > 0, "ratio": ratio_of(log_ratio)}
        if micro.reference is not None:
            kl = estimate(self.estimator, log_probs, micro.reference, settings["kl_limit"])
            each["kl"] = kl
            if "kl_coefficient" in settings:
                gain = gain - settings["kl_coefficient"] * kl
        if "entropy" in settings:
            gain = gain + settings["entropy"] * entropy
        if "importance_cap" in settings and decoupled:
            assert micro.behaviour is not None, "the rows were sampled"
            gap = old - micro.behaviour
            if self.behind and self.surrogate == "gspo":
                gap = mean_of_response(gap, micro.real)
            weight = weight * importance(gap, settings["importance_cap"])
            if self.behind:
                each["capped"] = ratio_of(gap) > settings["importance_cap"]
        # Padding is left out by choice, not by weight 0: what is not a number there would survive a product.
        sums = {name: jnp.sum(jnp.where(micro.real, values, 0.0)) for name, values in each.items()}
        return -jnp.sum(jnp.where(micro.real, weight * gain, 0.0)), sums


@dataclass(frozen=True)
class PolicyGradient:
    """An objective. `longest`: limit of a response in tokens. `kl`: drift as it is measured where there is a reference;
    `penalized`: it is in the loss, too. `dual_clip` > 1, `importance_cap` and `entropy` (a coefficient) are off when
    None. `behind` as of `Loss`."""

    surrogate: str
    aggregation: str
    longest: int
    clip_low: float
    clip_high: float
    kl: Kl
    penalized: bool = False
    dual_clip: float | None = None
    importance_cap: float | None = None
    entropy: float | None = None
    behind: bool = False

    @property
    def loss(self) -> Loss:
        return Loss(self.surrogate, self.kl.estimator, self.behind)

    def settings(self) -> dict[str, float]:
        terms = {
            "dual_clip": self.dual_clip,
            "importance_cap": self.importance_cap,
            "entropy": self.entropy,
            "kl_coefficient": self.kl.coefficient if self.penalized else None,
        }
        always = {"clip_low": self.clip_low, "clip_high": self.clip_high, "kl_limit": self.kl.limit}
        return always | {name: value for name, value in terms.items() if value is not None}

    def weights(self, lengths: np.ndarray, slots: int) -> np.ndarray:
        return token_weights(self.aggregation, lengths, slots, self.longest)
