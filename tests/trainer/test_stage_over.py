"""When a stage is over: a table of rules, windows and limits."""

from __future__ import annotations

import pytest

from ratchet_api.stages import Stage
from ratchet_trainer.errors import GuardTripped, StageFailed
from ratchet_trainer.step.stage_over import ended_by, observed
from ratchet_trainer.step.state import StageState

NAN = float("nan")


def steps_until_end(
    advance: dict, metrics: list[float], start: int = 10, guards: tuple[dict, ...] = ()
) -> tuple[int, str] | tuple[int, str, str] | None:
    """Feeds one accuracy a step; the step at which the stage ended, by which rule, and that what follows waits."""
    spec = Stage.model_validate({"name": "s", "rl": {"dataset": "d"}, "advance": advance, "guards": list(guards)})
    stage = StageState(0, "s", "", start, 0)
    for step, value in enumerate(metrics, start + 1):
        stage = observed(stage, spec, {"train/accuracy": value, "train/loss": 1 - value})
        if (ended := ended_by(stage, spec, step)) is not None:
            return (step, ended.rule, "needs approval") if ended.needs_approval else (step, ended.rule)
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


@pytest.mark.parametrize(
    ("when", "metrics", "step"),
    [
        ({"plateau": {"patience": 3}}, [0.1, 0.2, 0.3, 0.3, 0.2, 0.3], 16),
        ({"plateau": {"patience": 3, "minDelta": "0.15"}}, [0.1, 0.2, 0.2, 0.2], 14),
        ({"plateau": {"patience": 2}, "window": 2}, [0.0, 0.4, 0.2, 0.2, 0.2], 15),
        ({"plateau": {"patience": 3}}, [0.3, NAN, 0.3, 0.3, 0.3], None),
        ({"stall": {"patience": 3}}, [0.5, 0.2, 0.2, 0.2], 14),
        ({"stall": {"patience": 3, "minDelta": "0.3"}}, [0.5, 0.2, 0.4], 13),
        ({"stall": {"patience": 3}}, [0.2, 0.2], None),
    ],
)
def test_a_metric_that_no_longer_moves_ends_a_stage(when: dict, metrics: list[float], step: int | None) -> None:
    ended = steps_until_end({"steps": 99, "when": [{"metric": "accuracy", **when}]}, metrics)
    assert (ended[0] if ended else None) == step


def test_a_guard_fails_the_stage_ends_it_or_asks_for_approval() -> None:
    guard = {"metric": "accuracy", "atMost": "0.1", "window": 2}
    with pytest.raises(GuardTripped, match=r"step 13: guard train/accuracy <= 0.1 over 2 tripped"):
        steps_until_end({"steps": 9}, [1, 0, 0], guards=(guard,))
    for action, waits in (("Advance", ()), ("Approval", ("needs approval",))):
        ended = steps_until_end({"steps": 9}, [1, 0, 0], guards=({**guard, "action": action},))
        assert ended == (13, "guard train/accuracy <= 0.1 over 2", *waits)


def test_what_waits_for_an_approval_says_so() -> None:
    rule = {"metric": "accuracy", "atLeast": "0.9"}
    limit = {"steps": 2, "when": [rule], "atLimit": "Approval"}
    assert steps_until_end(limit, [0, 0]) == (12, "steps 2", "needs approval")
    assert steps_until_end(limit, [1]) == (11, "train/accuracy >= 0.9 over 1")
    assert steps_until_end({"steps": 1, "approval": "Manual"}, [0]) == (11, "steps 1", "needs approval")
