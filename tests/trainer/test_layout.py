"""How rows become fixed shapes: who shares a prompt, what fills up a batch, and that fillers teach nothing."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from ratchet_api.job import Model
from ratchet_api.stages import Optimizer, Rl
from ratchet_trainer.algorithm import keys
from ratchet_trainer.algorithm.advantage.group import group_advantages
from ratchet_trainer.algorithm.methods import resolve
from ratchet_trainer.learning import optimizer
from ratchet_trainer.learning.learner import Layout, Row
from ratchet_trainer.process import distributed
from ratchet_trainer.step.stage import programs_of


@pytest.mark.parametrize(
    ("rows", "group", "parts", "shape"),
    [
        (128, 8, 1, (16, 8)),
        (128, 8, 2, (16, 8)),
        (64, 8, 16, (16, 4)),  # four rows a device: half a group
        (6, 4, 1, (3, 2)),  # a mini-batch that cuts groups
        (6, 4, 4, (8, 1)),  # two dummies
        (32, 1, 2, (32, 1)),
    ],
)
def test_rows_lie_in_whole_parts_of_groups(rows: int, group: int, parts: int, shape: tuple[int, int]) -> None:
    layout = Layout.of(rows, group, parts, 8, 4)
    assert (layout.prompts, layout.samples) == shape
    assert layout.prompts % parts == 0
    # Rows that lie side by side under one prompt are of one group.
    owner = layout.fill(np.arange(rows) // group + 1)
    assert all(len({*line} - {0}) <= 1 for line in owner)


@pytest.mark.parametrize(
    ("rows", "group", "parts", "rows_per_pass", "shape"),
    [
        (128, 8, 1, 32, (16, 8, 4)),
        (128, 8, 2, 16, (16, 8, 4)),
        (128, 8, 1, 4, (32, 4, 32)),  # half a group at a time
        (128, 8, 1, 1000, (16, 8, 1)),
        (12, 6, 1, 8, (8, 2, 2)),  # four dummies in the second pass
    ],
)
def test_a_device_takes_its_rows_in_equal_passes(rows, group, parts, rows_per_pass, shape) -> None:
    layout = Layout.of(rows, group, parts, 8, 4, rows_per_pass)
    assert (layout.prompts, layout.samples, layout.passes) == shape
    assert layout.prompts % (layout.passes * parts) == 0
    owner = layout.fill(np.arange(rows) // group + 1)
    assert all(len({*line} - {0}) <= 1 for line in owner)


def test_two_prompts_never_share_a_place_for_one() -> None:
    rows = [Row((1, 2 + i // 2), (3,)) for i in range(4)]
    laid_out = Layout(2, 2, 4, 1).rows(rows)
    assert np.asarray(laid_out.prompts.last).tolist() == [2, 3]
    with pytest.raises(ValueError, match=r"row 1 has another prompt than row 0.*lay them out one by one"):
        Layout(2, 2, 4, 1).rows(rows[1:])
    with pytest.raises(ValueError, match="4 rows do not fit a layout of 1 prompts x 2 rows"):
        Layout(1, 2, 4, 1).rows(rows)
    assert Layout(4, 1, 4, 1).rows(rows).length.sum() == 4


def test_dummies_padding_and_passes_change_no_gradient() -> None:
    learner = programs_of(Model(preset="tiny"), distributed.one_device()).learner
    rows = [Row((256, 49, 43, 50 + i // 2), (51 + i, 257)[: 1 + i % 2]) for i in range(4)]
    advantages = np.broadcast_to(group_advantages([1, 0, 0, 1])[:, None], (4, 4))
    seen = []
    # As they are; with six dummies and longer padding; one after the other; in three passes, the last of dummies only.
    for layout in (Layout(2, 2, 8, 4), Layout(5, 2, 16, 4), Layout(4, 1, 8, 4, passes=4), Layout(3, 2, 8, 4, passes=3)):
        params, moments = learner.init(keys.seed_words(0))
        numbers = optimizer.numbers(Optimizer(learningRate="0.001"), 0)
        objective = resolve(Rl(dataset="d", method="grpo")).objective
        _, moments, found = learner.update(params, moments, layout, rows, advantages, None, 1.0, objective, numbers)
        seen.append((found["gradient_norm"], jax.device_get(moments.mu)))
    (norm, one), *others = seen
    for other_norm, other in others:
        assert norm == pytest.approx(other_norm, rel=1e-5)
        # The first moment is a tenth of the gradient: unlike a step of Adam it shows a wrong scale.
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
