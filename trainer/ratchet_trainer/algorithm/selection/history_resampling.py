"""Selection `historyResampling` (SRPO, arXiv 2504.14286): an item whose responses in an epoch were all right is left
out of the next one; mixed and all wrong ones stay, as the latter may become solvable. Nothing is sampled for it.

Decides who is active, from counts alone. What is left out does not come back, unless fewer items wait than a batch
needs: then all are active again, and `exhausted` counts it. With `dropUnsolvedAfter` an item without a right answer in
so many epochs is left out, too, and comes back only where the solved ones do not fill a batch either.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ratchet_api.selection import knob
from ratchet_api.stages import Rl
from ratchet_trainer.algorithm.selection.scores import counted
from ratchet_trainer.algorithm.selection.turns import given_back, named, place_of, shares, sizes_of, slices, take
from ratchet_trainer.algorithm.selection.uniform import accounted, requests_for
from ratchet_trainer.algorithm.slots import Context, DataFacts, Planned, SlotState
from ratchet_trainer.algorithm.types import Rounds, StepSamples

Arrays = Mapping[str, np.ndarray]


def active(right: np.ndarray, answered: np.ndarray, unsolved: np.ndarray, most: int | None = None) -> np.ndarray:
    """bool[N]: who is drawn in the next epoch, from the counts of the latest one (none: not drawn yet) and the epochs
    in a row without a right answer, of which `most` is too many."""
    found: np.ndarray = (answered == 0) | (right < answered)
    return found if most is None else found & (unsolved < most)


class HistoryResampling:
    """State: `accounted`; of each data set `drawn` = draws, `epochs` and `sizes`; `exhausted` = plans for which too few
    items were active. Arrays, an entry an item: `turn` int32 (`turns`), `right` and `answered` uint32 = responses in
    its latest epoch, `unsolved` uint16 = its epochs in a row without a right answer."""

    def samples(self, rl: Rl) -> tuple[int, ...]:
        return ()

    def init(self, source: DataFacts, ctx: Context) -> SlotState:
        sizes = sizes_of(source)
        zeros = [0] * len(sizes)
        kinds = {"turn": np.int32, "right": np.uint32, "answered": np.uint32, "unsolved": np.uint16}
        return SlotState(
            {"accounted": 0, "drawn": zeros, "epochs": zeros, "sizes": sizes, "exhausted": 0},
            {name: np.zeros(sum(sizes), kind) for name, kind in kinds.items()},
        )

    def plan(self, s: SlotState, source: DataFacts, need: int, ctx: Context) -> Rounds[Planned]:
        arrays, epochs = {name: array.copy() for name, array in s.arrays.items()}, list(s.plain["epochs"])
        order, drawn = shares(source, s.plain["drawn"], need)
        found, exhausted = {}, False
        for dataset, part, place in slices(source):
            own, count = {name: array[place] for name, array in arrays.items()}, order.count(dataset)
            exhausted |= refilled(own, epochs[dataset], count, knob(ctx.rl, "drop_unsolved_after"))
            pool = _active(own, ctx.rl)
            found[dataset], epochs[dataset] = take(own["turn"], pool, ctx.seed, part.digest, epochs[dataset], count)
            own["right"][found[dataset]] = own["answered"][found[dataset]] = 0
        plain = {"drawn": drawn, "epochs": epochs, "exhausted": s.plain["exhausted"] + exhausted}
        return SlotState({**s.plain, **plain}, arrays), requests_for(named(order, found), ctx), []
        yield  # a generator that needs no round

    def observe(self, s: SlotState, samples: StepSamples, ctx: Context) -> SlotState:
        arrays = {name: array.copy() for name, array in s.arrays.items()}
        turn, right, answered, unsolved = (arrays[name] for name in ("turn", "right", "answered", "unsolved"))
        for item, (solved, said) in counted(samples).items():
            _, i = place_of(s.plain["sizes"], item)
            turn[i] = given_back(int(turn[i]))
            right[i], answered[i] = solved, said
            if said:
                unsolved[i] = 0 if solved else min(int(unsolved[i]) + 1, np.iinfo(np.uint16).max)
        return SlotState({**s.plain, "accounted": accounted(s, samples)}, arrays)

    def metrics(self, s: SlotState, ctx: Context) -> dict[str, float]:
        return {
            "train/active_items": float(np.count_nonzero(_active(s.arrays, ctx.rl))),
            "train/exhausted": float(s.plain["exhausted"]),
        }


def refilled(own: Arrays, epoch: int, count: int, most: int | None) -> bool:
    """Whether fewer than `count` items of a data set wait; then those that were left out are active again, in place:
    the solved ones, and if that is not enough, those that were given up."""

    def wait() -> int:
        who = active(own["right"], own["answered"], own["unsolved"], most)
        return int(np.count_nonzero(who & (own["turn"] >= 0)))

    if wait() >= count:
        return False
    solved = (own["answered"] > 0) & (own["right"] == own["answered"])
    own["right"][solved] = own["answered"][solved] = 0
    own["turn"][solved] = epoch + 1
    if most is not None and wait() < count:
        given_up = own["unsolved"] >= most
        own["unsolved"][given_up] = 0
        own["turn"][given_up & (own["turn"] >= 0)] = epoch + 1
    return True


def _active(arrays: Arrays, rl: Rl) -> np.ndarray:
    return active(arrays["right"], arrays["answered"], arrays["unsolved"], knob(rl, "drop_unsolved_after"))
