"""What attention's kernels compute, by formula: the compiled program's text does not say it.

JAX's splash attention multiplies blocks of which something is visible, here counted as what is visible alone. Decides
which custom calls are such kernels, by their names, and how many matrix products each makes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ratchet_trainer.tools.hlo import Array

SPLASH = re.compile(r"splash_m[hq]a_(fwd|dkv|dq)")
PRODUCTS = {"fwd": 2, "dq": 3, "dkv": 5}
"""Matrix products of a kernel: scores and outputs; scores, their gradient and that of queries; scores, their gradient
and those of queries, keys and values (the fused kernel of a gradient)."""
AXES = 3


def splash_flops(name: str, arrays: Sequence[Array]) -> float | None:
    """Flops of a kernel of that name with these operands; None for another one. Among them the first two of at least
    three axes in the format of activations are queries [..., N, T, K] and keys [..., M, S, K]: token t sees the first
    S - T + t + 1 slots."""
    found = SPLASH.search(name)
    whole = [a for a in arrays if a.dtype in ("bf16", "f32") and len(a.sides) >= AXES]
    if found is None or len(whole) < PRODUCTS["fwd"]:
        return None
    heads, tokens, width = whole[0].sides[-AXES:]
    slots = whole[1].sides[-2]
    rows = whole[0].size // (heads * tokens * width)
    pairs = rows * heads * (tokens * (slots - tokens) + tokens * (tokens + 1) / 2)
    return 2.0 * PRODUCTS[found[1]] * pairs * width
