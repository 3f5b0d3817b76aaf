"""Prompts that wait for a slot: what is answered does not depend on when and beside whom, and no slot stands idle."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from four_devices import run_on_four_devices
from hypothesis import given, settings
from hypothesis import strategies as st
from squares import SMALL, Squares

from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.types import Draw, Request, Rollout
from ratchet_trainer.data.tokenizer import BYTES
from ratchet_trainer.errors import Drain
from ratchet_trainer.learning.exact import ExactSampler, VirtualShards
from ratchet_trainer.model.policy import Policy
from ratchet_trainer.model.sharding import place, replicated
from ratchet_trainer.process import distributed
from ratchet_trainer.rollout import engine as requests_module
from ratchet_trainer.rollout.batch_slots import FREE, BatchSlots
from ratchet_trainer.rollout.engine import Engine, Shape
from ratchet_trainer.rollout.rollout_journal import RolloutJournal
from ratchet_trainer.rollout.sampler import CHUNK, Sampler
from ratchet_trainer.tools.evaluate import Alone

LONGEST = 3 * CHUNK - 3
MANY_ENDS = tuple(range(0, 250, 30))
"""Random weights draw one of these after some 30 tokens."""


class Counting(Sampler):
    """Counts the chunks that it decodes."""

    chunks = 0

    def decode(self, *arguments: Any) -> Any:
        self.chunks += 1
        return super().decode(*arguments)


class ExactCounting(Counting, ExactSampler):
    """The same in mode Exact."""


class Leaning(Counting):
    """A faulty one: a row's bits depend on how far its neighbours are."""

    def decode(self, params: Any, state: Any, at: Any, temperature: float, *others: Any) -> Any:
        return super().decode(params, state, at, temperature * (1 + 1e-5 * float(np.mean(at))), *others)


@pytest.fixture(scope="module")
def refilled() -> Counting:
    return Counting(Policy(SMALL), distributed.one_device(), MANY_ENDS)


@pytest.fixture(scope="module")
def params(params: Any) -> Any:
    """As a run has them: the probe's lie alike, so nothing is compiled twice."""
    return place(jax.tree.map(np.asarray, params), replicated(distributed.one_device()))


def engine(sampler: Sampler, refills: bool = True, stop: tuple[str, ...] = ()) -> Engine:
    shape = Shape(3, 24, LONGEST, refills)
    return Engine(Alone(), sampler, BYTES, Squares(), 3, shape, 1.0, stop=stop)


def train(ordinal: int, **changes: Any) -> Request:
    return Request(Draw(ordinal, 10 + ordinal), **{"purpose": Purpose.TRAIN, "n": 2, **changes})


def said(rollouts: list[Rollout]) -> dict[tuple[int, int], tuple]:
    return {
        (r.request.draw.ordinal, r.sample): (r.response, r.behaviour_logp.tobytes(), r.entropy.tobytes(), r.finish)
        for r in rollouts
    }


REQUESTS = [train(ordinal) for ordinal in range(10)]


# Room for a prompt


def test_a_prompt_s_room_follows_from_it_alone(refilled: Counting, params: Any) -> None:
    shape = Shape(3, 40, CHUNK, True, buckets=(17,))
    assert shape.all_slots == [16, 40]
    assert [shape.slots_of((1,) * n) for n in (1, 17, 18, 40)] == [16, 16, 40, 40]
    read: list[int] = []

    class Seen(Counting):
        def refill(self, params: Any, state: Any, seed: Any, prompts: Any, *others: Any) -> Any:
            read.append(prompts.body.shape[1])
            return super().refill(params, state, seed, prompts, *others)

    one = Engine(Alone(), Seen(Policy(SMALL), distributed.one_device(), MANY_ENDS), BYTES, Squares(), 3, shape, 1.0)
    mixed = [Request(Draw(i, 10**12 + i if i % 3 else i), Purpose.TRAIN, n=2) for i in range(8)]
    together = said(one.sample(mixed, params, 0))
    apart = [[r for r in reversed(mixed) if (r.draw.item < 100) == short] for short in (True, False)]
    read.clear()
    assert said(one.sample(apart[0], params, 0)) | said(one.sample(apart[1], params, 0)) == together
    assert sorted(set(read)) == [16, 40]
    assert read == sorted(read), "none of the short ones was read with the room of the long ones"


# Who sits where


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data(), st.integers(0, 12), st.integers(1, 5), st.booleans())
def test_everybody_is_seated_once_and_in_order(data: Any, prompts: int, slots: int, refills: bool) -> None:
    batch_slots, seen = BatchSlots(prompts, slots, refills), []
    while len(batch_slots.taken):
        new = batch_slots.occupant[batch_slots.fresh].tolist()
        assert new == list(range(len(seen), len(seen) + len(new))), "the next ones, the lowest slot first"
        assert refills or not new or len(new) == len(batch_slots.taken), "side by side from the beginning"
        seen += new
        waiting = prompts - len(seen)
        assert not (refills and waiting and FREE in batch_slots.occupant), "no slot stands idle while somebody waits"
        batch_slots.turn(data.draw(st.sets(st.sampled_from(batch_slots.taken.tolist()), min_size=1).map(sorted)))
    assert seen == list(range(prompts))


# What is answered


def test_neighbours_slot_and_turn_do_not_matter(refilled, params) -> None:
    together = engine(refilled).sample(REQUESTS, params, 0)
    assert [r.request for r in together[::2]] == REQUESTS, "in the order in which they were asked for"
    assert len({len(r.response) for r in together}) > 5, "lengths vary"
    assert {r.finish for r in together} == {"end", "length"}
    backwards = engine(refilled).sample(REQUESTS[::-1], params, 0)
    alone = engine(refilled).sample([REQUESTS[7]], params, 0)
    assert said(together) == said(backwards)
    assert said(alone) == {key: value for key, value in said(together).items() if key[0] == 7}


def test_a_refilled_slot_says_what_a_call_of_its_own_says_in_less_time(refilled, params) -> None:
    refilled.chunks = 0
    waiting = engine(refilled)
    assert waiting.refills(params, 2), "the probe finds equal bits here"
    refilled.chunks = 0
    together = said(waiting.sample(REQUESTS, params, 0))
    chunks, refilled.chunks = refilled.chunks, 0
    plain = engine(refilled, refills=False).sample(REQUESTS, params, 0)
    assert {k: (v[0], v[3]) for k, v in together.items()} == {k: (v[0], v[3]) for k, v in said(plain).items()}
    assert chunks < refilled.chunks


def test_fewer_prompts_than_slots(refilled, params) -> None:
    two = said(engine(refilled).sample(REQUESTS[:2], params, 0))
    assert two == {k: v for k, v in said(engine(refilled).sample(REQUESTS, params, 0)).items() if k[0] < 2}
    assert engine(refilled).sample([], params, 0) == []


def test_limits_and_stop_strings_cut_the_very_same_responses(sampler, params) -> None:
    plain = engine(sampler).sample(REQUESTS, params, 0)
    limits = [5, 0, CHUNK, CHUNK + 1, LONGEST, 10 * LONGEST, 1, 40, 2 * CHUNK, 33]
    limited = [train(i, max_new=limit) for i, limit in enumerate(limits)]
    stop = (BYTES.decode(plain[0].response)[2:4], BYTES.decode(plain[9].response)[30:32])
    found = engine(sampler, stop=stop).sample(limited, params, 0)
    assert {r.finish for r in found} >= {"stop", "length"}
    for i, (before, after) in enumerate(zip(plain, found, strict=True)):
        n = len(after.response)
        assert n <= (limits[i // 2] or LONGEST)
        assert after.response == before.response[:n]
        assert after.behaviour_logp.tobytes() == before.behaviour_logp[:n].tobytes()
        assert any(s in BYTES.decode(after.response) for s in stop) == (after.finish == "stop")


def test_where_bits_depend_on_neighbours_no_slot_is_refilled(params, caplog) -> None:
    leaning = Leaning(Policy(SMALL), distributed.one_device(), MANY_ENDS)
    off = engine(leaning)
    with caplog.at_level(logging.WARNING, requests_module.__name__):
        assert not off.refills(params, 2)
    assert "no slot is refilled" in caplog.text
    leaning.chunks = 0
    together = said(off.sample(REQUESTS[:6], params, 0))
    first, second = (said(off.sample(some, params, 0)) for some in (REQUESTS[:3], REQUESTS[3:6]))
    assert together == first | second


# Through a drain


class Leaving(Alone):
    """A team that is told to go at its n-th safe point and takes its rollout journal along."""

    def __init__(self, folder: Path, drain_at: int | None = None):
        self.rollouts, self.drain_at, self.safe_points = RolloutJournal(folder, 0, 1, self.gather), drain_at, 0
        self.rollouts.bind("a step")

    def safe_point(self) -> None:
        self.safe_points += 1
        if self.safe_points == self.drain_at:
            raise Drain


@pytest.mark.parametrize("exact", [False, True])
def test_no_chunk_is_decoded_twice_and_no_bit_differs(tmp_path, refilled, params, exact: bool) -> None:
    sampler = ExactCounting(Policy(SMALL), VirtualShards(distributed.one_device(), 2), MANY_ENDS) if exact else refilled

    def sample(team: Leaving) -> tuple[dict, int]:
        shape = Shape(4, 24, LONGEST, refills=True)
        one = Engine(team, sampler, BYTES, Squares(), 3, shape, 1.0, team.rollouts, stop=("!", "a"))
        assert one.refills(params, 2)
        sampler.chunks = 0
        try:
            return said(one.sample(REQUESTS, params, 0)), sampler.chunks
        except Drain:
            team.rollouts.write()
            return {}, sampler.chunks

    expected, chunks = sample(calm := Leaving(tmp_path / "calm"))
    assert calm.safe_points == chunks + 1 > 4
    for point in range(1, calm.safe_points + 1):
        _, before = sample(Leaving(tmp_path / str(point), point))
        _, further = sample(Leaving(tmp_path / str(point), 2))  # and once more, some chunks later
        found, after = sample(Leaving(tmp_path / str(point)))
        assert found == expected, f"stopped at safe point {point}"
        assert before + further + after == chunks


ON_DEVICES = """
import hashlib, json, jax, numpy as np
from test_refill import MANY_ENDS, REQUESTS, engine, said
from squares import SMALL
from ratchet_trainer.algorithm import keys
from ratchet_trainer.learning.exact import ExactSampler, VirtualShards
from ratchet_trainer.model.policy import Policy
from ratchet_trainer.model.sharding import place, replicated
from ratchet_trainer.rollout.engine import Shape
from ratchet_trainer.rollout.sampler import Sampler

found = []
init = jax.tree.map(np.asarray, jax.jit(Policy(SMALL).init)(keys.seed_words(1)))
for devices in (1, 2, 4):
    mesh = jax.make_mesh((devices, 1, 1), ("data", "fsdp", "tensor"), devices=jax.devices()[:devices],
                         axis_types=(jax.sharding.AxisType.Auto,) * 3)
    params = place(init, replicated(mesh))
    kinds = [ExactSampler(Policy(SMALL), VirtualShards(mesh, 4), MANY_ENDS)]
    if devices == 4:
        kinds.append(Sampler(Policy(SMALL), mesh, MANY_ENDS))
    for kind in reversed(kinds):
        one = engine(kind)
        one.shape = Shape(4, 24, one.shape.response_tokens, refills=True)
        assert one.refills(params, 2)
        rollouts = said(one.sample(REQUESTS, params, 0))
        assert rollouts == said(one.sample(REQUESTS[::-1], params, 0))
        assert len(rollouts) == 2 * len(REQUESTS)
    found.append(hashlib.sha256(repr(sorted(rollouts.items())).encode()).hexdigest())
print(json.dumps(found))
"""


def test_on_several_devices_order_does_not_matter_and_in_mode_exact_their_number_neither(tmp_path) -> None:
    found = json.loads(run_on_four_devices(ON_DEVICES, tmp_path))
    assert len(set(found)) == 1
