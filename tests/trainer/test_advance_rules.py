"""When a stage is over: a table of rules, windows and limits."""

from __future__ import annotations

import pytest

from ratchet_api.stages import Advance
from ratchet_trainer.errors import StageFailed
from ratchet_trainer.step.advance import ended_by, observed
from ratchet_trainer.step.state import StageState

NAN = float("nan")


def steps_until_end(advance: dict, metrics: list[float], start: int = 10) -> tuple[int, str] | None:
    """Feeds one accuracy a step; the step at which the stage ended and by which rule."""
    rules = Advance.model_validate(advance)
    stage = StageState(0, "s", "", start, 0)
    for step, value in enumerate(metrics, start + 1):
        stage = observed(stage, rules, {"train/accuracy": value, "train/loss": 1 - value})
        if (rule := ended_by(stage, rules, step)) is not None:
            return step, rule
    return None


@pytest.mark.parametrize(
    ("advance", "metrics", "expected"),
    [
        ({"steps": 3}, [0] * 5, (13, "steps 3")),
        (
            {"steps": 9, "when": [{"metric": "accuracy", "atLeast": "0.5"}]},
            [0, 0.5],
            (12, "train/accuracy >= 0.5 over 1"),
        ),
        (
            {"steps": 9, "when": [{"metric": "accuracy", "atLeast": "0.5", "window": 3}]},
            [1, 1, 0, 0.25, 1, 1],
            (13, "train/accuracy >= 0.5 over 3"),
        ),
        ({"steps": 9, "when": [{"metric": "accuracy", "atLeast": "0.9", "window": 3}]}, [1, 1], None),
        ({"steps": 9, "when": [{"metric": "loss", "atMost": "0.2"}]}, [0.5, 0.9], (12, "train/loss <= 0.2 over 1")),
        (
            {"steps": 9, "minSteps": 4, "when": [{"metric": "accuracy", "atLeast": "0.5"}]},
            [1] * 6,
            (14, "train/accuracy >= 0.5 over 1"),
        ),
        (
            {
                "steps": 9,
                "when": [{"metric": "loss", "atMost": "0.5"}, {"metric": "accuracy", "atLeast": "0.5"}],
            },
            [1],
            (11, "train/loss <= 0.5 over 1"),
        ),
        (
            {"steps": 9, "when": [{"metric": "accuracy", "atLeast": "0.1", "window": 2}]},
            [NAN, 1, 1],
            (13, "train/accuracy >= 0.1 over 2"),
        ),
        ({"steps": 2, "when": [{"metric": "accuracy", "atLeast": "0.9"}]}, [0, 0], (12, "steps 2")),
    ],
)
def test_rules(advance: dict, metrics: list[float], expected: tuple[int, str] | None) -> None:
    assert steps_until_end(advance, metrics) == expected


def test_two_rules_on_one_metric_have_windows_of_their_own() -> None:
    when = [
        {"metric": "accuracy", "atLeast": "0.9", "window": 4},
        {"metric": "train/accuracy", "atMost": "0.1", "window": 2},
    ]
    assert steps_until_end({"steps": 99, "when": when}, [1, 1, 0, 0]) == (14, "train/accuracy <= 0.1 over 2")
    assert steps_until_end({"steps": 99, "when": when}, [0, 1, 1, 1, 1]) == (15, "train/accuracy >= 0.9 over 4")


def test_a_limit_fails_where_the_manifest_says_so() -> None:
    advance = {"steps": 2, "when": [{"metric": "accuracy", "atLeast": "0.9"}], "atLimit": "Fail"}
    with pytest.raises(StageFailed, match=r"stage s made its 2 steps.*train/accuracy >= 0.9 over 1"):
        steps_until_end(advance, [0, 0])
    assert steps_until_end(advance, [0, 1]) == (12, "train/accuracy >= 0.9 over 1")
