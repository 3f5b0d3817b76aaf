"""Values that are sampled: steps of a response, what each earns, whom a value is shared by, and whole runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiling import compiled_in
from same_end import left_anywhere

from ratchet_api.sampled_values import states
from ratchet_api.stages import Rl
from ratchet_trainer.algorithm.advantage.statistics import real_tokens, whitened
from ratchet_trainer.algorithm.advantage.steps import merged, step_starts
from ratchet_trainer.algorithm.advantage.vine import Vine, step_advantages
from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.methods import resolve
from ratchet_trainer.algorithm.slots import Context, ModelOutputs
from ratchet_trainer.algorithm.types import Batch, Draw, Group, Outcome, Request, Rollout
from ratchet_trainer.data.prompt import Prompt
from ratchet_trainer.data.tokenizer import BYTES, END
from ratchet_trainer.errors import Drain
from ratchet_trainer.rollout.engine import Shape
from ratchet_trainer.rollout.sampler import Sampler
from ratchet_trainer.run import Run, run

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
from measuring.noisy_chain import Chain

# Steps


def pieces(text: str, kind: str, size: int = 1, most: int = 99, forced: int = 0, end: bool = True) -> list[str]:
    """The steps of a response of that text, the token that ends it left out."""
    tokens = (*text.encode(), *([END] if end else []))
    starts = step_starts(tokens, forced, kind, size, most, BYTES.decode)
    return [
        BYTES.decode(tokens[a:b]) for a, b in zip(starts, [*starts[1:], len(tokens)], strict=True)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("lines", "a\nb\nc", ["a\n", "b\n", "c"]),
        ("lines", "a\n\n\nb", ["a\n", "\n\nb"]),
        ("lines", "\n\na\nb", ["\n\na\n", "b"]),
        ("lines", "a\nb\n \n", ["a\n", "b\n \n"]),
        ("lines", "abc", ["abc"]),
        ("lines", "", [""]),
        ("sentences", "So 3.14. Then? Yes!", ["So 3.14.", " Then?", " Yes!"]),
        ("sentences", 'He said "no." Then (yes.) x', ['He said "no."', " Then (yes.)", " x"]),
        ("sentences", "a\nb. c", ["a\n", "b.", " c"]),
        ("sentences", "a.\nb", ["a.", "\nb"]),
        ("tokens", "abcde", ["a", "b", "c", "d", "e"]),
        ("tokens", "a  b", ["a", "  b"]),
    ],
)
def test_a_response_is_split_where_its_text_says(kind: str, text: str, expected: list[str]) -> None:
    assert pieces(text, kind) == expected
    assert pieces(text, kind, end=False) == expected if text else True, "what ends a response is no step"


def test_tokens_are_counted_from_where_the_response_is_the_policys_own() -> None:
    assert pieces("abcdefgh", "tokens", 3) == ["abc", "def", "gh"]
    assert pieces("abcdefgh", "tokens", 3, forced=2) == ["cde", "fgh"]
    assert pieces("a\nb\nc", "lines", forced=2) == ["b\n", "c"]


def test_a_sentence_may_end_inside_of_a_token() -> None:
    words = {1: "One", 2: ". Two", 3: " is", 4: ".", 5: " 3", 6: "."}
    decode = lambda tokens: "".join(words[t] for t in tokens)  # noqa: E731
    assert step_starts((1, 2, 3, 4, 5, 6), 0, "sentences", 1, 99, decode) == [0, 2, 4]


def test_only_around_a_mark_more_than_a_token_is_read_at_a_time() -> None:
    """A long response would cost several decodings a token, of pieces that are all different."""
    read: list[tuple[int, ...]] = []

    def decode(tokens: tuple[int, ...]) -> str:
        read.append(tokens)
        return BYTES.decode(tokens)

    text = "no mark far and wide " * 20
    assert step_starts(tuple(f"{text}end. {text}".encode()), 0, "sentences", 1, 99, decode) == [0, len(text) + 4]
    assert sum(len(tokens) > 1 for tokens in read) <= 12


def test_of_too_many_steps_neighbours_are_merged_evenly() -> None:
    assert merged([0, 2, 4, 6, 8], 5) == [0, 2, 4, 6, 8]
    assert merged([0, 2, 4, 6, 8], 2) == [0, 6]
    assert merged(range(7), 3) == [0, 3, 5]
    assert merged(range(8), 4) == [0, 2, 4, 6]
    assert merged([5, 6, 7], 1) == [5]
    for n in range(1, 40):
        for most in range(1, n + 1):
            sizes = np.diff([*merged(range(n), most), n])
            assert len(sizes) == most
            assert sizes.max() - sizes.min() <= 1
    assert pieces("a\nb\nc\nd", "lines", most=2) == ["a\nb\n", "c\nd"]


# Numbers


@pytest.mark.parametrize(("reward", "earned"), [(1.0, [2 / 9, -3 / 9, 6 / 9]), (0.0, [2 / 9, -3 / 9, -3 / 9])])
def test_what_steps_earn_telescopes(reward: float, earned: list[float]) -> None:
    """VINE-1."""
    found = step_advantages([4 / 9, 6 / 9, 3 / 9], reward)
    assert found == pytest.approx(earned)
    assert sum(found) == pytest.approx(reward - 4 / 9)


def test_states_without_a_value_earn_nothing_and_leave_the_sum() -> None:
    """VINE-3."""
    found = step_advantages([4 / 9, 6 / 9, 3 / 9, None, None], 1.0)
    assert found == pytest.approx([2 / 9, -3 / 9, 6 / 9, 0, 0])
    assert step_advantages([None, 0.25, None, 0.5], 0.0) == pytest.approx([0, 0.25, 0, -0.5])


RL = Rl.model_validate({"dataset": "d", "method": "vineppo", "maxResponseTokens": 12})
CTX = Context(0, 1, 0, RL, decode=BYTES.decode)
NONE = np.zeros(0, np.float32)


def rollout(text: str, request: Request, right: float = 0.0, **changes: Any) -> Rollout:
    prompt = Prompt((1, request.draw.item), "", "", {})
    outcome = Outcome(right, right, status=changes.pop("status", "ok"))
    response = (*text.encode(), END)
    return replace(Rollout(request, prompt, prompt, 0, response, NONE, NONE, 0, "end", outcome), **changes)


def group(item: int, *texts: str, rewards: Sequence[float] = (), ordinal: int | None = None) -> Group:
    request = Request(Draw(item if ordinal is None else ordinal, item), Purpose.TRAIN, len(texts))
    rewards = tuple(rewards) or (0.0,) * len(texts)
    return Group(request.draw, tuple(rollout(t, request, w) for t, w in zip(texts, rewards, strict=True)), rewards)


def answered(slot: Vine, groups: list[Group], right: Any, ctx: Context = CTX) -> tuple[Batch, list[Request]]:
    """The batch where of the continuations from a prefix (as text) `right` say whether they are; what was asked."""
    rounds = slot.assign(groups, ModelOutputs(), ctx)
    requests = next(rounds)
    sampled = [
        rollout("", request, float(value is True), status="crash" if value is None else "ok", sample=i)
        for request in requests
        for i, value in enumerate(right(BYTES.decode(request.prefix)))
    ]
    with pytest.raises(StopIteration) as stop:
        rounds.send(sampled)
    return stop.value.value, list(requests)


def of(n: int, k: int = 9) -> list[bool]:
    return [True] * n + [False] * (k - n)


def test_every_token_of_a_step_earns_what_the_step_does_the_end_included() -> None:
    """VINE-2, then whitened over the batch: steps of 3, 2 and 4 tokens and the end."""
    texts = {"": of(4), "ab\n": of(6), "ab\nc\n": of(3)}
    batch, _ = answered(resolve(RL).advantage, [group(0, "ab\nc\nwxyz", rewards=[1.0])], texts.get)
    raw = np.zeros((1, 12))
    raw[0, :10] = [2 / 9] * 3 + [-3 / 9] * 2 + [6 / 9] * 5
    np.testing.assert_allclose(batch.advantages, whitened(raw, real_tokens(np.array([10]), 12)), atol=1e-12)
    assert (batch.returns, batch.values) == (None, None)


def test_a_state_is_asked_for_once_and_shared() -> None:
    """VINE-4: 64 prompts x 8 responses of 5 steps that share the prompt alone."""
    slot = replace(resolve(RL).advantage, most_steps=5)
    groups = [group(item, *(f"{i}\nb\nc\nd\ne" for i in range(8))) for item in range(64)]
    rollouts = [r for g in groups for r in g.rollouts]
    requests = slot.requests(rollouts, [slot.starts(r, BYTES.decode) for r in rollouts])
    assert len(requests) == 64 * (1 + 8 * 4) == 2112
    assert sum(r.n for r in requests.values()) == 19_008
    assert {r.purpose for r in requests.values()} == {Purpose.VALUE}
    assert len({(r.draw.ordinal, r.tag) for r in requests.values()}) == 2112, "no two have the same keys"
    bound = {"dataset": "d", "method": "vineppo", "promptsPerStep": 64, "advantage": {"vine": {"maxSteps": 5}}}
    assert states(Rl.model_validate(bound)) == 2112


def test_a_prompt_that_is_drawn_twice_is_valued_once_under_the_lower_ordinal() -> None:
    groups = [group(3, "a\nb", "a\nc", ordinal=8), group(3, "a\nb", "x", ordinal=6), group(4, "a\nb", ordinal=7)]
    _, requests = answered(resolve(RL).advantage, groups, lambda text: of(1))
    asked = {(r.draw.item, BYTES.decode(r.prefix)): r.draw.ordinal for r in requests}
    assert len(requests) == len(asked) == 4
    assert asked == {(3, ""): 6, (3, "a\n"): 6, (4, ""): 7, (4, "a\n"): 7}


def test_a_changed_prompt_has_values_of_its_own_unless_the_plain_one_is_trained() -> None:
    plain = Request(Draw(0, 0), Purpose.TRAIN, 1)
    hinted, trained_plain = replace(plain, edit="hint:1"), replace(plain, edit="hint:1", train_plain=True)
    other = Prompt((1, 9), "", "", {})
    rollouts = [rollout("a", plain), rollout("a", hinted, prompt=other, trained_prompt=other)]
    rollouts += [rollout("a", trained_plain, prompt=other)]
    requests = resolve(RL).advantage.requests(rollouts, [[0]] * 3)
    assert [r.edit for r in requests.values()] == [None, "hint:1"]
    assert len({r.tag for r in requests.values()}) == 2


def test_continuations_without_an_outcome_say_nothing() -> None:
    slot = replace(resolve(RL).advantage, continuations=4)
    silent = {"": [True, None, None, False], "a\n": [None] * 4}
    batch, _ = answered(slot, [group(0, "a\nb", "a\nb", rewards=[1.0, 0.0])], silent.get)
    raw = np.zeros((2, 12))
    raw[:, :4] = [[0.5, 0.5, 0, 0], [-0.5, -0.5, 0, 0]]
    np.testing.assert_allclose(batch.advantages, whitened(raw, real_tokens(np.array([4, 4]), 12)), atol=1e-12)


def test_rewards_of_continuations_are_those_of_the_stage() -> None:
    rl = Rl.model_validate({**RL.manifest(), "rewards": [{"name": "accuracy", "weight": "3"}]})
    slot = resolve(rl).advantage
    continued = group(0, "a", "b", "c", rewards=[1.0, 0.0, 1.0])
    assert slot.value(continued, CTX) == 2.0


def test_values_of_the_noisy_chain_are_unbiased() -> None:
    """Continuations are drawn as a model that is right with probability q in each step would make them; the mean over
    many states is q^(k-j) after j right steps, within four standard errors, and exactly 0 after a wrong one."""
    chain, draw, k = Chain(4, 0.6), np.random.default_rng(5), 9
    steps = {"vine": {"steps": "tokens", "stepTokens": 1}}
    rl = Rl.model_validate({"dataset": "d", "method": "vineppo", "maxResponseTokens": 5, "advantage": steps})
    slot, ctx = resolve(rl).advantage, replace(CTX, rl=rl)
    trace = lambda n: "".join("r" if draw.random() < chain.q else "w" for _ in range(n))  # noqa: E731
    groups = [group(item, *(trace(chain.k) for _ in range(8))) for item in range(300)]
    rollouts = [r for g in groups for r in g.rollouts]
    starts = [slot.starts(r, BYTES.decode) for r in rollouts]
    assert starts == [[0, 1, 2, 3]] * len(rollouts), "the end is part of the last step"
    found: dict[int | None, list[float]] = {}
    for request in slot.requests(rollouts, starts).values():
        before = BYTES.decode(request.prefix)
        ends = [before + trace(chain.k - len(before)) for _ in range(k)]
        continued = Group(request.draw, tuple(rollout(e, request, float("w" not in e)) for e in ends))
        value = slot.value(continued, ctx)
        assert value is not None
        found.setdefault(None if "w" in before else len(before), []).append(value)
    assert set(found.pop(None)) == {0.0}
    assert sorted(found) == [0, 1, 2, 3]
    for done, values in found.items():
        expected = chain.value(done)
        error = (expected * (1 - expected) / (len(values) * k)) ** 0.5
        assert np.mean(values) == pytest.approx(expected, abs=4 * error), done


# Runs

STAGE = {
    "method": "vineppo",
    "updatesPerStep": 2,
    "advantage": {"vine": {"steps": "tokens", "stepTokens": 1, "continuations": 3}},
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Request, list[Rollout]]]:
    """Every VALUE request of a run, with its continuations."""
    found: list[tuple[Request, list[Rollout]]] = []
    score = Vine.value

    def noted(self: Vine, group: Group, ctx: Context) -> float | None:
        found.append((group.rollouts[0].request, list(group.rollouts)))
        return score(self, group, ctx)

    monkeypatch.setattr(Vine, "value", noted)
    return found


def test_values_go_on_from_what_was_answered_and_are_not_trained_on(
    after_warm_up: Any, asked: Any, monkeypatch
) -> None:
    batches: list[Any] = []
    batch = Run.batch
    monkeypatch.setattr(Run, "batch", lambda self, *rest: batches.append(batch(self, *rest)) or batches[-1])
    runtime = after_warm_up(STAGE)
    run(runtime)
    trained = [r for one in batches for r in one.samples.rollouts]
    assert {r.request.purpose for r in trained} == {Purpose.TRAIN}
    assert len(trained) == 32
    prefixes = {(r.request.draw.item, r.response[:at]) for r in trained for at in range(len(r.response))}
    assert any(request.prefix for request, _ in asked)
    for request, rollouts in asked:
        assert len(rollouts) == 3
        assert (request.draw.item, request.prefix) in prefixes
        for r in rollouts:
            assert r.response[: r.forced] == request.prefix
            assert len(request.prefix) < len(r.response) <= 4
    for one in batches:
        lengths = [len(r.response) for r in one.samples.rollouts]
        assert not one.batch.advantages[~real_tokens(np.array(lengths), 4)].any()
    kept = sum(len(r.response) for r in trained)
    value = sum(len(r.response) - r.forced for _, rollouts in asked for r in rollouts)
    assert sum(timing["generatedTokens"] for *_, timing in runtime.steps) == kept + value


def test_a_prompt_that_is_put_in_two_ways_has_values_of_each(after_warm_up: Any, asked: Any) -> None:
    templates = [{"name": "plain", "text": "{question}"}, {"name": "again", "text": "{question} "}]
    stage = STAGE | {"maxPromptTokens": 27, "expansion": {"kind": "templates", "templates": templates}}
    runtime = after_warm_up(stage)
    run(runtime)
    firsts = [(request.draw.ordinal, request.edit) for request, _ in asked if not request.prefix]
    assert len(firsts) == len(set(firsts)) == 2 * 2 * 4, "of two steps' four prompts"
    for request, rollouts in asked:
        assert {r.prompt.question.endswith(" ") for r in rollouts} == {request.edit == "template:{question} "}


def test_prefixes_have_calls_that_are_known_before() -> None:
    shape = Shape(4, 17, 4, prefixes=True)
    assert (shape.all_slots, shape.prepared_slots) == ([16], [16, 24])
    assert [shape.slots_of((1,) * n) for n in (17, 18, 20)] == [16, 24, 24]
    assert Shape(4, 17, 4).prepared_slots == [16]


def test_nothing_is_compiled_in_a_step(after_warm_up: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = after_warm_up(STAGE | {"promptsInFlight": 2, "promptBuckets": [16]})
    compiled, batches = compiled_in(monkeypatch, "batch")
    run(runtime)
    assert compiled, "it would have been heard"
    assert not any(batches), "values have their programs"


def test_left_at_any_safe_point_without_a_trace(after_warm_up: Any) -> None:
    phases = left_anywhere(partial(after_warm_up, STAGE))
    of_first = "".join(phase[0] for phase in phases[: len(phases) // 2])
    assert "u" in of_first[: of_first.rindex("g")], "left while values are sampled, which is after the rollouts' own"


def test_finished_values_are_not_sampled_again(
    after_warm_up: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[int] = []
    start = Sampler.start

    def spied(self: Sampler, params: Any, seed: Any, prompts: Any, words: Any, *rest: Any) -> Any:
        calls.append(int(words[0][0]))
        return start(self, params, seed, prompts, words, *rest)

    monkeypatch.setattr(Sampler, "start", spied)
    straight = after_warm_up(STAGE)
    run(straight)
    expected, left = list(calls), set()
    assert expected.count(Purpose.VALUE) > 4
    for point in range(1, straight.safe_points):
        calls.clear()
        first = after_warm_up(STAGE, drain_at=point, rollouts=tmp_path / str(point), to_finish=0.0)
        with pytest.raises(Drain):
            run(first)
        if first.steps or first.drained[0] not in ("generate", "verify"):
            continue
        left.add(calls.count(Purpose.VALUE))
        second = after_warm_up(STAGE, commits=first.commits, rollouts=tmp_path / str(point))
        run(second)
        assert calls == expected, "each is begun once"
        assert second.stream == straight.stream
    assert len(left) >= 3, "left before, among and after the values"
