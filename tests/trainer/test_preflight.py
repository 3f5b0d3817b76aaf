"""Expected answers that cannot earn their reward are named before the first step, with the way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ratchet_api.datasets import Dataset
from ratchet_trainer.algorithm.verifiers import registry
from ratchet_trainer.algorithm.verifiers.pool import VerifierPool
from ratchet_trainer.data.items import open_source
from ratchet_trainer.data.tokenizer import BYTES
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.run import run
from ratchet_trainer.step.preflight import LOOKED_AT, Ending, doubts
from ratchet_trainer.step.samples import read


def said(folder: Path, answers: list[str], limit: int = 32, stop: tuple[str, ...] = (), **dataset: Any) -> str | None:
    """What the preflight says of a file with these answers."""
    file = folder / "d.jsonl"
    lines = [{"question": f"{i}?", "answer": answer} for i, answer in enumerate(answers)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = Dataset.model_validate({"name": "d", "jsonl": {"path": str(file)}, **dataset})
    spec = registry.resolve(told)

    def verify(cases: Any) -> Any:
        with VerifierPool(spec.to_json(), 1) as pool:
            handle = pool.submit(cases)
            while (outcomes := pool.poll(handle, 1.0)) is None:
                pass
            return outcomes

    return doubts(open_source(told), spec, verify, BYTES, Ending(limit, stop))


def test_nothing_is_said_of_answers_that_can_be_earned(tmp_path) -> None:
    assert said(tmp_path, ["5", "a b", "Yes", "\N{MINUS SIGN}3", "naïve"]) is None
    assert said(tmp_path, ["1,000", "7.0", "1/2"], verifier="number") is None
    for answer in ({"extract": "boxed"}, {"extract": "tag", "tag": "answer"}, {"extract": "after", "after": "####"}):
        assert said(tmp_path, ["5", "12"], answer=answer) is None


@pytest.mark.parametrize(
    ("answers", "more", "words"),
    [
        (["123456789"] * 3, {"limit": 4}, "its 10 tokens do not fit maxResponseTokens 4. Raise maxResponseTokens"),
        (["12", "1234"], {"limit": 4, "answer": {"extract": "boxed"}}, "to 13 or more"),
        (["a.b", "c.d"], {"stop": (".",)}, "a stop string ends it after 2 of 4 tokens. Take the string out"),
        (["five", "six"], {"verifier": "number"}, "verifier number with answer.extract lastNumber does not take"),
        (["a\nb"], {"answer": {"extract": "after", "after": "="}}, "the verifier says no: it extracts 'a'"),
    ],
)
def test_a_data_set_whose_answers_all_fail_is_refused(tmp_path, answers, more, words) -> None:
    with pytest.raises(ConfigurationInvalid) as caught:
        said(tmp_path, answers, **more)
    assert words.lower() in str(caught.value).lower()
    assert str(caught.value).startswith(f"data set d: all of the first {len(answers)} expected answers cannot earn")
    assert "d.jsonl:1: " in str(caught.value), "the line is named"


def test_of_others_those_that_fail_are_named(tmp_path) -> None:
    text = said(tmp_path, ["1", "22", "12345", "4", "123456"], limit=4)
    assert text is not None
    assert text.startswith("data set d: 2 of the first 5 expected answers cannot earn accuracy 1: ")
    assert "d.jsonl:3: '12345': its 6 tokens" in text
    assert "d.jsonl:5: '123456': its 7 tokens" in text
    assert "to 7 or more" in text


def test_many_are_counted_and_few_are_named(tmp_path) -> None:
    text = said(tmp_path, ["1"] + ["12345"] * (2 * LOOKED_AT), limit=4)
    assert text is not None
    assert f"{LOOKED_AT - 1} of the first {LOOKED_AT}" in text
    assert f"and {LOOKED_AT - 1 - 5} more" in text
    assert text.count("d.jsonl:") == 5


def test_who_knows_no_right_response_is_not_asked(tmp_path) -> None:
    http = {"verifier": "http", "http": {"url": "https://nowhere.invalid/verify"}}
    assert said(tmp_path, ["123456789"], limit=4, **http) is None


def job(file: Path, limit: int) -> dict[str, Any]:
    rl = {"dataset": "d", "promptsPerStep": 2, "groupSize": 2, "maxPromptTokens": 16, "maxResponseTokens": limit}
    return {
        "model": {"preset": "tiny"},
        "datasets": [{"name": "d", "jsonl": {"path": str(file)}}],
        "stages": [{"name": "r", "rl": rl, "advance": {"steps": 1}}],
        "checkpoint": {"directory": str(file.parent / "checkpoints")},
        "placements": [{"name": "cpu", "cpu": {"hosts": 1}}],
    }


def test_a_stage_is_refused_before_its_first_step_or_warned_of(tmp_path, memory_runtime) -> None:
    file = tmp_path / "d.jsonl"
    file.write_text('{"question": "1", "answer": "1"}\n{"question": "2", "answer": "123456"}\n')
    runtime = memory_runtime(job(file, 4))
    run(runtime)
    learning = runtime.told["learning"]
    assert (learning["status"], learning["reason"]) == ("Unknown", "NotYetKnown")
    assert "1 of the first 2 expected answers cannot earn accuracy 1" in learning["message"]

    file.write_text('{"question": "1", "answer": "654321"}\n{"question": "2", "answer": "123456"}\n')
    runtime = memory_runtime(job(file, 4))
    with pytest.raises(ConfigurationInvalid, match="all of the first 2"):
        run(runtime)
    assert runtime.steps == []
    assert runtime.commits == []


@pytest.mark.parametrize("of", ["verifier", "reward"])
def test_a_function_that_is_not_there_is_refused_before_anything_is_sampled(tmp_path, memory_runtime, of) -> None:
    file = tmp_path / "d.jsonl"
    file.write_text('{"question": "1", "answer": "1"}\n')
    spec = job(file, 4)
    if of == "verifier":
        spec["datasets"][0] |= {"verifier": "python", "python": {"entrypoint": "nowhere:verify"}}
    else:
        spec["stages"][0]["rl"]["rewards"] = [{"name": "mine", "python": {"entrypoint": "nowhere:verify"}}]
    runtime = memory_runtime(spec)
    with pytest.raises(ConfigurationInvalid, match="entrypoint nowhere:verify: cannot be imported"):
        run(runtime)
    assert set(runtime.phases) == {"compile"}


def test_later_stages_are_tried_before_the_first_step_of_the_first_one(tmp_path, memory_runtime) -> None:
    file = tmp_path / "d.jsonl"
    file.write_text('{"question": "1", "answer": "12345"}\n')
    spec = job(file, 8)
    short = {**spec["stages"][0]["rl"], "maxResponseTokens": 4}
    spec["stages"].append({"name": "short", "rl": short, "advance": {"steps": 1}})
    runtime = memory_runtime(spec)
    with pytest.raises(ConfigurationInvalid, match="stage short: data set d: all of the first 1 expected answers"):
        run(runtime)
    assert runtime.steps == []
    spec["stages"][1]["rl"] |= {"maxResponseTokens": 8, "rewards": [{"name": "a", "python": {"entrypoint": "no:a"}}]}
    with pytest.raises(ConfigurationInvalid, match=r"stage short: .*entrypoint no:a: cannot be imported"):
        run(memory_runtime(spec))


def test_in_a_mixture_every_data_set_has_its_own_verifier(tmp_path, memory_runtime) -> None:
    words, numbers = tmp_path / "words.jsonl", tmp_path / "numbers.jsonl"
    words.write_text('{"question": "a", "answer": "ab"}\n')
    numbers.write_text('{"question": "1", "answer": "one"}\n')
    spec = job(words, 4)
    spec["datasets"] = [
        {"name": "words", "jsonl": {"path": str(words)}},
        {"name": "numbers", "jsonl": {"path": str(numbers)}, "verifier": "number"},
    ]
    del spec["stages"][0]["rl"]["dataset"]
    spec["stages"][0]["rl"]["datasets"] = [{"name": "words"}, {"name": "numbers"}]
    with pytest.raises(ConfigurationInvalid, match=r"data set numbers: all of the first 1 .*Verifier number"):
        run(memory_runtime(spec))
    numbers.write_text('{"question": "b", "answer": "12"}\n')
    run(memory_runtime(spec))
    sampled = read(tmp_path / "checkpoints")
    assert {line["expected"] for line in sampled} == {"ab", "12"}
    for line in sampled:
        whole = line["extracted"] == line["response"].strip()
        assert whole == (line["expected"] == "ab"), "exact takes all of a response, number the last number, if any"
    assert {line["place"] for line in sampled} == {f"data set words, {words}:1", f"data set numbers, {numbers}:1"}
