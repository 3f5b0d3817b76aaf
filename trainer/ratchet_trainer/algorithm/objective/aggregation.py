"""How the tokens of a mini-batch share in its loss: the Agg of the unified objective.

Decides denominators, in float64 on the host and from the whole mini-batch, so that no micro-batch, device or dummy
changes one. What is weighed is `policy_gradient`'s matter.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

AGGREGATIONS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    # name -> weight of each token of a response, float64[R], from lengths int64[R] (0 = dummy) and the longest allowed
    # 1 / (all tokens): every token weighs the same (DAPO, arXiv 2503.14476, equation 8).
    "token-mean": lambda lengths, longest: np.full(len(lengths), 1.0 / max(1, int(lengths.sum()))),
    # 1 / (responses x own length): every response weighs the same (GRPO, arXiv 2402.03300, equation 3).
    "seq-mean-token-mean": lambda lengths, longest: 1.0 / (_responses(lengths) * np.maximum(lengths, 1)),
    # 1 / responses: a response weighs as much as it is long (REINFORCE over whole responses).
    "seq-mean-token-sum": lambda lengths, longest: np.full(len(lengths), 1.0 / _responses(lengths)),
    # 1 / longest: the sum over everything by a constant (Dr. GRPO, arXiv 2503.20783, as verl had it until 2026: not
    # divided by the number of responses, which verl 0.9 and TRL do). The constant is the configured length; the padded
    # width of a batch would be another one.
    "seq-mean-token-sum-norm": lambda lengths, longest: np.full(len(lengths), 1.0 / longest),
}


def token_weights(aggregation: str, lengths: np.ndarray, slots: int, longest: int) -> np.ndarray:
    """The share of each token in the loss, float64[R, slots] from response lengths int[R]; 0 where no token is.

    `longest` is the configured limit of a response, in tokens.
    """
    lengths = np.asarray(lengths, np.int64)
    real = np.arange(slots) < lengths[:, None]
    weights: np.ndarray = real * AGGREGATIONS[aggregation](lengths, longest)[:, None]
    return weights


def _responses(lengths: np.ndarray) -> float:
    return float(max(1, int((lengths > 0).sum())))
