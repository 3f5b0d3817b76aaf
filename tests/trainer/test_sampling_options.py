"""Top-k, top-p, stop strings and limits: what is drawn from, when a response is over, and what is said of it."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from squares import SMALL, Squares

from ratchet_api.sampling import Sampling
from ratchet_trainer.algorithm import keys
from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.types import Draw, Request, Rollout
from ratchet_trainer.data.tokenizer import BYTES
from ratchet_trainer.errors import Drain
from ratchet_trainer.model.policy import Policy, lay_out_prompts
from ratchet_trainer.rollout import sampler as sampling
from ratchet_trainer.rollout.endings import Endings, Stops
from ratchet_trainer.rollout.engine import Engine, Shape
from ratchet_trainer.rollout.sampler import CHUNK, Sampler
from ratchet_trainer.rollout.truncation import Truncation, staying
from ratchet_trainer.run import run
from ratchet_trainer.tools.evaluate import Alone

LONGEST = 2 * CHUNK + 4
(END,) = BYTES.ends


# From which tokens

_staying = jax.jit(staying)


def oracle(logits: np.ndarray, top_k: int, top_p: float) -> set[int]:
    """By sorting, in float64: k tokens, then the fewest whose share reaches p; whoever ties with the last one stays."""
    logits = logits.astype(np.float64)
    order = np.sort(logits)[::-1]
    likely = logits >= order[min(top_k, len(logits)) - 1]
    weights = np.where(likely, np.exp(logits - order[0]), 0.0)
    if top_p >= 1:
        return set(np.flatnonzero(likely))
    ranked = np.argsort(-logits, kind="stable")
    enough = int(np.argmax(np.cumsum(weights[ranked]) >= top_p * weights.sum() - 1e-9))
    return set(np.flatnonzero(likely & (logits >= logits[ranked[enough]])))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    # Few values, so that many tie; sums of their weights are clear of the shares below.
    logits=st.lists(st.sampled_from([-30.0, -3.5, -1.0, -0.0, 0.0, 0.5, 2.25, 7.0]), min_size=12, max_size=12),
    top_k=st.integers(1, 20),
    top_p=st.sampled_from(["1", "0.913", "0.617", "0.2719", "0.0137"]),
)
def test_the_tokens_that_stay_are_those_of_a_sort(logits: list[float], top_k: int, top_p: str) -> None:
    row = np.array(logits, np.float32) + np.float32(0)
    cut = Truncation(np.int32(top_k), np.float32(top_p))
    assert set(np.flatnonzero(_staying(row[None], cut)[0])) == oracle(row, top_k, float(top_p))


def test_no_truncation_is_none_and_top_p_of_one_drops_nothing() -> None:
    assert Truncation.of(Sampling()) is None
    assert Truncation.of(Sampling(topP="1.0")) is None
    all_but_certain = np.array([[0.0, -40.0, -80.0, -1.0]], np.float32)
    cut = Truncation.of(Sampling(topK=3))
    assert _staying(all_but_certain, cut)[0].tolist() == [True, True, False, True]


# In whole responses


def sample(sampler: Sampler, params: Any, requests: list[Request], **sampling: Any) -> list[Rollout]:
    found = Sampling(**sampling)
    shape = Shape(4, 24, LONGEST)
    cut = Truncation.of(found)
    return Engine(Alone(), sampler, BYTES, Squares(), 3, shape, 1.0, None, cut, found.stop).sample(requests, params, 0)


def train(ordinal: int, **changes: Any) -> Request:
    return Request(Draw(ordinal, 10 + ordinal), **{"purpose": Purpose.TRAIN, "n": 2, **changes})


REQUESTS = [train(ordinal) for ordinal in range(6)]


def same(a: Rollout, b: Rollout) -> bool:
    return (a.response, a.behaviour_logp.tobytes(), a.entropy.tobytes()) == (
        b.response,
        b.behaviour_logp.tobytes(),
        b.entropy.tobytes(),
    )


@pytest.mark.parametrize("sampling", [{"topP": "0.8"}, {"topK": 20}, {"topK": 40, "topP": "0.5"}])
def test_behaviour_is_what_was_drawn_from(sampler, params, sampling: dict[str, Any]) -> None:
    """Policy / behaviour probability is the mass of the tokens that stay: one number for every token there."""
    rollouts = sample(sampler, params, REQUESTS, **sampling)
    plain = sample(sampler, params, REQUESTS)
    assert any(a.response != b.response for a, b in zip(rollouts, plain, strict=True))
    policy, cut = Policy(SMALL), Truncation.of(Sampling(**sampling))

    @jax.jit
    def logits_of(prompts: Any, responses: Any) -> Any:
        return policy.decoder(params).logits(policy.hidden(params, prompts, responses))[0, 0]

    for r in rollouts:
        responses = np.zeros((1, 1, LONGEST), np.int32)
        responses[0, 0, : len(r.response)] = r.response
        logits = logits_of(lay_out_prompts([r.prompt.tokens], 1, 24), responses)[: len(r.response)]
        probability = np.asarray(jax.nn.softmax(logits, -1))
        stays = np.asarray(_staying(np.asarray(logits), cut))
        chosen = np.arange(len(r.response)), np.array(r.response)
        assert stays[chosen].all()
        mass = np.where(stays, probability, 0).sum(-1)
        np.testing.assert_allclose(np.exp(r.behaviour_logp), probability[chosen] / mass, rtol=1e-4)
        np.testing.assert_allclose(r.entropy, -np.sum(probability * np.log(probability), -1), rtol=1e-4)
        assert (mass < 0.95).all()


def test_the_likeliest_token_alone_is_drawn_for_sure(sampler, params) -> None:
    first, second = (sample(sampler, params, [train(0, first=first)], topK=1) for first in (0, 2))
    assert {r.response for r in first + second} == {first[0].response}
    assert all((r.behaviour_logp == 0).all() for r in first + second)


def test_neighbours_do_not_matter_to_a_truncated_row(sampler, params) -> None:
    together = sample(sampler, params, REQUESTS, topP="0.7", topK=100)
    alone = sample(sampler, params, REQUESTS[4:5], topP="0.7", topK=100)
    assert all(same(a, b) for a, b in zip(alone, together[8:10], strict=True))


def test_stop_strings_cut_the_very_same_responses(sampler, params) -> None:
    plain = sample(sampler, params, REQUESTS)
    texts = [BYTES.decode(r.response) for r in plain]
    # Two characters that occur, one that ends a chunk and so is found in the next look, one that never occurs.
    stop = [texts[0][5:7], texts[3][CHUNK - 1 : CHUNK + 1], texts[5][-2:-1], "nowhere to be found"]
    stopped = sample(sampler, params, REQUESTS, stop=stop)
    for before, after in zip(plain, stopped, strict=True):
        prefixes = [BYTES.decode(before.response[:n]) for n in range(1, len(before.response) + 1)]
        length = next((n for n, text in enumerate(prefixes, 1) if any(s in text for s in stop)), None)
        assert (after.finish == "stop") == (length is not None)
        length = length or len(before.response)
        assert after.response == before.response[:length]
        assert after.behaviour_logp.tobytes() == before.behaviour_logp[:length].tobytes()
        assert after.entropy.tobytes() == before.entropy[:length].tobytes()
    assert {r.finish for r in stopped} >= {"stop"}
    assert len(stopped[0].response) <= 7


def test_each_prompt_may_have_a_limit_of_its_own(sampler, params) -> None:
    plain = sample(sampler, params, REQUESTS)
    limits = [5, 0, CHUNK, CHUNK + 1, LONGEST, 10 * LONGEST]
    limited = sample(sampler, params, [train(i, max_new=limit) for i, limit in enumerate(limits)])
    for i, (before, after) in enumerate(zip(plain, limited, strict=True)):
        length = min(limits[i // 2] or LONGEST, len(before.response))
        assert after.response == before.response[:length]
        ended = after.response[-1] == END
        assert after.finish == ("end" if ended else "length")


def test_dummies_hold_nobody_up(sampler, params) -> None:
    """A call with three dummies and one prompt is over with it."""
    prompts = lay_out_prompts([(1, 2, 3)], 4, 8)
    words = keys.row_words(Purpose.TRAIN, [0] * 4, [0] * 4)
    limits = np.array([3, 0, 0, 0])
    going = sampler.begin(params, keys.seed_words(2), prompts, words, np.arange(2), LONGEST, 1.0, limits=limits)
    going.advance()
    assert going.over
    made = going.result()
    assert made.lengths.tolist() == [[3, 3], [0, 0], [0, 0], [0, 0]]
    assert made.tokens.shape == (4, 2, LONGEST)
    assert not made.log_probs[1:].any()


def test_own_slots_that_no_token_has_reached_are_not_read(sampler, params, monkeypatch) -> None:
    whole = sample(sampler, params, REQUESTS)
    monkeypatch.setattr(sampling, "REACH", CHUNK)
    reaches = []
    decode = type(sampler).decode
    monkeypatch.setattr(type(sampler), "decode", lambda self, *rest: reaches.append(rest[-1]) or decode(self, *rest))
    near = sample(sampler, params, REQUESTS)
    assert reaches == [CHUNK, 2 * CHUNK, LONGEST] * 2  # the requests take two calls
    for a, b in zip(near, whole, strict=True):  # sums of fewer numbers: the last bits may differ
        assert a.response == b.response
        np.testing.assert_allclose(a.behaviour_logp, b.behaviour_logp, atol=1e-5)
        np.testing.assert_allclose(a.entropy, b.entropy, atol=1e-5)


# When a response is over


def endings(text: bytes, strings: list[str], limit: int = 100, cuts: tuple[int, ...] = ()) -> tuple[int, str]:
    """Length and reason, seen in chunks that end at `cuts`; "\\0" stands for the end token."""
    tokens = np.array([END if byte == 0 else byte for byte in text])[None, None]
    found = Endings(BYTES.ends, np.full((1, 1), limit), Stops(BYTES, strings) if strings else None)
    for cut in (*cuts, tokens.shape[-1]):
        found.see(tokens[..., :cut])
    return int(found.lengths[0, 0]), str(found.finish[0, 0])


@pytest.mark.parametrize(
    ("text", "strings", "limit", "expected"),
    [
        (b"abc\0defg", [], 100, (4, "end")),
        (b"abc", [], 100, (0, "")),
        (b"abcdef", [], 3, (3, "length")),
        (b"abc\0", [], 4, (4, "end")),
        (b"abc\0", [], 3, (3, "length")),
        (b"abc\0abd", ["bd"], 100, (4, "end")),
        (b"abcabd\0", ["bd"], 100, (6, "stop")),
        (b"abcabd\0", ["bd"], 6, (6, "stop")),
        (b"abcabd\0", ["bd"], 5, (5, "length")),
        (b"x</answer>y", ["</answer>", "\n"], 100, (10, "stop")),
        ("12 \N{EURO SIGN}.".encode(), ["\N{EURO SIGN}"], 100, (6, "stop")),
        (b"\n", ["\n"], 100, (1, "stop")),
        (b"aab", ["ab", "aab", "a"], 100, (1, "stop")),
    ],
)
def test_the_first_end_counts_wherever_chunks_are_cut(text, strings, limit, expected) -> None:
    for first in range(1, len(text) + 1):
        assert endings(text, strings, limit, (first,)) == expected
        assert endings(text, strings, limit, tuple(range(1, first))) == expected


class Pieces:
    """Whole words to a token, the first of a text without its space: as many tokenizers of the Llama family have it."""

    ends: tuple[int, ...] = (0,)
    digest = ""
    words = ("", " a", " stop", " word", "ly", " ")

    def encode_prompt(self, text: str) -> list[int]: ...
    def encode_answer(self, text: str) -> list[int]: ...

    def decode(self, tokens: Any) -> str:
        return "".join(self.words[t] for t in tokens).removeprefix(" ")


def test_a_stop_string_may_begin_with_the_space_that_is_dropped_up_front() -> None:
    stops = Stops(Pieces(), [" stop"])
    tokens = np.array([1] * 40 + [2, 3])
    assert [stops.first(tokens[:n], 0) for n in (40, 41, 42)] == [None, 41, 41]
    assert stops.first(tokens, 40) == 41
    assert stops.first(np.array([2, 1]), 0) is None, "not its text"
    assert Stops(Pieces(), ["ordl"]).first(np.array([3, 4, 1]), 0) == 2, "with the token that completes it"


# In a run


def job() -> dict[str, Any]:
    lengths = {"maxPromptTokens": 26, "maxResponseTokens": CHUNK + 4}
    sums = {"max_terms": 2, "max_digits": 1, "operators": ["+"], "allow_parentheses": False}
    rl = {
        "dataset": "sums",
        "promptsPerStep": 4,
        "groupSize": 4,
        "sampling": {"topK": 200, "topP": "0.9", "stop": ["0", "\n\n"]},
        "objective": {"importanceCap": "1"},
    }
    return {
        "model": {"preset": "tiny"},
        "seed": 7,
        "datasets": [{"name": "sums", "reasoningGym": {"task": "basic_arithmetic", "size": 10, "config": sums}}],
        "stages": [
            {"name": "a", "sft": {"dataset": "sums", "batchSize": 16, **lengths}, "advance": {"steps": 30}},
            {"name": "b", "rl": {**rl, **lengths, "updatesPerStep": 2}, "advance": {"steps": 2}},
        ],
        "checkpoint": {"directory": "/checkpoints/x"},
        "placements": [{"name": "cpu", "cpu": {"hosts": 1}}],
    }


def test_a_run_that_truncates_and_stops_resumes_exactly(tmp_path, memory_runtime) -> None:
    straight = memory_runtime(job())
    run(straight)
    for _, record, timing in straight.steps[30:]:
        assert timing["skippedUpdates"] < 2, "something was learned"
        assert 0.85 < record["train/importance_ratio"] < 1, "the mass that is left, at least topP"
    for kept, point in enumerate(range(31, straight.safe_points + 1)):
        folder = tmp_path / str(kept)
        first = memory_runtime(job(), drain_at=point, rollouts=folder)
        with pytest.raises(Drain):
            run(first)
        second = memory_runtime(job(), commits=first.commits, rollouts=folder)
        run(second)
        assert second.stream == straight.stream
        arrays, others = straight.commits[-1][1], second.commits[-1][1]
        assert all(np.array_equal(leaf, others[path]) for path, leaf in arrays.items())
