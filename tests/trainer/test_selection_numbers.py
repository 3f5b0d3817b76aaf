"""Which prompts are drawn: worked numbers of each selection, and what it does where there is nothing good to draw."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from drawing_path import Path, by_chance, group, items, rl, rollout

from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.selection.difficulty_band import running, within
from ratchet_trainer.algorithm.selection.history_resampling import active
from ratchet_trainer.algorithm.selection.learnability_buffer import interleaved, kept, split
from ratchet_trainer.algorithm.selection.scores import learnability, most_learnable, right_of
from ratchet_trainer.algorithm.slots import DataFacts
from ratchet_trainer.algorithm.types import Draw, Group, Request, StepSamples
from ratchet_trainer.data.mixture import Part, unpacked

TEN = DataFacts("ten", 10)
HUNDRED = DataFacts("hundred", 100)
CORRECT = [4, 2, 6, 4, 8, 5, 3, 0]  # of 8, items 0 to 7


def scored(correct: list[int], n: int = 8) -> list[Group]:
    return [group(item, [i < right for i in range(n)]) for item, right in enumerate(correct)]


# Learnability, SFL-1 to SFL-7


def test_learnability_is_the_variance_of_the_rewards() -> None:
    expected = [0, 0.109375, 0.1875, 0.234375, 0.25, 0.234375, 0.1875, 0.109375, 0]
    assert [learnability(right, 8) for right in range(9)] == expected
    assert expected == [np.var([1.0] * right + [0.0] * (8 - right)) for right in range(9)]
    assert learnability(1, 3) == learnability(2, 3), "p and 1 - p score the same, to the last bit"
    assert np.isnan(learnability(0, 0))


def test_only_the_first_rollouts_count() -> None:
    first_right = group(0, [True] * 8 + [False] * 8)
    mixed = group(1, [True] * 7 + [False] * 9)
    assert [g.draw.item for g in most_learnable([first_right, mixed], 8)] == [1, 0]
    assert learnability(*right_of(first_right.rollouts[:8])) == 0


def test_ties_go_by_id_whatever_the_order_of_arrival() -> None:
    groups = scored(CORRECT)
    for seed in range(20):
        random.Random(seed).shuffle(groups)
        assert [g.draw.item for g in most_learnable(groups, 8)] == [0, 3, 5, 6, 1, 2, 4, 7]
        assert kept(groups, 8, 3).tolist() == [0, 3, 5]


def test_the_best_are_chosen_among_all_and_not_by_part() -> None:
    groups = scored(CORRECT)
    assert kept(groups, 8, 2).tolist() == [0, 3]
    by_part = [kept(groups[:4], 8, 1)[0], kept(groups[4:], 8, 1)[0]]
    assert by_part == [0, 5], "which would depend on how many processes there are"


@pytest.mark.parametrize(
    ("need", "share", "expected"),
    [(64, "0.5", (32, 32)), (64, "0.1", (6, 58)), (3, "0.9", (2, 1)), (5, "1", (5, 0)), (5, "0", (0, 5))],
)
def test_both_parts_of_a_batch_are_the_batch(need: int, share: str, expected: tuple[int, int]) -> None:
    assert split(need, Fraction(share)) == expected


def test_a_mini_batch_gets_its_part_of_both() -> None:
    assert interleaved([1, 2], [7, 8, 9]) == [7, 1, 8, 2, 9] or sorted(interleaved([1, 2], [7, 8, 9])) == [
        1,
        2,
        7,
        8,
        9,
    ]
    assert interleaved([], [7]) == [7]
    assert interleaved([1], []) == [1]


def test_a_candidate_without_an_outcome_is_never_chosen_first() -> None:
    half, none, some = group(0, [True, False]), group(1, [None, None]), group(2, [True, True, True, False])
    assert [g.draw.item for g in most_learnable([none, some, half], 4)] == [0, 2, 1]
    assert kept([half, none, some], 4, 1).tolist() == [0]
    assert learnability(*right_of(group(3, [True, None, False]).rollouts)) == 0.25, "of those that were judged"


def test_the_second_group_of_an_item_comes_last() -> None:
    again = [group(4, [True, False], 0), group(4, [True, False], 1), group(5, [True, True], 2)]
    assert [g.draw.ordinal for g in most_learnable(again, 2)] == [0, 2, 1]
    assert kept(again, 2, 3).tolist() == [4, 5]


SFL = {"method": "sfl", "selection": {"candidates": 40, "buffer": {"everySteps": 50, "size": 8}}}


def test_a_buffer_is_that_of_the_last_filling() -> None:
    path = Path(rl(**SFL), HUNDRED, by_chance(lambda item: item / 100))
    buffers = []
    for _ in range(102):
        path.advance()
        buffers.append(path.state.arrays["buffer"].tolist())
        assert path.metrics["train/scored_rollouts"] == (160 if path.step in (1, 51, 101) else 0)
    assert buffers[50] == buffers[73] == buffers[99], "iterations are counted from 0"
    assert buffers[49] != buffers[50] != buffers[100]
    assert all(abs(item - 50) <= 45 for item in buffers[0])


def test_the_buffers_share_comes_from_it_and_the_rest_from_everywhere() -> None:
    path = Path(rl(8, **SFL), HUNDRED, by_chance(lambda item: item / 100))
    epoch: list[int] = []
    for _ in range(50):
        samples = path.advance()
        buffer = path.state.arrays["buffer"].tolist()
        from_it = [item for item in items(samples) if item in buffer]
        assert len(items(samples)) == 8
        assert len(from_it) >= 4
        assert all(items(samples).count(item) <= 2 for item in buffer), "once from the buffer, once from everywhere"
    uniform = Path(rl(4), HUNDRED, by_chance(lambda item: 0.5))
    epoch = [item for _ in range(50) for item in items(uniform.advance())]
    drawn = [item for samples in path.steps for item in items(samples)]
    assert all(drawn.count(item) >= epoch.count(item) for item in range(100))


def test_a_buffer_may_be_filled_in_every_step_and_be_the_whole_batch() -> None:
    buffer = {"everySteps": 1, "size": 6, "share": "1"}
    path = Path(
        rl(selection={"kind": "learnability", "candidates": 12, "buffer": buffer}), HUNDRED, by_chance(lambda i: 0.5)
    )
    for step in range(20):
        samples = path.advance()
        assert set(items(samples)) <= set(path.state.arrays["buffer"].tolist())
        assert len(set(items(samples))) == 4, "without replacement"
        assert (len(samples.dropped), path.next_ordinal) == (12, 16 * (step + 1))


def test_fewer_items_than_a_buffer_holds_are_all_in_it() -> None:
    path = Path(rl(8, **SFL), DataFacts("three", 3), by_chance(lambda item: 0.5))
    samples = path.advance()
    assert sorted(path.state.arrays["buffer"].tolist()) == [0, 1, 2]
    assert len(items(samples)) == 8, "they come again with new ordinals"
    assert len({g.draw.ordinal for g in samples.groups}) == len(samples.groups) == 48


LILO = {"method": "lilo"}


def test_scoring_costs_four_times_what_is_trained_on() -> None:
    path = Path(rl(64, 8, **LILO), DataFacts("many", 10_000), by_chance(lambda item: 0.5))
    samples = path.advance()
    assert path.metrics == {"train/scored_rollouts": 2048.0}
    assert sum(r.n for r in path.asked if r.purpose == Purpose.TRAIN) == 512
    assert (len(samples.trained), len(samples.dropped), path.next_ordinal) == (64, 192, 256)


def test_the_most_learnable_candidates_are_trained_on_under_their_own_draws() -> None:
    path = Path(rl(2, 4, **LILO), TEN, lambda r, i: i < (2 if r.draw.item in (3, 8) else 4 * (r.draw.item % 2)))
    for _ in range(5):
        samples = path.advance()
        candidates = {g.draw.item for g in samples.groups}
        good = candidates & {3, 8}
        assert good <= set(items(samples))
        assert {g.draw.ordinal for g in samples.groups} == set(range(path.next_ordinal - 8, path.next_ordinal))
        assert {r.request.purpose for g in samples.trained for r in g.rollouts} == {Purpose.TRAIN}
        assert {g.disposition for g in samples.dropped} == {"dropped"}


def test_what_was_scored_is_trained_on_instead_of_sampled_again() -> None:
    path = Path(rl(2, 4, selection={"kind": "learnability", "reuse": True}), TEN, by_chance(lambda item: item / 9))
    samples = path.advance()
    assert [r.purpose for r in path.asked] == [Purpose.SCORE] * 8
    assert len(samples.trained) == 2
    assert {r.request.purpose for g in samples.trained for r in g.rollouts} == {Purpose.SCORE}
    plain = Path(rl(2, 4, **LILO), TEN, by_chance(lambda item: item / 9))
    assert items(plain.advance()) == items(samples), "the same candidates win"


def test_an_expansion_that_wants_more_gets_requests_and_the_cost_is_counted() -> None:
    reuse = Path(rl(2, 4, selection={"kind": "learnability", "reuse": True}), TEN, by_chance(lambda i: 0.5), further=1)
    samples = reuse.advance()
    assert [r.purpose for r in reuse.asked] == [Purpose.SCORE] * 12 + [Purpose.TRAIN]
    assert reuse.metrics["train/scored_rollouts"] == 48
    assert len({g.draw.ordinal for g in samples.groups}) == 12
    buffer = Path(rl(4, **SFL), HUNDRED, by_chance(lambda i: 0.5), further=4)
    taken = items(buffer.advance())
    assert len([r for r in buffer.asked if r.purpose == Purpose.SCORE]) == 40, "a buffer is filled once a step"
    own = [item for item in taken if item in buffer.state.arrays["buffer"]]
    assert len(taken) == 8
    assert len(set(own)) >= 4, "what is asked for later goes on in the buffer's shuffle"


# History resampling, SRPO-1 and SRPO-2


def counts(right: list[int], answered: int = 8) -> tuple[np.ndarray, ...]:
    return np.array(right, np.uint32), np.full(len(right), answered, np.uint32), np.zeros(len(right), np.uint16)


def test_the_next_epoch_is_without_what_was_right_every_time() -> None:
    found = active(*counts([8, 0, 3, 8, 7]))
    assert [name for name, is_in in zip("abcde", found, strict=True) if is_in] == ["b", "c", "e"]
    assert active(*counts([0, 0], answered=0)).all(), "what was not drawn yet is in"


def fixed(correct: dict[int, int]) -> Any:
    return lambda request, sample: sample < correct[request.draw.item]


def test_an_epoch_that_is_interrupted_ends_as_if_it_had_not_been() -> None:
    correct = {0: 8, 1: 0, 2: 3, 3: 8, 4: 7}
    path = Path(rl(1, 8, method="srpo"), DataFacts("five", 5), fixed(correct))
    for _ in range(3):
        path.advance()
    path = path.restarted()
    for _ in range(2):
        path.advance()
    assert path.metrics == {"train/active_items": 3.0, "train/exhausted": 0.0}
    second = [items(path.advance())[0] for _ in range(3)]
    assert sorted(second) == [1, 2, 4]
    assert sorted(items(path.advance())[0] for _ in range(3)) == sorted(second)


@pytest.mark.parametrize("prompts", [1, 2, 3, 4, 7])
def test_every_active_item_is_drawn_once_an_epoch_whatever_the_batch(prompts: int) -> None:
    path = Path(rl(prompts, 4, method="srpo"), HUNDRED, lambda r, i: r.draw.item >= 40 and i < 4 - (r.draw.item % 2))
    path_items = [item for _ in range(800 // prompts) for item in items(path.advance())]
    assert sorted(path_items[:100]) == list(range(100))
    active = sorted(set(range(100)) - set(range(40, 100, 2)))
    for start in range(100, len(path_items) - 70, 70):
        assert sorted(path_items[start : start + 70]) == active
    assert path.metrics == {"train/active_items": 70.0, "train/exhausted": 0.0}


def test_where_too_few_are_active_all_are_and_it_is_recorded() -> None:
    path = Path(rl(4, 4, method="srpo"), TEN, lambda r, i: r.draw.item != 7)
    found = [items(path.advance()) for _ in range(20)]
    assert all(len(batch) == 4 for batch in found)
    drawn = [item for batch in found for item in batch]
    assert sorted(drawn[:10]) == list(range(10))
    assert path.metrics["train/exhausted"] >= 6
    assert path.metrics["train/active_items"] >= 1
    assert drawn.count(7) >= max(drawn.count(item) for item in range(10)) - 1


def test_every_prompt_solved_goes_on_as_uniform_does() -> None:
    path = Path(rl(4, 4, method="srpo"), TEN, lambda r, i: True)
    drawn = [item for _ in range(50) for item in items(path.advance())]
    assert all(15 <= drawn.count(item) <= 25 for item in range(10))


def test_every_prompt_impossible_stays_active_unless_it_is_given_up() -> None:
    path = Path(rl(5, 4, method="srpo"), TEN, lambda r, i: False)
    drawn = [item for _ in range(20) for item in items(path.advance())]
    assert [drawn.count(item) for item in range(10)] == [10] * 10
    assert path.metrics == {"train/active_items": 10.0, "train/exhausted": 0.0}
    selection = {"kind": "historyResampling", "dropUnsolvedAfter": 2}
    path = Path(rl(5, 4, selection=selection), TEN, lambda r, i: False)
    for _ in range(4):
        path.advance()
    assert path.metrics == {"train/active_items": 0.0, "train/exhausted": 0.0}
    assert len(items(path.advance())) == 5
    assert path.metrics["train/exhausted"] == 1, "the active set emptied, so all came back"


def test_an_unsolved_item_that_is_solved_once_is_not_given_up() -> None:
    selection = {"kind": "historyResampling", "dropUnsolvedAfter": 2}
    seen = dict.fromkeys(range(10), 0)

    def answer(request: Any, sample: int) -> bool:
        seen[request.draw.item] += sample == 0
        return request.draw.item < 5 and sample == 0 and seen[request.draw.item] % 2 == 0

    path = Path(rl(5, 4, selection=selection), TEN, answer)
    for _ in range(8):
        path.advance()
    assert path.metrics["train/active_items"] == 5.0


def test_an_item_without_outcomes_stays_and_counts_for_nothing() -> None:
    selection = {"kind": "historyResampling", "dropUnsolvedAfter": 1}
    path = Path(rl(5, 4, selection=selection), TEN, lambda r, i: None if r.draw.item < 5 else False)
    path.advance()
    path.advance()
    assert path.metrics["train/active_items"] == 5.0


def test_a_hint_says_nothing_of_its_prompt_and_a_template_does() -> None:
    plain = group(0, [False, False]).rollouts
    hinted = Request(Draw(0, 0), Purpose.HINT, 1, edit="template:x", train_plain=True)
    templated = Request(Draw(0, 0), Purpose.TRAIN, 1, edit="template:x")
    assert right_of((*plain, rollout(hinted, 2, True))) == (0, 2)
    assert right_of((*plain, rollout(templated, 2, True))) == (1, 3)


def test_a_draw_that_is_carried_over_waits_for_its_disposition() -> None:
    path = Path(rl(5, 4, method="srpo"), TEN, lambda r, i: True)
    requests, _ = path.planned(5, 0)
    groups = [group(r.draw.item, [True] * 4, r.draw.ordinal) for r in requests]
    trained = StepSamples(tuple(replace(g, disposition="trained") for g in groups[1:]))
    path.state = path.selection.observe(
        path.state, replace(trained, dropped=(replace(groups[0], disposition="carried"),)), path.context(0)
    )
    assert path.state.plain["accounted"] == 4
    assert path.metrics["train/active_items"] == 6, "what was right is out, and nothing is known of the other"
    further = [r.draw.item for r in path.planned(5, 5)[0]]
    assert groups[0].draw.item not in further
    late = StepSamples((replace(groups[0], disposition="trained"),))
    path.state = path.selection.observe(path.state, late, path.context(0))
    assert path.state.plain["accounted"] == 5
    assert path.metrics["train/active_items"] == 5


# Difficulty band


def test_a_rate_is_the_mean_of_the_latest_share_and_the_rate_before() -> None:
    rate = running(np.nan, 1, 4)
    assert rate == 0.25
    assert running(rate, 4, 4) == 0.625
    assert running(0.625, 0, 4) == 0.3125
    assert within(np.array([0.1, 0.2, 0.8, 0.9, np.nan], np.float32), 0.2, 0.8).tolist() == [
        False, True, True, False, False
    ]  # fmt: skip


def test_a_band_draws_three_quarters_from_inside_once_it_knows_enough() -> None:
    rate = lambda item: (0.0, 0.5, 1.0)[item % 3]  # noqa: E731
    path = Path(rl(8, 8, selection={"kind": "difficultyBand"}), HUNDRED, by_chance(rate))
    for _ in range(40):
        path.advance()
    later = [item for _ in range(100) for item in items(path.advance())]
    assert sum(item % 3 == 1 for item in later) / len(later) == pytest.approx(0.75, abs=0.03)
    outside = [later.count(item) for item in range(100) if item % 3 != 1]
    assert max(outside) - min(outside) <= 2, "nobody is lost: those outside come in turn"
    assert path.metrics["train/exhausted"] == 0
    assert 25 <= path.metrics["train/active_items"] <= 33


@pytest.mark.parametrize("right", [True, False, None], ids=["solved", "impossible", "no outcomes"])
def test_an_empty_band_draws_everything_in_turn_and_says_so(right: bool | None) -> None:
    path = Path(rl(4, 4, selection={"kind": "difficultyBand"}), TEN, lambda r, i: right)
    drawn = [item for _ in range(25) for item in items(path.advance())]
    assert [drawn.count(item) for item in range(10)] == [10] * 10
    assert path.metrics["train/active_items"] == 0
    assert (path.metrics["train/exhausted"] > 0) == (right is not None)


@pytest.mark.parametrize("explore", ["0", "1"])
def test_a_band_may_explore_nothing_or_only_explore(explore: str) -> None:
    path = Path(rl(4, 4, selection={"kind": "difficultyBand", "explore": explore}), HUNDRED, by_chance(lambda i: 0.5))
    for _ in range(100):
        samples = path.advance()
        assert len(items(samples)) == len(set(items(samples))) == 4


def test_who_is_drawn_twice_in_a_step_does_not_wait_longer_for_it() -> None:
    path = Path(rl(8, 8, selection={"kind": "difficultyBand"}), TEN, by_chance(lambda item: 0.5), further=6)
    for _ in range(30):
        path.advance()
    path.further = 0
    drawn = [item for _ in range(20) for item in items(path.advance())]
    counts = [drawn.count(item) for item in range(10)]
    assert sum(counts) == 160
    assert min(counts) >= 10


# All of them

KINDS = {
    "uniform": {},
    "lilo": {"method": "lilo"},
    "lilo with reuse": {"method": "lilo", "selection": {"reuse": True}},
    "sfl": {"method": "sfl", "selection": {"candidates": 8, "buffer": {"everySteps": 3, "size": 5}}},
    "history": {"method": "srpo"},
    "history that gives up": {"method": "srpo", "selection": {"dropUnsolvedAfter": 2}},
    "band": {"selection": {"kind": "difficultyBand"}},
}
MIXED = DataFacts("mixed", 108, (Part("a", 7, 3), Part("b", 100, 2), Part("c", 1, 1)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 3])
def test_a_data_set_smaller_than_a_batch_fills_it_with_new_ordinals(kind: str, size: int) -> None:
    path = Path(rl(4, 4, **KINDS[kind]), DataFacts("small", size), by_chance(lambda item: 0.5))
    drawn = []
    for _ in range(30):
        samples = path.advance()
        assert len(samples.trained) == 4
        drawn += items(samples)
    assert {g.draw.ordinal for samples in path.steps for g in samples.groups} == set(range(path.next_ordinal))
    assert path.state.plain["accounted"] == path.next_ordinal
    assert set(drawn) == set(range(size))


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_mixture_every_data_set_has_its_share(kind: str) -> None:
    path = Path(rl(8, 4, **KINDS[kind]), MIXED, by_chance(lambda item: (item % 5) / 4))
    drawn = [unpacked(item)[0] for _ in range(60) for item in items(path.advance())]
    scores = kind.startswith("lilo") or kind == "sfl"
    shares = [drawn.count(dataset) / len(drawn) for dataset in range(3)]
    assert all(shares)
    if not scores:  # else it is candidates that come by weight
        assert shares == pytest.approx([1 / 2, 1 / 3, 1 / 6], abs=1 / 240)
    assert {g.draw.ordinal for samples in path.steps for g in samples.groups} == set(range(path.next_ordinal))
