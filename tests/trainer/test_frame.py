"""What a method may do with the frame: change prompts, go on from prefixes, drop groups, keep arrays; bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest
from same_end import same
from squares import SMALL

from ratchet_api.stages import Optimizer, Rl
from ratchet_trainer.algorithm import keys, methods
from ratchet_trainer.algorithm.advantage.group import token_advantages
from ratchet_trainer.algorithm.expansion.none import NoExpansion
from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.slots import Context, SlotState
from ratchet_trainer.algorithm.types import Group, Request, Rollout, StepSamples
from ratchet_trainer.errors import Drain
from ratchet_trainer.learning import learner as learner_module
from ratchet_trainer.learning import optimizer
from ratchet_trainer.learning.learner import Layout, Learner, Row
from ratchet_trainer.model.policy import Policy
from ratchet_trainer.process import distributed
from ratchet_trainer.rollout.engine import slots
from ratchet_trainer.rollout.sampler import Sampler
from ratchet_trainer.run import run
from ratchet_trainer.step.old_logprobs import mini_batches

HINT = "template:{question} Answer with one number. "


class Base(NoExpansion):
    """An expansion that trains on what was drawn; tests replace parts of it."""

    def init(self, ctx: Context) -> SlotState:
        return SlotState({"rounds": 0}, {"seen": np.zeros(10, np.int64)})


class Asks(Base):
    """Samples each group's last response anew: from a hint, trained on the plain prompt, or from a prefix that it took
    from the first. Draws two prompts more and drops the groups that teach nothing, all but one. Counts items."""

    def run(self, e: SlotState, groups: list[Group], more: Any, reward: Any, ctx: Context) -> Iterator[Any]:
        further = more(2)
        sampled = yield further
        groups = [*groups, *(reward(g) for g in grouped(further, sampled))]
        asked = [hinted(g) if i % 2 else continued(g) for i, g in enumerate(groups)]
        sampled = yield asked
        changed = [reward(replace(g, rollouts=(*g.rollouts[:-1], r))) for g, r in zip(groups, sampled, strict=True)]
        trained = [g for g in changed if g.informative][: ctx.rl.prompts_per_step] or changed[:1]
        dropped = [replace(g, disposition="dropped") for g in changed if g not in trained]
        seen = e.arrays["seen"].copy()
        for group in changed:
            seen[group.draw.item] += 1
        e = SlotState({"rounds": e.plain["rounds"] + 1}, {"seen": seen})
        return e, StepSamples(tuple(trained), tuple(dropped))


class DropsAll(Base):
    def run(self, e: SlotState, groups: list[Group], more: Any, reward: Any, ctx: Context) -> Iterator[Any]:
        return e, StepSamples((), tuple(replace(g, disposition="dropped") for g in groups))
        yield


class Mixes(Base):
    """Trains on prompts as they were sampled from: two in one group."""

    def run(self, e: SlotState, groups: list[Group], more: Any, reward: Any, ctx: Context) -> Iterator[Any]:
        sampled = yield [replace(hinted(g), train_plain=False) for g in groups]
        mixed = [replace(g, rollouts=(*g.rollouts[:-1], r)) for g, r in zip(groups, sampled, strict=True)]
        return e, StepSamples(tuple(map(reward, mixed)))


def hinted(group: Group) -> Request:
    return Request(group.draw, Purpose.HINT, 1, first=3, edit=HINT, train_plain=True)


def continued(group: Group) -> Request:
    return Request(group.draw, Purpose.HINT, 1, first=3, tag=1, prefix=group.rollouts[0].response[:2])


def grouped(requests: Sequence[Request], rollouts: Sequence[Rollout]) -> list[Group]:
    starts = np.cumsum([0, *(r.n for r in requests)])
    return [Group(r.draw, tuple(rollouts[at : at + r.n])) for r, at in zip(requests, starts, strict=False)]


@pytest.fixture
def trained_rows(monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """Every row that an update was made of."""
    rows: list[Row] = []
    update = Learner.update

    def noted(self: Learner, *arguments: Any) -> Any:
        rows.extend(arguments[3])
        return update(self, *arguments)

    monkeypatch.setattr(Learner, "update", noted)
    return rows


def put(monkeypatch: pytest.MonkeyPatch, expansion: type[Base]) -> None:
    """Makes the expansion the answer of a row of the table."""
    monkeypatch.setitem(methods.EXPANSION, "none", expansion)


def samples_of(monkeypatch: pytest.MonkeyPatch) -> list[StepSamples]:
    """What the selection is told of every step."""
    seen: list[StepSamples] = []
    selection = methods.SELECTION["uniform"]

    class Noted(selection):  # type: ignore[misc,valid-type]
        def observe(self, s: SlotState, samples: StepSamples, ctx: Context) -> SlotState:
            seen.append(samples)
            return super().observe(s, samples, ctx)

    monkeypatch.setitem(methods.SELECTION, "uniform", Noted)
    return seen


STAGE = {"updatesPerStep": 2, "maxPromptTokens": 60, "maxResponseTokens": 4, "kl": {"coefficient": "0.01"}}


def test_a_method_asks_for_more_changes_prompts_goes_on_and_drops(after_warm_up, monkeypatch, trained_rows) -> None:
    put(monkeypatch, Asks)
    seen = samples_of(monkeypatch)
    runtime = after_warm_up(STAGE)
    run(runtime)

    for step, (samples, (_, record, _)) in enumerate(zip(seen, runtime.steps[-2:], strict=True)):
        assert [g.draw.ordinal for g in samples.groups] == list(range(6 * step, 6 * step + 6)), "two further prompts"
        assert samples.dropped, "what is dropped reaches the selection"
        assert len(samples.trained) + len(samples.dropped) == 6
        assert {g.disposition for g in samples.dropped} == {"dropped"}
        firsts = [r.outcome.accuracy for g in samples.groups for r in g.rollouts if r.request.purpose == Purpose.TRAIN]
        assert record["train/accuracy"] == pytest.approx(sum(firsts) / len(firsts)), "of all that was drawn"
        assert record["train/informative"] == np.mean([g.informative for g in samples.groups])
    _, arrays, control, *_ = runtime.commits[-1]
    assert control["selection"]["accounted"] == 12
    assert control["expansion"] == {"rounds": 2}
    assert arrays["expansion/seen"].sum() == 12

    for rollout in (r for samples in seen for g in samples.groups for r in g.rollouts):
        request = rollout.request
        assert rollout.response[: rollout.forced] == request.prefix
        assert len(rollout.response) <= 4, "a prefix counts as part of the response"
        assert not rollout.behaviour_logp[: rollout.forced].any()
        assert (rollout.behaviour_logp[rollout.forced :] < 0).all()
        changed = request.edit is not None
        assert ("Answer with one number" in rollout.prompt.question) == changed
        assert "Answer with one number" not in rollout.trained_prompt.question
        assert (rollout.prompt.tokens != rollout.trained_prompt.tokens) == changed
    assert {len(row.prompt) for row in trained_rows} < set(range(1, 27)), "plain prompts are trained on"
    assert {row.forced for row in trained_rows} == {0, 2}


def test_such_a_method_is_left_anywhere_without_a_trace(after_warm_up, monkeypatch, tmp_path) -> None:
    put(monkeypatch, Asks)
    straight = after_warm_up(STAGE)
    run(straight)
    phases = set()
    for point in range(1, straight.safe_points + 1):
        first = after_warm_up(STAGE, drain_at=point, to_finish=0.0)
        with pytest.raises(Drain):
            run(first)
        phases.add(first.drained[0])
        second = after_warm_up(STAGE, commits=first.commits)
        run(second)
        same(second, straight, point)
    assert {"generate", "verify", "update"} <= phases


def test_a_sampler_that_raises_is_an_error_and_never_a_short_response(after_warm_up, monkeypatch) -> None:
    """What could not be sampled has no reward; taken for an early end it would teach the policy to say nothing."""
    runtime = after_warm_up(STAGE)
    known = len(runtime.commits)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the sampler is broken")

    monkeypatch.setattr(Sampler, "start", broken)
    monkeypatch.setattr(Sampler, "begin", broken)
    with pytest.raises(RuntimeError, match="the sampler is broken"):
        run(runtime)
    assert len(runtime.commits) == known, "no step was made of it"


def test_a_step_whose_groups_are_all_dropped_trains_nothing_and_counts(after_warm_up, monkeypatch) -> None:
    put(monkeypatch, DropsAll)
    runtime = after_warm_up(STAGE)
    before = runtime.commits[-1]
    run(runtime)
    _, arrays, control, *_ = runtime.commits[-1]
    assert control["step"] == before[0] + 2
    assert control["updates"] == before[2]["updates"]
    assert control["selection"]["accounted"] == 8
    for path in (p for p in arrays if p.startswith("params/")):
        np.testing.assert_array_equal(arrays[path], before[1][path])


def test_two_prompts_in_one_group_are_trained_each_on_its_own(after_warm_up, monkeypatch, trained_rows) -> None:
    put(monkeypatch, Mixes)
    straight = after_warm_up(STAGE)
    run(straight)
    assert len({row.prompt for row in trained_rows[:4]}) == 2
    first = after_warm_up(STAGE, drain_at=straight.safe_points, to_finish=0.0)
    with pytest.raises(Drain):
        run(first)
    assert "pending" in first.commits[-1][2], "it was left between two updates"
    second = after_warm_up(STAGE, commits=first.commits)
    run(second)
    same(second, straight)


def test_more_rollouts_than_fit_are_refused_and_fewer_are_padded() -> None:
    def rollouts(n: int) -> list[Any]:
        return [Rollout(*[None] * 2, type("P", (), {"tokens": (1,)})(), i, (1,), *[None] * 5) for i in range(n)]  # type: ignore[arg-type]

    with pytest.raises(ValueError, match="9 rollouts do not fit 2 updates of 4"):
        mini_batches(rollouts(9), 2, 4)
    parts = mini_batches(rollouts(5), 2, 4)
    assert [(part.place, len(part.rows)) for part in parts] == [(slice(0, 4), 4), (slice(4, 5), 1)]
    assert [part.place for part in mini_batches(rollouts(3), 2, 4)] == [slice(0, 3)]
    assert mini_batches([], 2, 4) == []


# Rows with forced tokens

PROMPT, PREFIX, REST = (1, 2, 3, 4), (5, 6), ((7, 8, 9), (9, 9), (7,))


@cache
def small_learner() -> Learner:
    return Learner(Policy(SMALL), distributed.one_device())


def learned(rows: list[Row], advantages: np.ndarray, **rl: Any) -> tuple[Any, dict[str, float]]:
    """New parameters and what the update reported."""
    objective = methods.resolve(Rl.model_validate({"dataset": "d", "maxResponseTokens": 5, **rl})).objective
    one = small_learner()
    params, state = one.init(keys.seed_words(3))
    layout = Layout.of(len(rows), 1, 1, slots(16), 5)
    numbers = optimizer.numbers(Optimizer(learningRate="0.001"), 0)
    params, _, found = one.update(params, state, layout, rows, advantages, None, 1.0, objective, numbers)
    return params, found


@pytest.mark.parametrize("method", ["grpo", "dr-grpo", "gspo", "cispo", "rloo"])
def test_forced_tokens_teach_nothing_as_if_they_were_part_of_the_prompt(method: str) -> None:
    forced = [Row(PROMPT, (*PREFIX, *rest), np.full(2 + len(rest), -1.0, np.float32), 2) for rest in REST]
    plain = [Row((*PROMPT, *PREFIX), rest, np.full(len(rest), -1.0, np.float32)) for rest in REST]
    of_rows = np.array([1.0, -0.5, 0.25])[:, None]
    params, found = learned(forced, np.broadcast_to(of_rows, (3, 5)).copy(), method=method)
    expected, wanted = learned(plain, np.broadcast_to(of_rows, (3, 5)).copy(), method=method)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    for leaf, other in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, other, atol=1e-4)


def test_forced_tokens_have_no_share_in_the_statistics_of_a_batch() -> None:
    lengths, forced = np.array([3, 1, 4, 2]), np.array([2, 0, 0, 1])
    found = token_advantages([[1.0, 0.0], [0.0, 1.0]], lengths, 5, "batch-whitened", 1e-6, forced)
    expected = token_advantages([[1.0, 0.0], [0.0, 1.0]], lengths - forced, 5, "batch-whitened", 1e-6)
    for row, at in enumerate(forced):
        assert not found[row, :at].any()
        np.testing.assert_array_equal(found[row, at:], expected[row, : 5 - at])


def test_rows_of_two_prompts_never_share_one() -> None:
    layout = Layout.of(4, 2, 1, 8, 5)
    rows = [Row(PROMPT, (1,)), Row(PROMPT, (2,)), Row(PROMPT, (3,)), Row((9,), (4,))]
    assert layout.samples == 2
    assert layout.first_misfit(rows) == 3
    with pytest.raises(ValueError, match="row 3 has another prompt than row 2"):
        layout.rows(rows)
    assert layout.one_by_one.rows(rows).responses.shape == (4, 1, 5)
    assert layout.first_misfit(rows[:3]) is None
    assert learner_module.token_weights(methods.resolve(Rl(dataset="d")).objective, rows, 5).shape == (4, 5)
