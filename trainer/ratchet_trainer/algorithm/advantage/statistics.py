"""Statistics of a batch in one order on every machine: float64 on the host, left to right.

Decides the arithmetic only. Tokens are taken row by row.
"""

from __future__ import annotations

import numpy as np

VARIANCE_FLOOR = 1e-8
"""A smaller variance is taken for this one, so that equal values become 0 and not NaN."""


def real_tokens(lengths: np.ndarray, slots: int, forced: np.ndarray | int = 0) -> np.ndarray:
    """bool[R, slots]: where the tokens of responses of int[R] tokens are, without the first `forced` of each."""
    at = np.arange(slots)
    return (at < np.asarray(lengths)[:, None]) & (at >= np.reshape(forced, (-1, 1)))


def total(values: np.ndarray) -> float:
    """The sum of float64[N], left to right; numpy's own sum adds in pairs, in an order of its version's choice."""
    return float(np.add.accumulate(values)[-1]) if len(values) else 0.0


def whitened(values: np.ndarray, real: np.ndarray) -> np.ndarray:
    """(x - mean) / std over all real tokens of the batch, float64[R, T]; variance with ddof 1; 0 where no token is.

    Values that are all equal become exactly 0.
    """
    tokens = values[real]
    out = np.zeros_like(values, dtype=np.float64)
    if len(tokens) < 2 or tokens.max() == tokens.min():
        return out
    mean = total(tokens) / len(tokens)
    variance = total((tokens - mean) ** 2) / (len(tokens) - 1)
    out[real] = (tokens - mean) / max(variance, VARIANCE_FLOOR) ** 0.5
    return out
