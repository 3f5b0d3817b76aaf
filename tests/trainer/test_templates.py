"""Templates: who answers what, what is compared, and runs that nobody can tell were left."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from drawing_path import rl
from expanding import Expanding
from same_end import left_anywhere

from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.methods import resolve
from ratchet_trainer.algorithm.slots import ModelOutputs
from ratchet_trainer.algorithm.types import Draw, Request, grouped
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.learning.learner import Learner
from ratchet_trainer.rollout.engine import Shape
from ratchet_trainer.run import Run, run

TEMPLATES = [{"name": "plain", "text": "{question}"}, {"name": "polite", "text": "Please: {question}"}]


def settings(**expansion: Any) -> dict[str, Any]:
    return {"method": "template-rl", "expansion": {"templates": TEMPLATES, **expansion}}


def template(request: Request) -> int:
    return request.tag - 1


def test_each_template_gets_its_share_of_every_draw() -> None:
    path = Expanding({**settings(), "prompts": 3, "group_size": 4}, lambda r, s: template(r) == 0 or s == 3)
    samples = path.advance()
    (asked,) = path.asked
    assert [(r.draw.ordinal, r.tag, r.first, r.n) for r in asked] == [
        (0, 1, 0, 2), (0, 2, 2, 2), (1, 1, 0, 2), (1, 2, 2, 2), (2, 1, 0, 2), (2, 2, 2, 2)
    ]  # fmt: skip
    assert {r.edit for r in asked} == {"template:{question}", "template:Please: {question}"}
    assert {r.purpose for r in asked} == {Purpose.TRAIN}
    assert [g.draw.ordinal for g in samples.trained] == [0, 1, 2], "one group a draw"
    assert [[r.sample for r in g.rollouts] for g in samples.trained] == [[0, 1, 2, 3]] * 3
    assert path.metrics() == {"template/plain/accuracy": 1.0, "template/polite/accuracy": 0.5}


def test_requests_of_one_draw_become_one_group() -> None:
    requests = [Request(Draw(0, 7), Purpose.TRAIN, 1), Request(Draw(0, 7), Purpose.TRAIN, 2, first=1)]
    requests.append(Request(Draw(1, 7), Purpose.TRAIN, 1))
    groups = grouped(requests, ["a", "b", "c", "d"])  # type: ignore[list-item]
    assert [(g.draw.ordinal, g.rollouts) for g in groups] == [(0, ("a", "b", "c")), (1, ("d",))]


@pytest.mark.parametrize(
    ("baseline", "right", "expected", "fate"),
    [
        # Advantages over the deviation with n - 1: of four with three right, and of two with one right.
        ("pooled", [1, 1, 1, 0], [0.5, 0.5, 0.5, -1.5], "trained"),
        ("perTemplate", [1, 1, 1, 0], [0.0, 0.0, 0.5**0.5, -(0.5**0.5)], "trained"),
        ("pooled", [1, 1, 0, 0], [0.75**0.5, 0.75**0.5, -(0.75**0.5), -(0.75**0.5)], "trained"),
        ("perTemplate", [1, 1, 0, 0], [0.0] * 4, "all_wrong"),
    ],
)
def test_a_response_is_compared_with_all_or_with_its_templates(
    baseline: str, right: list[int], expected: list[float], fate: str
) -> None:
    path = Expanding({**settings(baseline=baseline), "prompts": 1, "group_size": 4}, lambda r, s: bool(right[s]))
    samples = path.advance()
    rounds = path.method.advantage.assign(samples.trained, ModelOutputs(), path.context)
    with pytest.raises(StopIteration) as stop:
        next(rounds)
    np.testing.assert_allclose(stop.value.value.advantages[:, 0], expected, rtol=1e-5)
    assert path.method.advantage.disposition(samples.trained[0]).disposition == fate


def test_without_templates_nothing_is_split() -> None:
    assert not resolve(rl(method="grpo")).advantage.by_tag  # type: ignore[attr-defined]


STAGES = {
    "pooled": settings() | {"updatesPerStep": 2, "maxPromptTokens": 34, "temperature": "1.5"},
    "perTemplate": settings(baseline="perTemplate") | {"maxPromptTokens": 34, "temperature": "1.5"},
}


@pytest.mark.parametrize("kind", STAGES)
def test_prompts_are_trained_on_as_they_were_shown(kind: str, after_warm_up: Any, monkeypatch: Any) -> None:
    seen: list[Any] = []
    layouts: set[Any] = set()
    batch, update = Run.batch, Learner.update

    def noted(self: Run, *arguments: Any) -> Any:
        seen.append(batch(self, *arguments))
        return seen[-1]

    def laid_out(self: Learner, *arguments: Any) -> Any:
        layouts.add(arguments[2])
        return update(self, *arguments)

    def preparing(self: Shape, sampler: Any, params: Any, samples: int, cut: Any) -> Any:
        prepared.add(samples)
        return programs(self, sampler, params, samples, cut)

    prepared: set[int] = set()
    programs = Shape.programs
    monkeypatch.setattr(Shape, "programs", preparing)
    monkeypatch.setattr(Run, "batch", noted)
    monkeypatch.setattr(Learner, "update", laid_out)
    runtime = after_warm_up(STAGES[kind])
    run(runtime)
    for found, (_, record, _) in zip(seen, runtime.steps, strict=True):
        assert found.drawn == len(found.samples.groups) == 4
        for group in found.samples.trained:
            polite = [r.trained_prompt.question.startswith("Please: ") for r in group.rollouts]
            assert polite == [False, False, True, True]
            assert all(r.prompt == r.trained_prompt for r in group.rollouts)
        both = [record[f"template/{name}/accuracy"] for name in ("plain", "polite")]
        assert record["train/accuracy"] == pytest.approx(sum(both) / 2)
    assert {layout.samples for layout in layouts} == {2}, "the two rows of a prompt share it"
    assert prepared == {2}, "nothing is compiled for whole groups, which no prompt gets"
    control = runtime.commits[-1][2]
    assert control["nextOrdinal"] == control["selection"]["accounted"] == 8


def test_left_at_any_safe_point_without_a_trace(after_warm_up: Any) -> None:
    assert left_anywhere(partial(after_warm_up, STAGES["pooled"]))


def test_a_template_that_makes_prompts_too_long_is_found_before_the_first_step(after_warm_up: Any) -> None:
    with pytest.raises(ConfigurationInvalid) as raised:
        run(after_warm_up({**STAGES["pooled"], "maxPromptTokens": 20}))
    assert "10 of 10 items are too long with what expansion adds to their prompts" in str(raised.value)
    assert "shorten the hints or templates" in str(raised.value)
