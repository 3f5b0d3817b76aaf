"""Whole runs with each selection: scoring is counted and compiled ahead, and nobody can tell where a run was left."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from compiling import compiled_in
from same_end import left_anywhere

from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.errors import Drain
from ratchet_trainer.rollout.sampler import Sampler
from ratchet_trainer.run import Run, run

STAGES = {
    "lilo": {"method": "lilo", "selection": {"candidates": 6, "rollouts": 2}, "updatesPerStep": 2},
    "reuse": {"method": "grpo", "selection": {"kind": "learnability", "reuse": True}, "updatesPerStep": 2},
    "sfl": {
        "method": "sfl",
        "updatesPerStep": 2,
        "selection": {"candidates": 6, "rollouts": 3, "buffer": {"everySteps": 2, "size": 3}},
    },
    "srpo": {"method": "srpo", "updatesPerStep": 2, "selection": {"dropUnsolvedAfter": 2}},
    "band": {"selection": {"kind": "difficultyBand"}},
}
SCORED = {"lilo": [12, 12], "reuse": [64, 64], "sfl": [18, 0]}


@pytest.fixture
def samples(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What every step sampled."""
    seen: list[Any] = []
    batch = Run.batch

    def noted(self: Run, *arguments: Any) -> Any:
        found = batch(self, *arguments)
        seen.append(found.samples)
        return found

    monkeypatch.setattr(Run, "batch", noted)
    return seen


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The purpose of every call of the sampler that began afresh."""
    found: list[int] = []
    start = Sampler.start

    def spied(self: Sampler, params: Any, seed: Any, prompts: Any, words: Any, *rest: Any) -> Any:
        found.append(int(words[0][0]))
        return start(self, params, seed, prompts, words, *rest)

    monkeypatch.setattr(Sampler, "start", spied)
    return found


@pytest.mark.parametrize("kind", STAGES)
def test_every_draw_has_a_disposition_and_what_was_scored_is_in_the_metrics(kind, after_warm_up, samples) -> None:
    runtime = after_warm_up(STAGES[kind])
    run(runtime)
    for step, (found, (_, record, timing)) in enumerate(zip(samples, runtime.steps, strict=True)):
        assert len(found.trained) == 4
        assert all(g.disposition is not None for g in found.groups)
        assert record.get("train/scored_rollouts") == (SCORED[kind][step] if kind in SCORED else None)
        assert ("train/active_items" in record) == ("train/exhausted" in record) == (kind in ("srpo", "band"))
        kept = sum(len(r.response) for g in found.groups for r in g.rollouts)
        assert timing["generatedTokens"] >= kept
        assert (timing["generatedTokens"] > kept) == (kind == "lilo"), "what chose a candidate is thrown away"
    ordinals = [g.draw.ordinal for found in samples for g in found.groups]
    assert ordinals == list(range(len(ordinals)))
    control = runtime.commits[-1][2]
    assert control["nextOrdinal"] == control["selection"]["accounted"] == len(ordinals)


def test_scored_groups_that_are_reused_are_the_batch(after_warm_up, samples, calls) -> None:
    run(after_warm_up(STAGES["reuse"]))
    assert set(calls) == {Purpose.SCORE}
    for found in samples:
        assert {r.request.purpose for r in found.rollouts} == {Purpose.SCORE}
        assert len(found.rollouts) == 16


@pytest.mark.parametrize("kind", ["lilo", "sfl"])
def test_nothing_is_compiled_in_a_step(kind, after_warm_up, monkeypatch) -> None:
    runtime = after_warm_up(STAGES[kind])
    compiled, batches = compiled_in(monkeypatch, "batch")
    run(runtime)
    assert compiled, "it would have been heard"
    assert not any(batches), "scoring has its programs"


@pytest.mark.parametrize("kind", STAGES)
def test_left_at_any_safe_point_without_a_trace(kind, after_warm_up) -> None:
    assert left_anywhere(partial(after_warm_up, STAGES[kind]))


def test_finished_candidates_are_not_answered_again(after_warm_up, calls, tmp_path) -> None:
    straight = after_warm_up(STAGES["lilo"])
    run(straight)
    assert calls == [Purpose.SCORE, Purpose.SCORE, Purpose.TRAIN] * 2, "six candidates take two calls of four prompts"
    found = set()
    for point in range(1, straight.safe_points):
        calls.clear()
        first = after_warm_up(STAGES["lilo"], drain_at=point, rollouts=tmp_path / str(point), to_finish=0.0)
        with pytest.raises(Drain):
            run(first)
        if first.steps or first.drained[0] not in ("generate", "verify"):
            continue
        found.add(len(calls))
        second = after_warm_up(STAGES["lilo"], commits=first.commits, rollouts=tmp_path / str(point))
        run(second)
        assert len(calls) == 6, "each is begun once"
        assert second.stream == straight.stream
    assert found >= {1, 2, 3}, "left while scoring, after it, and while answering"
