"""How `bench/learning.py` counts errors of values, and that the watched trainer says what states are worth."""

from __future__ import annotations

import sys
from math import isclose, sqrt
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from measuring.experiments import Experiment, shape
from measuring.learning_runs import learn
from measuring.noisy_chain import Chain
from measuring.values_error import bias_table, by_step, error_table, mean_error, squared_error

LINES = [
    {"step": 1, "states": [[0, 0.5, 0.25, 1], [-1, 0.5, 0.0, 1]]},
    {"step": 2, "states": [[0, 1.0, 0.25, 2]]},
    {"step": 1, "states": [[0, 0.25, 0.25, 1], [0, 0.75, 0.25, 3], [2, 1.0, 1.0, 1]]},
]


def test_a_step_that_was_made_again_counts_once() -> None:
    values = by_step(LINES)
    assert values[1] == [(0, 0.25, 0.25, 1), (0, 0.75, 0.25, 3), (2, 1.0, 1.0, 1)]
    assert squared_error(values, 1, 1) == 3 * 0.25 / 5
    assert squared_error(values, 1, 2) == (3 * 0.25 + 2 * 0.5625) / 7
    assert squared_error(values, 3, 9) is None


def test_the_mean_error_comes_with_its_deviation() -> None:
    mean, deviation = mean_error([(0, 0.25, 0.25, 1), (0, 0.75, 0.25, 3)])
    assert mean == 0.25
    assert isclose(deviation, sqrt(2 * 0.25**2 / 1 / 2))


def test_tables_have_a_row_for_each_number_of_right_steps_that_was_seen_twice() -> None:
    runs = {"vineppo": [by_step(LINES)]}
    _, _, row = bias_table(runs, Chain(2, 0.5))
    assert row == "| vineppo | 0 | 2 | 0.250 | 0.250 | 0.500 | +0.250 +- 0.250 |"
    header, _, row = error_table(runs)
    assert header.startswith("| variant | runs | step 1 | steps 2-5 |")
    assert row.startswith("| vineppo | 1 | 0.1500 [0.1500, 0.1500] | 0.5625 [0.5625, 0.5625] | - |")


@pytest.mark.soak
def test_the_watched_trainer_says_what_states_are_worth(tmp_path: Path) -> None:
    vine = {"steps": "tokens", "stepTokens": 1, "continuations": 9}
    variants = {"ppo": {"method": "ppo"}, "vineppo": {"method": "vineppo", "advantage": {"vine": vine}}}
    task = Experiment("trial", "", Chain(2, 0.6), shape(8, 8), variants, 0.5, steps=1, items=100, values=True)
    found = {name: learn(task, name, 0, tmp_path, imitated=200)["values"][1] for name in variants}
    worth = {name: sorted((done, value, rows) for done, _, value, rows in states) for name, states in found.items()}
    assert worth["ppo"] == worth["vineppo"], "both begin with the same weights and sample the same responses"
    assert {said for _, said, *_ in found["ppo"]} == {0.0}, "a new critic expects nothing"
    starts = [value for done, _, value, _ in found["vineppo"] if done == 0]
    assert abs(sum(starts) / len(starts) - 0.36) < 0.09
    mean, deviation = mean_error(found["vineppo"])
    assert abs(mean) < 4 * deviation
