"""A rollout follows from its key and the weights alone: not from its neighbours, its slot or the call it is made in."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from squares import Squares

from ratchet_trainer.algorithm import keys
from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.types import Draw, Request, Rollout
from ratchet_trainer.data.tokenizer import BYTES
from ratchet_trainer.rollout.engine import Engine, Shape
from ratchet_trainer.rollout.prompts import PromptReader
from ratchet_trainer.rollout.sampler import CHUNK, Sampler, chunk_of
from ratchet_trainer.tools.evaluate import Alone


def engine(sampler: Sampler, seed: int = 3, prompts: int = 4, response: int = CHUNK + 4) -> Engine:
    return Engine(Alone(), sampler, BYTES, Squares(), seed, Shape(prompts, 24, response), 1.0)


def train(ordinal: int, item: int, **changes) -> Request:
    return Request(Draw(ordinal, item), **{"purpose": Purpose.TRAIN, "n": 2, **changes})


def said(rollouts: list[Rollout]) -> dict[tuple[int, int], tuple]:
    return {
        (r.request.draw.ordinal, r.sample): (r.response, r.behaviour_logp.tobytes(), r.entropy.tobytes())
        for r in rollouts
    }


def test_neighbours_slot_and_call_do_not_matter(sampler, params) -> None:
    requests = [train(ordinal, 10 + ordinal) for ordinal in range(6)]  # two calls, the second with dummies
    together = said(engine(sampler).sample(requests, params, 0))
    backwards = said(engine(sampler).sample(requests[::-1], params, 0))
    alone = said(engine(sampler).sample([train(4, 14)], params, 0))
    assert together == backwards
    assert alone == {key: value for key, value in together.items() if key[0] == 4}


def test_each_word_of_the_key_makes_another_response(sampler, params) -> None:
    def response(seed: int = 3, **changes) -> tuple[int, ...]:
        request = train(**{"ordinal": 7, "item": 1, "n": 1, **changes})
        return engine(sampler, seed).sample([request], params, 0)[0].response

    answers = [
        response(),
        response(seed=4),
        response(seed=3 + 2**32),
        response(ordinal=8),
        response(ordinal=7 + 2**32),
        response(purpose=Purpose.EVAL),
        response(tag=1),
        response(tag=2**40),
        response(first=1),
    ]
    assert len(set(answers)) == len(answers)
    assert response() == answers[0]


def test_samples_are_numbered_from_first(sampler, params) -> None:
    four = said(engine(sampler).sample([train(0, 5, n=4)], params, 0))
    rest = said(engine(sampler).sample([train(0, 5, n=2, first=2)], params, 0))
    assert {key: four[key][0] for key in rest} == {key: value[0] for key, value in rest.items()}


def test_rollouts_come_in_request_order_with_prompt_and_judgement(sampler, params) -> None:
    requests = [train(9, 3), train(2, 4, n=1), train(5, 6)]
    rollouts = engine(sampler).sample(requests, params, version=12)
    assert [(r.request, r.sample) for r in rollouts] == [
        (requests[0], 0),
        (requests[0], 1),
        (requests[1], 0),
        (requests[2], 0),
        (requests[2], 1),
    ]
    assert [r.prompt.answer for r in rollouts] == ["9", "9", "16", "36", "36"]
    assert {r.version for r in rollouts} == {12}
    for r in rollouts:
        assert len(r.response) == len(r.behaviour_logp) == len(r.entropy) <= CHUNK + 4
        assert (r.finish == "end") == (r.response[-1] == 257)


def test_the_key_is_folded_in_the_documented_order() -> None:
    expected = jax.random.wrap_key_data(np.array([0, 42], np.uint32), impl="threefry2x32")
    for word in (Purpose.HINT, 1, 5, 0, 9, 3):  # purpose, ordinal high, low, tag high, low, sample
        expected = jax.random.fold_in(expected, np.uint32(word))
    rows = keys.row_words(Purpose.HINT, [2**32 + 5], [9])
    found = keys.row_keys(keys.seed_words(42), rows, np.array([3], np.uint32))
    np.testing.assert_array_equal(found[0, 0], jax.random.key_data(expected))


@pytest.mark.parametrize("number", [-1, 2**64])
def test_numbers_beyond_64_bits_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        keys.words(number)


def test_a_chunk_is_short_where_there_are_many_responses() -> None:
    """A notice is heard between two of them."""
    assert [chunk_of(rows, 100) for rows in (64, 1024, 1025, 4096, 12_000, 10**6)] == [16, 16, 8, 4, 1, 1]
    assert chunk_of(12_000, 10) == 1
    assert (chunk_of(64, 10), chunk_of(64, 10, equal=True), chunk_of(12_000, 10, equal=True)) == (10, 10, 10)
    assert all(CHUNK % chunk_of(rows, 64) == 0 for rows in range(1, 40_000, 777))


def test_the_size_of_a_chunk_changes_no_bit(monkeypatch, sampler, params) -> None:
    requests = [train(ordinal, 10 + ordinal) for ordinal in range(3)]
    whole = said(engine(sampler).sample(requests, params, 0))
    monkeypatch.setattr("ratchet_trainer.rollout.sampler.CHUNK_TOKENS", 32)
    counts = []
    decode = Sampler.decode
    monkeypatch.setattr(Sampler, "decode", lambda *a, **k: (counts.append(a[-2]), decode(*a, **k))[1])
    assert said(engine(sampler).sample(requests, params, 0)) == whole
    assert set(counts) == {4}


def test_a_prompt_of_many_requests_is_read_and_told_once() -> None:
    """A step that samples values asks for each of its prompts with hundreds of prefixes."""
    told: list = []

    class Listening(Alone):
        def broadcast(self, value):
            told.append(value)
            return value

    reader = PromptReader(Squares(), BYTES, 24)
    requests = [train(o, 10 + o % 2, purpose=Purpose.VALUE, prefix=(65,) * (o // 2)) for o in range(400)]
    requests.append(train(9, 11, edit="template:{question}!"))
    found = reader.read(requests, Listening())
    assert [len(record) for record in told] == [3]
    for request, prompts in zip(requests, found, strict=True):
        assert prompts == reader.read([request], Alone())[0]
    assert found[-1].shown.question.endswith("!")
