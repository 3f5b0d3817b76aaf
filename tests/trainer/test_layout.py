"""How rows become fixed shapes: who shares a prompt, what fills up a batch, and that fillers teach nothing."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from ratchet_api.job import Model
from ratchet_api.stages import Optimiser, Rl
from ratchet_trainer import keys, optimiser
from ratchet_trainer.credit.group import group_advantages
from ratchet_trainer.learner import Layout, Row
from ratchet_trainer.methods import resolve
from ratchet_trainer.stage import machine


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


def test_dummies_and_padding_teach_nothing() -> None:
    mesh = jax.make_mesh((1, 1, 1), ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    learner = machine(Model(preset="tiny"), mesh).learner
    rows = [Row((256, 49, 43, 50 + i // 2), (51 + i, 257)[: 1 + i % 2]) for i in range(4)]
    advantages = np.broadcast_to(group_advantages([1, 0, 0, 1])[:, None], (4, 4))
    seen = []
    for layout in (Layout(2, 2, 8, 4), Layout(5, 2, 16, 4)):  # the second with six dummies and longer padding
        params, moments = learner.init(keys.seed_words(0))
        numbers = optimiser.numbers(Optimiser(), 0)
        objective = resolve(Rl(dataset="d", method="grpo")).objective
        _, moments, found = learner.update(params, moments, layout, rows, advantages, None, 1.0, objective, numbers)
        seen.append((found["gradient_norm"], jax.device_get(moments.mu)))
    (norm, one), (other_norm, other) = seen
    assert norm == pytest.approx(other_norm, rel=1e-5)
    # The first moment is a tenth of the gradient: unlike a step of Adam it shows a wrong scale.
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
