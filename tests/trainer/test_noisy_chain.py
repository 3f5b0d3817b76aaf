"""The task of `bench/learning.py`: its items, what is known of them, and that imitation brings the accuracy it says."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / "bench"
sys.path.insert(0, str(BENCH))
sys.path.insert(0, str(BENCH / "measuring" / "chain-steps"))

from chain_steps import check  # noqa: E402
from measuring import curves  # noqa: E402
from measuring.experiments import EXPERIMENTS, Experiment, shape  # noqa: E402
from measuring.learning_runs import learn, learning_manifest, write_data  # noqa: E402
from measuring.noisy_chain import LEVELS, OPERATORS, STATES, Chain, filled, questions, tables, traces  # noqa: E402
from measuring.page import renewed  # noqa: E402


def steps_of(item: dict) -> tuple[int, list[int], list[str], list[int]]:
    """Start, operators, slots and answer of an item, read off its text."""
    words, answer = item["question"].split(), [int(s) for s in item["answer"].split()]
    k = len(answer)
    operators = ["abcdefghijkl".index(w) for w in words[1 : k + 1]]
    return int(words[0]), operators, words[k + 1 : 2 * k + 1], answer


def test_operators_are_permutations_and_misconceptions_are_wrong_everywhere() -> None:
    right, wrong = tables(0)
    for table in (right, wrong):
        assert table.shape == (OPERATORS, STATES)
        assert (np.sort(table, axis=1) == np.arange(STATES)).all()
    assert not (right == wrong).any()


def test_answers_follow_from_the_operators_and_start_with_empty_slots() -> None:
    right, _ = tables(3)
    for item in questions(Chain(4, 0.5, seed=3), "rl", 50, {"noisy": 1.0}):
        state, operators, slots, answer = steps_of(item)
        assert slots == ["_"] * 4
        for operator, expected in zip(operators, answer, strict=True):
            state = int(right[operator, state])
            assert state == expected


def test_items_are_the_same_for_ever() -> None:
    items = list(questions(Chain(4, 0.6), "rl", 2, {"noisy": 1.0}))
    assert [(i["question"], i["answer"]) for i in items] == GOLDEN_QUESTIONS
    assert [(i["question"], i["answer"]) for i in traces(Chain(3, 0.6), 3)] == GOLDEN_TRACES


GOLDEN_QUESTIONS = [("0 d e c h _ _ _ _ =", "4 0 5 1"), ("8 b f b a _ _ _ _ =", "5 7 7 0")]
GOLDEN_TRACES = [("5 k l g _ _ _ =", "0 2 9"), ("2 j d a _ _ _ =", "3 6 9"), ("0 b c j _ _ _ =", "2 9 9")]


def test_a_level_fills_its_share_of_the_slots_rounded_up() -> None:
    assert [filled(8, level) for level in range(1, LEVELS + 1)] == [1, 2, 2, 3, 4, 4, 5, 6, 6, 7, 8, 8]
    (item,) = questions(Chain(8, 0.3), "rl", 1, {"noisy": 1.0})
    _, operators, _, answer = steps_of(item)
    assert len(item["hints"]) == LEVELS
    for level, (hint,) in enumerate(item["hints"], 1):
        _, same, slots, _ = steps_of({"question": hint, "answer": item["answer"]})
        shown = filled(8, level)
        assert same == operators
        assert slots == [*map(str, answer[:shown]), *["_"] * (8 - shown)]


def test_traces_are_right_with_the_rate_that_is_asked_for_and_copied_where_hints_are_shown() -> None:
    right, wrong = tables(0)
    chain = Chain(4, 0.6, sure=2, impossible=3)
    seen: dict[str, list[bool]] = {"noisy": [], "sure": [], "impossible": []}
    for item in traces(chain, 4000):
        state, operators, slots, answer = steps_of(item)
        truth = state
        for operator, slot, said in zip(operators, slots, answer, strict=True):
            truth = int(right[operator, truth])
            if slot == "_":
                kind = next(k for k in seen if operator in chain.operators(k))
                assert said in (right[operator, state], wrong[operator, state])
                seen[kind].append(bool(said == right[operator, state]))
            else:
                assert said == int(slot) == truth
            state = said
    assert all(seen["sure"])
    assert not any(seen["impossible"])
    rate, count = np.mean(seen["noisy"]), len(seen["noisy"])
    assert abs(rate - 0.6) < 4 * math.sqrt(0.6 * 0.4 / count)


def test_shares_of_a_set_are_of_the_kinds_that_are_asked_for_and_sets_never_meet() -> None:
    chain = Chain(4, 0.6, sure=3, impossible=4)
    items = list(questions(chain, "rl", 200, {"impossible": 0.9, "sure": 0.05, "noisy": 0.05}))
    kinds = [item["kind"] for item in items]
    assert (kinds.count("impossible"), kinds.count("sure"), kinds.count("noisy")) == (180, 10, 10)
    for item in items:
        assert set(steps_of(item)[1]) <= set(chain.operators(item["kind"]))
    held = {item["question"] for item in questions(chain, "held-out", 200, {"noisy": 1.0})}
    trained = {item["question"] for item in questions(chain, "rl", 2000, {"noisy": 1.0})}
    assert len(held) == 200
    assert not held & trained


def test_a_kind_without_operators_and_a_set_that_is_too_large_are_refused() -> None:
    with pytest.raises(ValueError, match="no operator is impossible; give Chain some"):
        list(questions(Chain(4, 0.6), "rl", 10, {"impossible": 1.0}))
    with pytest.raises(ValueError, match="there are not 1000 different items of 1 steps"):
        list(questions(Chain(1, 0.6), "rl", 1000, {"noisy": 1.0}))


def test_state_values_are_powers_of_the_rate() -> None:
    chain = Chain(3, 0.5)
    assert [chain.value(done) for done in range(4)] == [0.125, 0.25, 0.5, 1.0]
    assert chain.value(1, "impossible") == 0.0
    assert chain.value(0, "sure") == 1.0


@pytest.mark.parametrize(
    ("response", "share"),
    [("1 2 3 4", 1.0), ("1 2 9 4", 0.5), ("9 2 3 4", 0.0), ("1 2 3", 0.75), ("1 2 3 4 5", 1.0), ("", 0.0), ("x", 0.0)],
)
def test_the_step_checker_counts_what_is_right_before_the_first_wrong_step(response: str, share: float) -> None:
    assert check(SimpleNamespace(item={"answer": "1 2 3 4"}, response=response)) == share


def test_a_median_takes_what_was_never_reached_for_later_than_all_else() -> None:
    assert curves.median_or_never([40, 50, None]) == 50
    assert curves.median_or_never([40, None, None]) is None
    assert curves.median_or_never([40, 50]) == 45
    assert curves.median_or_never([40, None]) is None


def test_steps_and_rollouts_count_up_to_the_first_value_that_is_enough() -> None:
    records = {s: {curves.HELD_OUT: v} for s, v in ((0, 0.1), (10, 0.5), (20, 0.4), (30, 0.7))}
    run = {"records": records | {5: {}}, "rollouts": {5: 64.0, 10: 64.0, 20: 100.0, 30: 64.0}}
    assert curves.reached(run, curves.HELD_OUT, 0.5) == curves.Reached(10, 128.0)
    assert curves.reached(run, curves.HELD_OUT, 0.9) == curves.Reached(None, None)
    even = {"records": {s: {curves.HELD_OUT: 0.5} for s in (0, 10)}, "rollouts": {}}
    slower = {"records": {s: {curves.HELD_OUT: 0.25} for s in (0, 10, 20)}, "rollouts": {}}
    assert curves.band([even, slower], curves.HELD_OUT) == curves.Band(
        [0, 10], [0.25, 0.25], [0.375, 0.375], [0.5, 0.5]
    )
    row = curves.table({"grpo": [run]}, 0.5)[-1]
    assert row == "| grpo | 1 | 0.10 [0.10, 0.10] | 0.70 [0.70, 0.70] | 10 [10, 10] | 128 [128, 128] | - |"


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_every_variant_of_every_row_has_a_manifest(experiment: Experiment, tmp_path: Path) -> None:
    for variant in experiment.variants:
        job = learning_manifest(experiment, variant, 3, tmp_path / "model", tmp_path)
        assert json.dumps(job)
        assert job["spec"]["seed"] == 3
        assert set(experiment.hints) <= set(experiment.variants)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_every_row_has_as_many_different_items_as_it_asks_for(experiment: Experiment, tmp_path: Path) -> None:
    folder = write_data(experiment, tmp_path)
    assert len((folder / "train.jsonl").read_text().splitlines()) == experiment.items


def test_what_is_measured_takes_its_place_on_the_page_and_the_text_around_it_stays() -> None:
    page = renewed("# Page\n", "hints", "Do hints pay?", ["first"])
    assert "## Do hints pay?" in page
    written = page.replace("## Do", "## And do") + "It holds.\n"
    again = renewed(written, "hints", "another question", ["second"])
    assert again == written.replace("first", "second")
    with pytest.raises(SystemExit, match="has no <!-- end: hints -->"):
        renewed("<!-- measured: hints -->", "hints", "", [])


@pytest.mark.slow
def test_imitation_brings_the_accuracy_near_the_power_of_the_rate(tmp_path: Path) -> None:
    """The whole way: traces, supervised steps, export, and a first step of learning whose rollouts are counted."""
    task = Experiment("trial", "", Chain(2, 0.6), shape(64, 8), {"grpo": {"method": "grpo"}}, 0.5, steps=1, items=300)
    run = learn(task, "grpo", 0, tmp_path, imitated=200)
    ((_, accuracy),) = curves.curve(run, "train/accuracy")
    assert abs(accuracy - 0.36) < 0.09, accuracy
    assert curves.curve(run, curves.HELD_OUT)
