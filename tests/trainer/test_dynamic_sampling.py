"""Dynamic sampling: which groups a step trains on, what becomes of the others, and what is carried over a restart."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from expanding import Expanding, by_count, ordinals
from same_end import left_anywhere

from ratchet_trainer.algorithm.expansion.dynamic_sampling import carried
from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.types import grouped
from ratchet_trainer.errors import Drain
from ratchet_trainer.learning.learner import Learner
from ratchet_trainer.rollout.sampler import Sampler
from ratchet_trainer.run import Run, run

# Worked numbers

DAPO_4 = [8, 3, 0, 5, 1, 8, 7, 0]  # right of 8, prompts 0 to 7


def dapo(right: list[int | None], prompts: int = 3, **knobs: Any) -> Expanding:
    settings = {"method": "dapo", "prompts": prompts, "group_size": 8}
    return Expanding(settings | ({"expansion": knobs} if knobs else {}), by_count(dict(enumerate(right))))


def fates(samples: Any) -> dict[int, str | None]:
    return {g.draw.ordinal: g.disposition for g in samples.groups}


@pytest.mark.parametrize(("surplus", "fate"), [(None, "dropped"), ("drop", "dropped"), ("carry", "carried")])
def test_rounds_go_on_until_the_batch_is_full(surplus: str | None, fate: str) -> None:
    path = dapo(DAPO_4, promptsPerRound=4, **({"surplus": surplus} if surplus else {}))
    samples = path.advance(4)
    assert ordinals(samples.trained) == [1, 3, 4]
    assert [len(asked) for asked in path.asked] == [4, 4], "two rounds, eight prompts"
    right_and_wrong = {0: "all_right", 2: "all_wrong", 5: "all_right", 7: "all_wrong"}
    assert fates(samples) == {1: None, 3: None, 4: None, 6: fate} | right_and_wrong
    assert path.metrics() == {
        "train/rounds": 2, "train/dropped_right": 2, "train/dropped_wrong": 2, "train/surplus": 1
    }  # fmt: skip
    assert ordinals(carried(path.state)) == ([6] if fate == "carried" else [])


def test_a_full_first_round_asks_for_no_other() -> None:
    path = dapo([1, 7, 4])
    assert ordinals(path.advance().trained) == [0, 1, 2]
    assert len(path.asked) == 1


def test_after_the_last_round_it_trains_on_what_there_is() -> None:
    path = dapo([0] * 5 + [1] + [8] * 20, maxRounds=3)
    samples = path.advance()
    assert ordinals(samples.trained) == [5]
    assert len(samples.groups) == 9
    assert path.metrics()["train/rounds"] == 3
    assert ordinals(dapo([0] * 30).advance().trained) == []
    nothing = dapo([0] * 30)
    nothing.advance()
    assert len(nothing.asked) == 10, "verl's max_num_gen_batches"


def test_what_no_verifier_answered_is_no_wrong_answer() -> None:
    samples = dapo([None, 3, 3, None, 3, 4]).advance()
    assert ordinals(samples.trained) == [1, 2, 4]
    assert fates(samples) == {0: "failed", 1: None, 2: None, 3: "failed", 4: None, 5: "dropped"}


def test_a_reward_for_form_hides_no_group_that_is_all_wrong() -> None:
    """TMPL-1: the test reads accuracy, not the sum of the rewards."""
    form = {"name": "form", "length": {"kind": "cosine"}}
    path = Expanding(
        {"method": "dapo", "prompts": 1, "group_size": 4, "rewards": [{"name": "accuracy"}, form]},
        by_count({0: 0, 1: 2}),
    )
    samples = path.advance()
    assert ordinals(samples.trained) == [1]
    assert fates(samples) == {0: "all_wrong", 1: None}


def test_carried_groups_come_first_and_keep_their_probabilities_and_version() -> None:
    path = dapo([*DAPO_4, *[4] * 12], promptsPerRound=4, surplus="carry")
    path.advance(4)
    straight, again = path, path.restarted()
    for one in (straight, again):
        samples = one.advance(4)
        assert ordinals(samples.trained) == [6, 8, 9]
        (old,) = {tuple(r.old_logp) for r in samples.trained[0].rollouts}
        assert old == (-2.0,)
        assert [g.rollouts[0].version for g in samples.trained] == [0, 1, 1]
        assert {r.old_logp for g in samples.trained[1:] for r in g.rollouts} == {None}
        assert fates(samples) == {6: None, 8: None, 9: None, 10: "carried", 11: "carried"}
    assert straight.state.plain == again.state.plain
    json.dumps(straight.state.plain)


def test_what_is_carried_is_at_most_one_step_old_and_every_draw_gets_one_fate() -> None:
    path = dapo([*[3] * 400], prompts=3, promptsPerRound=8, surplus="carry")
    ends: dict[int, list[str]] = {}
    for step in range(1, 20):
        samples = path.advance(8)
        assert len(samples.trained) == 3
        assert all(step - 2 <= r.version for r in samples.rollouts)
        for group in samples.groups:
            if group.disposition != "carried":
                ends.setdefault(group.draw.ordinal, []).append(group.disposition or "trained")
        path = path.restarted()
    waiting = set(ordinals(carried(path.state)))
    assert {len(found) for found in ends.values()} == {1}
    assert ends.keys() | waiting == set(range(path.next_ordinal))
    assert not ends.keys() & waiting


def test_the_last_step_of_a_stage_carries_nothing() -> None:
    path = dapo([*[3] * 400], prompts=3, surplus="carry")
    rounds = [path.drawn(8) for _ in range(2)]
    for step, requests, fate in zip((104, 105), rounds, ("carried", "dropped"), strict=True):
        groups = [path.reward(g) for g in grouped(requests, path.answered(requests))]
        ctx = replace(path.context, start_step=100, step=step, steps=5)
        with pytest.raises(StopIteration) as stop:
            next(path.method.expansion.run(path.state, groups, path.drawn, path.reward, ctx))
        _, samples = stop.value.value
        assert samples.dropped[0].disposition == fate


# Whole runs

STAGES = {
    "drop": {"method": "dapo", "updatesPerStep": 2, "expansion": {"maxRounds": 3}},
    "carry": {"method": "dapo", "expansion": {"surplus": "carry", "promptsPerRound": 8, "maxRounds": 4}},
    "carry, two updates": {
        "method": "dapo",
        "updatesPerStep": 2,
        "expansion": {"surplus": "carry", "promptsPerRound": 7, "maxRounds": 3},
    },
}


@pytest.fixture
def samples(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What every step sampled."""
    seen: list[Any] = []
    batch = Run.batch

    def noted(self: Run, *arguments: Any) -> Any:
        found = batch(self, *arguments)
        seen.append(found)
        return found

    monkeypatch.setattr(Run, "batch", noted)
    return seen


@pytest.mark.parametrize("kind", STAGES)
def test_every_draw_has_one_disposition(kind: str, after_warm_up: Any, samples: list[Any]) -> None:
    stage = {"temperature": "1.5", **STAGES[kind]}
    runtime = after_warm_up(stage)
    run(runtime)
    assert samples
    seen: list[int] = []
    for found, (_, record, _) in zip(samples, runtime.steps, strict=True):
        for group in found.samples.trained:
            assert 0 < sum(r.outcome.accuracy for r in group.rollouts) < 4
        seen += [g.draw.ordinal for g in found.samples.groups if g.disposition != "carried"]
        assert 1 <= record["train/rounds"] <= stage["expansion"]["maxRounds"]
        counts = [g.disposition for g in found.samples.dropped]
        assert record["train/dropped_wrong"] == counts.count("all_wrong")
        assert record["train/dropped_right"] == counts.count("all_right")
        assert record["train/surplus"] == counts.count("carried") + counts.count("dropped")
    if kind == "drop":
        assert any(record["train/rounds"] > 1 for _, record, _ in runtime.steps), "there was something to draw for"
    else:
        assert any(g.disposition == "carried" for found in samples for g in found.samples.dropped)
    control = runtime.commits[-1][2]
    waiting = [g["draw"]["ordinal"] for g in control["expansion"].get("carried", {"groups": []})["groups"]]
    assert sorted(seen + waiting) == list(range(control["nextOrdinal"]))
    assert control["selection"]["accounted"] == control["nextOrdinal"] - len(waiting)


def test_a_carried_group_is_trained_with_what_the_trainer_said_under_the_weights_that_sampled_it(
    after_warm_up: Any, samples: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    olds: list[Any] = []
    update = Learner.update

    def noted(self: Learner, *arguments: Any) -> Any:
        olds.append((arguments[2], arguments[3], np.asarray(arguments[5])))
        return update(self, *arguments)

    monkeypatch.setattr(Learner, "update", noted)
    runtime = after_warm_up({"temperature": "1.5", **STAGES["carry"]})
    run(runtime)
    first, second = (found.samples for found in samples)
    waiting = [g for g in first.dropped if g.disposition == "carried"]
    assert waiting, "something was carried"
    assert ordinals(second.trained)[: len(waiting)] == ordinals(waiting)
    layout, rows, old = olds[-1]
    said = layout.of_rows(old, rows)
    fresh = 0
    for row, rollout in enumerate(second.rollouts):
        length = len(rollout.response)
        gap = np.abs(said[row, :length] - rollout.behaviour_logp).max()
        assert gap < 1e-4, "the sampler had the same weights"
        if rollout.old_logp is not None:
            np.testing.assert_array_equal(np.float32(said[row, :length]), rollout.old_logp)
            fresh += 1
    assert fresh == 4 * len(waiting)
    assert runtime.steps[-1][2]["oldGap"] > 1e-4, "the policy has moved since, and that is no error"
    assert runtime.steps[-1][1]["train/logprob_mismatch"] < 1e-4, "nor does it count as the sampler's error"
    assert runtime.steps[-1][1]["train/importance_ratio"] == pytest.approx(1.0, abs=1e-4)
    assert runtime.steps[-1][2]["samplerGap"] < 1e-4


def test_left_at_any_safe_point_without_a_trace(after_warm_up: Any) -> None:
    phases = left_anywhere(partial(after_warm_up, {"temperature": "1.5", **STAGES["carry, two updates"]}))
    assert {"generate", "verify", "update"} <= set(phases)


def test_rounds_that_were_made_are_not_made_again(after_warm_up: Any, monkeypatch: Any, tmp_path: Any) -> None:
    calls: list[int] = []
    start = Sampler.start

    def spied(self: Sampler, params: Any, seed: Any, prompts: Any, words: Any, *rest: Any) -> Any:
        calls.append(int(words[0][0]))
        return start(self, params, seed, prompts, words, *rest)

    monkeypatch.setattr(Sampler, "start", spied)
    stage = {"temperature": "1.5", **STAGES["drop"]}
    straight = after_warm_up(stage)
    run(straight)
    expected = list(calls)
    assert set(expected) == {Purpose.TRAIN}
    between = 0
    for point in range(1, straight.safe_points):
        calls.clear()
        first = after_warm_up(stage, drain_at=point, rollouts=tmp_path / str(point), to_finish=0.0)
        with pytest.raises(Drain):
            run(first)
        if first.steps or first.drained[0] not in ("generate", "verify"):
            continue
        between += len(calls) > 1
        second = after_warm_up(stage, commits=first.commits, rollouts=tmp_path / str(point))
        run(second)
        assert len(calls) == len(expected), "each is begun once"
        assert second.stream == straight.stream
    assert between, "it was left between two rounds of generation"
