"""Hints for prompts that fail whole: when they are given, what the search costs, what is trained on, and restarts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from expanding import Expanding
from same_end import left_anywhere
from sums import job

from ratchet_api.datasets import Jsonl
from ratchet_trainer.algorithm.advantage.group import group_advantages
from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.types import Request, Rollout
from ratchet_trainer.data import hints
from ratchet_trainer.data.edits import edited
from ratchet_trainer.data.file_items import FileItems
from ratchet_trainer.errors import ConfigurationInvalid, Drain
from ratchet_trainer.run import Run, run

# Levels

TIERS = [["k1", "k2", "k3", "k4"], ["p1", "p2", "p3", "p4"], ["s1", "s2", "s3", "s4"]]


def test_a_level_shows_its_tier_up_to_there_and_no_other_tier() -> None:
    fields = {"hints": TIERS}
    assert hints.count(fields) == 12
    assert [hints.shown(fields, level) for level in (1, 4, 5, 6, 12)] == [
        "k1", "k1\nk2\nk3\nk4", "p1", "p1\np2", "s1\ns2\ns3\ns4"
    ]  # fmt: skip
    assert hints.fullest(fields, 12) == [4, 8, 12]
    assert hints.fullest(fields, 6) == [4, 6]
    with pytest.raises(IndexError, match="no level 13"):
        hints.shown(fields, 13)
    assert hints.tiers(["a", "b"], "hints") == [["a"], ["b"]], "a list of texts is a tier for each"
    assert hints.tiers(None, "hints") == hints.tiers([], "hints") == []


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("a text", "'h' is no list of hints; write [text, ...]"),
        ([["a"], []], "'h[1]' is neither a text nor a list of texts"),
        ([["a", " "]], "'h[0]' has a hint that is blank"),
        ([["a", 3]], "'h[0]' has a hint that is no text"),
        ([7], "'h[0]' is neither a text nor a list"),
    ],
)
def test_what_is_no_list_of_hints_is_named(value: Any, words: str) -> None:
    with pytest.raises(hints.WrongHints) as raised:
        hints.tiers(value, "h")
    assert words in str(raised.value)


def test_a_column_called_hints_is_none_where_the_data_set_names_another(tmp_path: Path) -> None:
    rows = [{"question": "1+1=", "answer": "2", "hints": "look it up"} | more for more in ({"tips": ["add"]}, {})]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = FileItems("q", Jsonl(path=str(tmp_path / "q.jsonl"), hints="tips"), None)
    assert [hints.count(source.item(i).fields) for i in (0, 1)] == [1, 0], "no hint a letter"


# Worked numbers


def scaf(right: Callable[[Request, int], bool], levels: int = 12, prompts: int = 1, **settings: Any) -> Expanding:
    """A stage of method scaf-grpo without an exemption, whose items have hints of so many levels."""
    how = {"expansion": {"exemptSteps": 0, **settings.pop("expansion", {})}, **settings}
    path = Expanding({"method": "scaf-grpo", "prompts": prompts, "group_size": 8, **how}, right)
    answered = path.answered

    def with_hints(requests: Any) -> list[Rollout]:
        found = []
        for r in answered(requests):
            prompt = replace(r.prompt, fields={"hints": [["h"] for _ in range(levels)]}, tokens=(1, r.request.tag))
            found.append(replace(r, prompt=prompt, trained_prompt=prompt))
        return found

    path.answered = with_hints  # type: ignore[method-assign]
    return path


def from_level(level: int) -> Callable[[Request, int], bool]:
    return lambda request, sample: request.purpose == Purpose.HINT and request.tag >= level


@pytest.mark.parametrize(
    ("search", "level", "rounds", "sampled"),
    [("oneByOne", 6, 6, 6), ("oneByOne", 1, 1, 1), ("oneByOne", 99, 12, 12), ("allAtOnce", 6, 1, 12)],
)
def test_the_search_stops_at_the_first_right_answer(search: str, level: int, rounds: int, sampled: int) -> None:
    path = scaf(from_level(level), expansion={"search": search})
    samples = path.advance()
    asked = [request for requests in path.asked[1:] for request in requests]
    assert (len(path.asked) - 1, len(asked)) == (rounds, sampled)
    assert all((r.n, r.purpose, r.train_plain) == (1, Purpose.HINT, False) for r in asked)
    assert [r.tag for r in asked] == list(range(1, sampled + 1))
    assert asked[0].edit == "hint:1:{question}\n\nHint: {hint}"
    (group,) = samples.trained
    helped = [r for r in group.rollouts if r.request.purpose == Purpose.HINT]
    assert [r.request.tag for r in helped] == ([level] if level <= 12 else [])
    assert path.metrics()["train/hint_rollouts"] == sampled
    assert path.metrics()["train/hinted"] == (level <= 12)
    assert path.metrics()["train/unhelped"] == (level > 12)
    assert path.metrics().get(f"train/hinted_at/{level}") == (1.0 if level <= 12 else None)
    if level > 12:
        assert group.rewards == (0.0,) * 8
        assert group.replaced == ()


def test_the_winner_takes_the_place_of_one_and_earns_by_the_group_of_then() -> None:
    """SCAF-1, with n - 1."""
    (group,) = scaf(from_level(1)).advance().trained
    assert len(group.rollouts) == 8
    assert sum(group.rewards) == 1
    (lost,) = group.replaced
    assert (lost.request.purpose, group.rewards[lost.sample]) == (Purpose.TRAIN, 1.0)
    assert [r.sample for r in group.rollouts if r.request.purpose == Purpose.TRAIN] == [
        i for i in range(8) if i != lost.sample
    ]
    advantages = group_advantages(group.rewards, delta=0.0)
    assert advantages.max() == pytest.approx(2.474874, rel=1e-5)
    assert advantages.min() == pytest.approx(-0.353553, rel=1e-5)


def test_which_answer_is_replaced_follows_from_seed_and_draw() -> None:
    def places(seed: int) -> list[int]:
        path = scaf(from_level(1), prompts=64)
        path.seed = seed
        return [g.replaced[0].sample for g in path.advance().trained]

    assert places(5) == places(5) != places(6)
    assert set(places(5)) == set(range(8)), "every place comes up"


def test_one_right_answer_is_enough_to_be_left_alone() -> None:
    path = scaf(lambda request, sample: sample == 3)
    samples = path.advance()
    assert len(path.asked) == 1
    assert {r.request.purpose for r in samples.rollouts} == {Purpose.TRAIN}


def test_form_hides_no_failure() -> None:
    """SCAF-5: rewards differ, accuracy does not."""
    rewards = [{"name": "accuracy"}, {"name": "form", "length": {"kind": "cosine"}}]
    path = scaf(from_level(2), rewards=rewards)
    assert [g.disposition for g in path.advance().trained] == [None]
    assert len(path.asked) == 3


def test_groups_share_rounds_and_have_levels_of_their_own() -> None:
    path = scaf(lambda r, s: r.purpose == Purpose.HINT and r.tag == r.draw.item + 1, prompts=4, levels=3)
    path.advance()
    assert [[(r.draw.item, r.tag) for r in requests] for requests in path.asked[1:]] == [
        [(0, 1), (1, 1), (2, 1), (3, 1)],
        [(1, 2), (2, 2), (3, 2)],
        [(2, 3), (3, 3)],
    ]
    assert path.metrics() | {"train/hint_rollouts": 9.0, "train/hinted": 0.75, "train/unhelped": 0.25} == path.metrics()
    fewer = scaf(from_level(3), levels=12, expansion={"levels": 2})
    fewer.advance()
    assert len(fewer.asked) == 3
    without = scaf(from_level(1), levels=0)
    without.advance()
    assert len(without.asked) == 1
    assert without.metrics()["train/unhelped"] == 1


# The exemption


def steps_with_hints(path: Expanding, steps: int) -> list[int]:
    found = []
    for step in range(1, steps + 1):
        before = len(path.asked)
        path.advance()
        if len(path.asked) > before + 1:
            found.append(step)
    return found


def test_an_exemption_is_a_share_of_the_stage_and_fixed_when_it_begins() -> None:
    """SCAF-3."""
    path = Expanding({"method": "scaf-grpo", "prompts": 1, "group_size": 8}, lambda *_: False)
    expansion, context = path.method.expansion, replace(path.context, steps=1000)
    begun = expansion.init(context)
    assert begun.plain["exempt"] == 150
    path = scaf(from_level(1))
    path.state, path.step = begun, 148
    assert steps_with_hints(path, 4) == [3, 4], "steps 151 and 152"
    assert path.state.plain["exempt"] == 150
    given = scaf(from_level(1), expansion={"exemptSteps": 2})
    assert steps_with_hints(given, 4) == [3, 4]


def test_steps_are_counted_from_the_beginning_of_the_stage() -> None:
    path = scaf(from_level(1), expansion={"exemptSteps": 2})
    (group,) = path.advance().trained
    for step, asks in ((102, False), (103, True)):
        rounds = path.method.expansion.run(
            path.state, [group], path.drawn, path.reward, replace(path.context, step=step, start_step=100)
        )
        if asks:
            assert next(rounds)[0].purpose == Purpose.HINT
        else:
            with pytest.raises(StopIteration):
                next(rounds)


def test_hints_begin_once_practice_alone_no_longer_helps() -> None:
    learns = 5  # in each of the first steps one prompt more is solved

    def right(request: Request, sample: int) -> bool:
        return request.draw.item % 10 < min(request.draw.ordinal // 10, learns) and request.purpose == Purpose.TRAIN

    path = scaf(right, prompts=10, expansion={"exemptSteps": 100, "trueHard": {"patience": 3}})
    assert steps_with_hints(path, 12) == [10, 11, 12], "the last new low is in step 6, then three steps without"
    assert path.state.plain["exempt"] == 9
    never = scaf(right, prompts=10, expansion={"exemptSteps": 7, "trueHard": {"patience": 30}})
    assert steps_with_hints(never, 9) == [8, 9], "at the latest after exemptSteps"


def test_the_state_goes_through_a_checkpoint() -> None:
    path = scaf(from_level(2), expansion={"exemptSteps": 4, "trueHard": {"patience": 3}})
    path.advance()
    assert path.state is not None
    assert json.loads(json.dumps(path.state.plain)) == path.state.plain


# Whole runs


def with_hints(folder: Path, hints_of: Callable[[str, str], Any] = lambda question, answer: [[answer]]) -> list[Any]:
    """The data set of `sums`, as a file with hints."""
    rows = []
    for a in range(5):
        for b in range(5):
            question, answer = f"{a} + {b} = ", str(a + b)
            rows.append({"question": question, "answer": answer, "help": hints_of(question, answer)})
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [{"name": "sums", "jsonl": {"path": str(folder / "sums.jsonl"), "hints": "help"}}]


STAGE = {
    "method": "scaf-grpo",
    "groupSize": 4,
    "updatesPerStep": 2,
    "maxPromptTokens": 40,
    "expansion": {"exemptSteps": 0, "text": "{question}({hint}) = "},
}


@pytest.fixture
def started(memory_runtime: Any, tmp_path: Path) -> Callable[..., Any]:
    """Makes a run on untrained weights, which get nearly every sum wrong."""

    def start(stage: dict[str, Any] = STAGE, **more: Any) -> Any:
        spec = job(stage)
        spec["stages"], spec["datasets"] = spec["stages"][1:], with_hints(tmp_path)
        return memory_runtime(spec, **more)

    return start


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every response to a hinted prompt counts as right, and no other."""
    from ratchet_trainer.algorithm.outcome import Outcome
    from ratchet_trainer.rollout.engine import Engine

    monkeypatch.setattr(
        Engine, "_verify", lambda self, flat: [Outcome(s := float("(" in p.shown.question), s) for _, p, _ in flat]
    )


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    seen: list[Any] = []
    batch = Run.batch

    def noted(self: Run, *arguments: Any) -> Any:
        seen.append(batch(self, *arguments))
        return seen[-1]

    monkeypatch.setattr(Run, "batch", noted)
    return seen


def test_the_hinted_prompt_is_trained_on_and_its_ratio_is_one(started: Any, eager: None, batches: list[Any]) -> None:
    runtime = started()
    run(runtime)
    for found, (_, record, timing) in zip(batches, runtime.steps, strict=True):
        for group in found.samples.trained:
            (right,) = (r for r in group.rollouts if r.request.purpose == Purpose.HINT)
            assert right.trained_prompt.question == right.prompt.question
            assert right.prompt.question.endswith(f"({right.prompt.answer}) = ")
            assert group.disposition == "trained"
        assert record["train/accuracy"] == 0, "of the first responses, the replaced ones included"
        assert record["train/unsolved"] == 1
        assert record["train/reward"] == 0, "nor does the hinted one count as earned by the prompt"
        assert record["train/hinted"] == record["train/hinted_at/1"] == 1
        assert timing["oldGap"] <= 2e-6, "the same prompt above and below"
        assert record["train/logprob_mismatch"] < 1e-5, "and in the sampler"


def test_left_at_any_safe_point_without_a_trace(started: Any, eager: None) -> None:
    assert {"generate", "verify", "update"} <= set(left_anywhere(started))


def test_while_no_group_fails_whole_it_is_grpo_bit_for_bit(started: Any, monkeypatch: Any) -> None:
    from ratchet_trainer.algorithm.outcome import Outcome
    from ratchet_trainer.rollout.engine import Engine

    monkeypatch.setattr(
        Engine, "_verify", lambda self, flat: [Outcome(s := float(made.sample == 1), s) for _, _, made in flat]
    )
    ends = []
    for stage in (STAGE, {**STAGE, "method": "grpo", "expansion": {"kind": "none"}}):
        runtime = started(stage)
        run(runtime)
        arrays = runtime.commits[-1][1]
        own = [{k: v for k, v in r.items() if "hint" not in k and k != "train/unhelped"} for _, r, _ in runtime.steps]
        ends.append(({k: v for k, v in arrays.items() if k.startswith(("params/", "optimizer/"))}, own))
    (arrays, said), (others, told) = ends
    assert said == told
    assert arrays.keys() == others.keys()
    assert all(np.array_equal(arrays[path], others[path]) for path in arrays)


def test_hints_that_do_not_fit_are_found_before_the_first_step(started: Any) -> None:
    with pytest.raises(ConfigurationInvalid) as raised:
        run(started({**STAGE, "maxPromptTokens": 11}))
    said = str(raised.value)
    assert "25 of 25 items are too long with what expansion adds" in said
    assert "sums.jsonl:1: the prompt has" in said
    assert "maxPromptTokens leaves 11; raise it to 15, or shorten the hints or templates" in said


def test_hints_of_a_later_stage_are_looked_at_before_the_first_one(tmp_path: Path, memory_runtime: Any) -> None:
    plain = {**STAGE, "method": "grpo", "expansion": {"kind": "none"}, "maxPromptTokens": 11}
    spec = job(plain, {**STAGE, "maxPromptTokens": 11})
    spec["stages"], spec["datasets"] = spec["stages"][1:], with_hints(tmp_path)
    with pytest.raises(ConfigurationInvalid, match="stage rl-1: data set sums: 25 of 25 items are too long with what"):
        run(memory_runtime(spec))


def test_data_without_any_hint_is_refused_and_some_without_is_said(
    tmp_path: Path, memory_runtime: Any, caplog: Any
) -> None:
    def runtime(hints_of: Any) -> Any:
        spec = job(STAGE)
        spec["stages"], spec["datasets"] = spec["stages"][1:], with_hints(tmp_path, hints_of)
        return memory_runtime(spec, drain_at=1)

    with pytest.raises(ConfigurationInvalid, match="no item has a hint, so"):
        run(runtime(lambda question, answer: None))
    with pytest.raises(Drain):
        run(runtime(lambda question, answer: [answer] if question.startswith("4") else None))
    assert "20 of 25 items have no hints" in caplog.text


def test_wrong_hints_are_named_with_file_and_line(tmp_path: Path) -> None:
    with_hints(tmp_path, lambda question, answer: 7 if question.startswith("1 + 1") else [answer])
    spec = Jsonl(path=str(tmp_path / "sums.jsonl"), hints="help")
    with pytest.raises(ConfigurationInvalid, match=r"sums.jsonl:7: 'help' is no list of hints"):
        FileItems("sums", spec)


def test_a_hint_is_put_where_the_text_says_and_nothing_in_it_is_filled_in(tmp_path: Path) -> None:
    with_hints(tmp_path, lambda question, answer: ["{question}", ["a", "b"]])
    source = FileItems("sums", Jsonl(path=str(tmp_path / "sums.jsonl"), hints="help"))
    assert source.item(0).fields == {"hints": [["{question}"], ["a", "b"]]}
    text = "{question}[{hint}]"
    assert edited(source, f"hint:1:{text}").item(0).question == "0 + 0 = [{question}]"
    assert edited(source, f"hint:3:{text}").item(0).question == "0 + 0 = [a\nb]"
