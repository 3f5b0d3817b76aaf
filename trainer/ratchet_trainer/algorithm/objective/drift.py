"""How far the policy is from a reference at a sampled token: estimators of KL(pi || ref).

Decides the formulas, for programs (jax.numpy) and for the host (numpy, float64) alike. With u = pi_ref / pi:

    k1 = -log u              unbiased; its gradient in a loss is 0 in expectation, hence in rewards only
    k2 = (log u)^2 / 2       biased; its gradient is that of the KL
    k3 = u - log u - 1       unbiased and never negative; its gradient in a loss is 1 - u, that of KL(ref || pi)

Tokens are sampled from pi. http://joschu.net/blog/kl-approx.html; GRPO (arXiv 2402.03300, equation 4) uses k3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

LOG_RATIO_LIMIT = 20.0
K3_LIMIT = 10.0
"""k3 grows as exp: one token at which the policy gave up what the reference likes would rule a whole batch."""


@dataclass(frozen=True)
class Kl:
    """A penalty on drift. `limit` bounds the estimate's size; at the bound it has no gradient."""

    estimator: str
    coefficient: float
    limit: float

    @classmethod
    def of(cls, estimator: str, coefficient: float, limit: float | None) -> Kl:
        return cls(estimator, coefficient, limit or (K3_LIMIT if estimator == "k3" else float("inf")))


def estimate(estimator: str, log_probs: Any, reference: Any, limit: Any, xp: Any = jnp) -> Any:
    """The estimator at each token, elementwise, of the size of `log_probs`; computed by module `xp`."""
    log_ratio = xp.clip(log_probs - reference, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    if estimator == "k1":
        value = log_ratio
    elif estimator == "k2":
        value = 0.5 * log_ratio**2
    elif estimator == "k3":
        value = xp.expm1(-log_ratio) + log_ratio
    else:
        raise ValueError(f"no estimator {estimator}: k1, k2 or k3")
    return xp.clip(value, -limit, limit)
