"""The data path under restarts: no draw is lost or doubled, whatever is drawn; and a million items cost little."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest
from drawing_path import Path, by_chance, items, rl

from ratchet_trainer.algorithm.slots import DataFacts
from ratchet_trainer.data import epochs
from ratchet_trainer.data.epochs import FEW, epoch_order, in_order
from ratchet_trainer.data.mixture import Part, unpacked

KINDS = {
    "uniform": {},
    "lilo": {"method": "lilo"},
    "lilo with reuse": {"method": "lilo", "selection": {"reuse": True}},
    "sfl": {"method": "sfl", "selection": {"candidates": 12, "buffer": {"everySteps": 7, "size": 5}}},
    "history": {"method": "srpo"},
    "history that gives up": {"method": "srpo", "selection": {"dropUnsolvedAfter": 2}},
    "band": {"selection": {"kind": "difficultyBand"}},
}
SOURCES = {
    "one": DataFacts("one", 37),
    "mixture": DataFacts("mixture", 108, (Part("a", 7, 3), Part("b", 100, 2), Part("c", 1, 1))),
}
STEPS = 1200


def path(kind: str, source: str, further: int = 1) -> Path:
    return Path(rl(4, 4, **KINDS[kind]), SOURCES[source], by_chance(lambda item: (item % 7) / 6), further)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_restarts_lose_and_double_no_draw(kind: str, source: str) -> None:
    straight = path(kind, source)
    for _ in range(STEPS):
        straight.advance()
    chance, committed = random.Random(1), path(kind, source)
    restarts = 0
    while committed.step < STEPS:
        going = committed.restarted()
        restarts += 1
        if chance.random() < 0.2:
            epochs._latest.clear()  # a new process remembers nothing
        for _ in range(chance.choice((0, 1, 1, 2, 3))):
            if going.step < STEPS:
                going.advance()
                if chance.random() < 0.7:  # else the step is lost with the process
                    committed = going.restarted()
        if chance.random() < 0.5:  # it ends while it plans
            going.planned(4, 0)
    assert restarts >= 1000
    assert drawn(committed) == drawn(straight)
    assert committed.metrics == straight.metrics
    ordinals = [ordinal for step in drawn(straight) for ordinal, *_ in step]
    assert ordinals == list(range(straight.next_ordinal)), "each once, and none is missing"
    assert straight.state.plain["accounted"] == straight.next_ordinal


def drawn(one: Path) -> list[list[tuple[int, int, str | None, int]]]:
    """What was drawn in every step, what became of it, and how much of it was right."""
    return [
        [
            (g.draw.ordinal, g.draw.item, g.disposition, sum(r.outcome.accuracy == 1 for r in g.rollouts))
            for g in samples.groups
        ]
        for samples in one.steps
    ]


@pytest.mark.parametrize("edge", range(7, 13))
def test_both_edges_of_an_epoch_are_no_place_to_lose_a_draw(edge: int) -> None:
    straight = path("uniform", "one", 0)
    for _ in range(20):
        straight.advance()
    first = path("uniform", "one", 0)
    for _ in range(edge):
        first.advance()
    second = first.restarted()
    for _ in range(20 - edge):
        second.advance()
    all_items = [item for samples in second.steps for item in items(samples)]
    assert all_items == [item for samples in straight.steps for item in items(samples)]
    assert sorted(all_items[:37]) == sorted(all_items[37:74]) == list(range(37))


@pytest.mark.parametrize("source", SOURCES)
def test_history_draws_each_active_item_once_an_epoch_over_all_restarts(source: str) -> None:
    one = Path(rl(4, 4, method="srpo"), SOURCES[source], lambda request, sample: False)
    for _ in range(300):
        one.advance()
        one = one.restarted()
    seen: dict[int, list[int]] = {}
    for samples in one.steps:
        for item in items(samples):
            seen.setdefault(unpacked(item)[0], []).append(item)
    for dataset, found in seen.items():
        size = 37 if source == "one" else SOURCES[source].parts[dataset].size
        for start in range(0, len(found) - size + 1, size):
            assert len(set(found[start : start + size])) == size


# Large data sets

MILLION = 1_000_000


@pytest.mark.parametrize("kind", ["sfl", "history", "band"])
def test_a_million_items_cost_at_most_100_mb(kind: str) -> None:
    epochs._latest.clear()
    tracemalloc.start()
    try:
        one = Path(rl(64, 8, **KINDS[kind]), DataFacts("million", MILLION), by_chance(lambda item: (item % 7) / 6))
        for _ in range(2):
            one.advance()
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100e6
    assert kept < 50e6
    assert sum(array.nbytes for array in one.state.arrays.values()) <= 16 * MILLION, "what each commit writes"


def test_the_order_of_an_epoch_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []
    ranks = epochs._ranks

    def noted(seed: int, digest: str, epoch: int, some: np.ndarray) -> np.ndarray:
        hashed.append(len(some))
        return ranks(seed, digest, epoch, some)

    monkeypatch.setattr(epochs, "_ranks", noted)
    epochs._latest.clear()
    parts = tuple(Part(f"part-{i}", 10_000, 1) for i in range(16))
    for kind in KINDS:
        hashed.clear()
        one = Path(rl(32, 4, **KINDS[kind]), DataFacts("sixteen", 160_000, parts), by_chance(lambda item: 0.5))
        for _ in range(10):
            one.advance()
        assert sum(size > FEW for size in hashed) <= 32, "one of each data set, and one of its candidates"


def test_some_items_in_an_epochs_order_are_those_of_the_whole_order() -> None:
    size = 3 * FEW
    order = epoch_order(3, "d", 2, size)
    for some in (np.arange(0, size, 2), np.arange(5, size, 1000), np.arange(0)):
        assert in_order(3, "d", 2, size, some).tolist() == order[np.isin(order, some)].tolist()
    assert in_order(3, "d", 4, size, np.arange(9)).tolist() != list(range(9))
