"""Whether two runs in memory ended alike: the same bits, by the same metrics."""

from __future__ import annotations

from typing import Any

import numpy as np


def same(runtime: Any, straight: Any, what: Any = "") -> None:
    """Both ended in the same state, by the same metrics."""
    step, arrays, control, *_ = runtime.commits[-1]
    expected_step, expected, expected_control, *_ = straight.commits[-1]
    assert (step, control) == (expected_step, expected_control), what
    assert arrays.keys() == expected.keys()
    for path, leaf in expected.items():
        np.testing.assert_array_equal(arrays[path], leaf, err_msg=f"{path}, {what}")
    assert runtime.stream == straight.stream, what
