"""Whether two runs in memory ended alike: the same bits, by the same metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ratchet_trainer.errors import Drain
from ratchet_trainer.run import run


def same(runtime: Any, straight: Any, what: Any = "") -> None:
    """Both ended in the same state, by the same metrics."""
    step, arrays, control, *_ = runtime.commits[-1]
    expected_step, expected, expected_control, *_ = straight.commits[-1]
    assert (step, control) == (expected_step, expected_control), what
    assert arrays.keys() == expected.keys()
    for path, leaf in expected.items():
        np.testing.assert_array_equal(arrays[path], leaf, err_msg=f"{path}, {what}")
    assert runtime.stream == straight.stream, what


def left_anywhere(started: Callable[..., Any]) -> list[str]:
    """Leaves a run at each of its safe points and goes on, which must end as if nothing had been; the phase of each
    point. `started` makes the run, and takes what memory_runtime does."""
    straight = started()
    run(straight)
    phases = []
    for point in range(1, straight.safe_points + 1):
        first = started(drain_at=point, to_finish=0.0)
        with pytest.raises(Drain):
            run(first)
        phases.append(first.drained[0])
        second = started(commits=first.commits)
        run(second)
        same(second, straight, point)
    return phases
