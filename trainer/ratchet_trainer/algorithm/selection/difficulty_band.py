"""Selection `difficultyBand`: items that are answered right neither too seldom nor too often, by a running rate.

A rate is the mean of an item's latest share of right answers and its rate before (its first share: the share itself).
Items whose rate is in [low, high] are inside the band. Of a data set's draws the share `explore` goes outside, first to
items that were never seen, then to all others in turn, as they become solvable or are forgotten; the rest goes to the
items inside, in turn. Where one side has too few, the other fills in. Nothing is sampled for it.

A design of this project: thresholds as in curricula by pass rate, exploration so that no item is lost for good.
"""

from __future__ import annotations

import numpy as np

from ratchet_api import selection as api
from ratchet_api.stages import Rl
from ratchet_trainer.algorithm.selection.learnability_buffer import interleaved
from ratchet_trainer.algorithm.selection.scores import counted
from ratchet_trainer.algorithm.selection.turns import given_back, named, place_of, shares, sizes_of, slices, take
from ratchet_trainer.algorithm.selection.uniform import accounted, requests_for
from ratchet_trainer.algorithm.slots import Context, DataFacts, Planned, SlotState
from ratchet_trainer.algorithm.types import Rounds, StepSamples

INSIDE, OUTSIDE = 0, 1


def running(rate: float, right: int, answered: int) -> np.float32:
    """The rate after a visit; `rate` NaN: it is the first one."""
    share = np.float32(right / answered)
    return share if np.isnan(rate) else (np.float32(rate) + share) / np.float32(2)


class DifficultyBand:
    """State: `accounted`; of each data set `drawn` = draws, `epochs` = [inside, outside] and `sizes`; `exhausted` =
    plans for which fewer items were inside than wanted though all were seen. Arrays, an entry an item: `turn` int32
    (`turns`), `rate` float32, NaN before the first visit."""

    def samples(self, rl: Rl) -> tuple[int, ...]:
        return ()

    def init(self, source: DataFacts, ctx: Context) -> SlotState:
        sizes = sizes_of(source)
        of_each = {"drawn": [0] * len(sizes), "epochs": [[0, 0] for _ in sizes], "sizes": sizes}
        arrays = {"turn": np.zeros(sum(sizes), np.int32), "rate": np.full(sum(sizes), np.nan, np.float32)}
        return SlotState({"accounted": 0, **of_each, "exhausted": 0}, arrays)

    def plan(self, s: SlotState, source: DataFacts, need: int, ctx: Context) -> Rounds[Planned]:
        turn, rate = s.arrays["turn"].copy(), s.arrays["rate"]
        order, drawn = shares(source, s.plain["drawn"], need)
        epochs = [list(pair) for pair in s.plain["epochs"]]
        low, high, explore = api.band(ctx.rl)
        found, exhausted = {}, False
        for dataset, part, place in slices(source):
            before, after = s.plain["drawn"][dataset], drawn[dataset]
            count, outside = after - before, int(explore * after) - int(explore * before)
            inside = within(rate[place], low, high)
            mine, others = sides(turn[place], inside, ctx.seed, part.digest, epochs[dataset], count, count - outside)
            exhausted |= len(mine) < count - outside and not np.isnan(rate[place]).any()
            found[dataset] = interleaved(mine, others)
        plain = {"drawn": drawn, "epochs": epochs, "exhausted": s.plain["exhausted"] + exhausted}
        arrays = {"turn": turn, "rate": rate}
        return SlotState({**s.plain, **plain}, arrays), requests_for(named(order, found), ctx), []
        yield  # a generator that needs no round

    def observe(self, s: SlotState, samples: StepSamples, ctx: Context) -> SlotState:
        turn, rate = s.arrays["turn"].copy(), s.arrays["rate"].copy()
        low, high, _ = api.band(ctx.rl)
        for item, (right, answered) in counted(samples).items():
            dataset, i = place_of(s.plain["sizes"], item)
            before = INSIDE if within(rate[i], low, high) else OUTSIDE
            if answered:
                rate[i] = running(rate[i], right, answered)
            now = INSIDE if within(rate[i], low, high) else OUTSIDE
            # On its own side it waits for the epoch after that of its draw; inside it joins the one under way, outside
            # it comes after those that wait there already.
            entered = s.plain["epochs"][dataset][now] + (now == OUTSIDE)
            turn[i] = given_back(int(turn[i])) if now == before else entered
        return SlotState({**s.plain, "accounted": accounted(s, samples)}, {"turn": turn, "rate": rate})

    def metrics(self, s: SlotState, ctx: Context) -> dict[str, float]:
        low, high, _ = api.band(ctx.rl)
        return {
            "train/active_items": float(np.count_nonzero(within(s.arrays["rate"], low, high))),
            "train/exhausted": float(s.plain["exhausted"]),
        }


def sides(
    turn: np.ndarray, inside: np.ndarray, seed: int, digest: str, epochs: list[int], count: int, wanted: int
) -> tuple[list[int], list[int]]:
    """`count` items of a data set, `wanted` of them from inside where there are so many: those from inside, and the
    others. `turn` (`turns`) and `epochs` are moved on in place."""

    def more(count: int, side: int, pool: np.ndarray, *, again: bool = False) -> list[int]:
        name = digest + ("/inside", "/outside")[side]
        items, epochs[side] = take(turn, pool, seed, name, epochs[side], count, again=again)
        return items

    mine = more(wanted, INSIDE, inside)
    others = more(count - len(mine), OUTSIDE, ~inside)
    mine += more(count - len(mine) - len(others), INSIDE, inside)
    side = INSIDE if inside.any() else OUTSIDE
    twice = more(count - len(mine) - len(others), side, inside if side == INSIDE else ~inside, again=True)
    return mine, others + twice


def within(rate: np.ndarray | float, low: float, high: float) -> np.ndarray:
    """Whether rates are in the band; one that is not known is not."""
    return np.logical_and(rate >= low, rate <= high)
