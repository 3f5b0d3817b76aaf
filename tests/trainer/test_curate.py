"""A stage that makes a data set: what is asked, what is kept, what a kill in its middle changes, and who uses it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from same_end import same

from ratchet_api.curation import Curate, Keep, MakeHints
from ratchet_trainer.data import lengths
from ratchet_trainer.data.candidates import candidates
from ratchet_trainer.data.curated_file import kept_of
from ratchet_trainer.data.file_items import FileItems
from ratchet_trainer.data.tokenizer import BYTES
from ratchet_trainer.errors import ConfigurationInvalid, Drain, GuardTripped, StageFailed
from ratchet_trainer.run import Run, run
from ratchet_trainer.step.curate import FAILED, REFUSED, chosen
from ratchet_trainer.step.make_hints import hints_of

ITEMS = [
    ("1+1=", "2"),
    ("1+2=", "3"),
    ("1+1=", "2"),  # asks what the first one asks
    ("2+2=", "4"),
    ("2+2=", "5"),  # contradicts the one before
    ("1+2+3+4+5+6+7+8=", "36"),  # too long
    ("3+4=", "7"),
    ("4+4=", "8"),
    ("2+3=", "a number"),  # which verifier number does not take
]


def written(file: Path) -> Path:
    rows = [{"question": q, "answer": a, "solution": f"Take {q[0]}.\nAdd {q[2:-1]}.\nIt is {a}."} for q, a in ITEMS]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def spec(folder: Path, *, rl: bool = True, start: list[dict[str, Any]] | None = None, **curate: Any) -> dict[str, Any]:
    """A job that chooses among ITEMS, two a step, and trains on what is left."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"maxPromptTokens": 12, "maxResponseTokens": 3}
    settings = {"dataset": "all", "samples": 4, "promptsPerStep": 2, "keep": {"low": "0", "high": "1"}}
    stages: list[dict[str, Any]] = [*(start or []), {"name": "choose", "curate": settings | sizes | curate}]
    if rl:
        of = {"dataset": "chosen", "promptsPerStep": 2, "groupSize": 2, **sizes}
        stages.append({"name": "reason", "rl": of, "advance": {"steps": 2}})
    return {
        "model": {"preset": "tiny"},
        "datasets": [
            {"name": "all", "jsonl": {"path": str(written(folder / "all.jsonl"))}, "verifier": "number"},
            {"name": "chosen", "fromStage": "choose"},
        ],
        "stages": stages,
        "checkpoint": {"directory": str(folder / "checkpoints")},
        "placements": [{"name": "here", "cpu": {"hosts": 1}}],
    }


def left(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The lines of the file and the report."""
    of = folder / "checkpoints/datasets/choose"
    return [json.loads(line) for line in (of / "items.jsonl").read_text().splitlines()], json.loads(
        (of / "report.json").read_text()
    )


@pytest.mark.parametrize(
    ("settings", "numbers", "left_out"),
    [
        ({}, [0, 1, 6, 7, 8], {"contradictory": 2, "duplicates": 1, "tooLong": 1}),
        ({"deduplicate": "none"}, [0, 1, 2, 6, 7, 8], {"contradictory": 2, "duplicates": 0, "tooLong": 1}),
        ({"contradictions": "Keep"}, [0, 1, 3, 6, 7, 8], {"contradictory": 0, "duplicates": 2, "tooLong": 1}),
    ],
)
def test_who_is_asked(tmp_path: Path, settings: dict[str, Any], numbers: list[int], left_out: dict[str, int]) -> None:
    file = FileItems("all", spec_of_file(tmp_path), None)
    found = candidates(file, BYTES, Curate.model_validate({"dataset": "all"} | settings), longest=12)
    assert found.numbers.tolist() == numbers
    assert found.left_out == left_out
    assert [found.item(place).question for place in (0, 1)] == ["1+1=", "1+2="]
    assert (found.size, found.of) == (len(numbers), len(ITEMS))


def test_prompts_are_measured_once_whoever_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, settings = FileItems("all", spec_of_file(tmp_path), None), Curate.model_validate({"dataset": "all"})
    first = candidates(file, BYTES, settings, 12, tmp_path / "index")
    monkeypatch.setattr(lengths, "prompt_tokens", None)
    again = candidates(file, BYTES, settings, 12, tmp_path / "index")
    assert again.numbers.tolist() == first.numbers.tolist()
    assert again.left_out == first.left_out


def test_a_data_set_of_which_nothing_can_be_asked_is_refused_with_counts(tmp_path: Path) -> None:
    file = FileItems("all", spec_of_file(tmp_path), None)
    with pytest.raises(ConfigurationInvalid) as caught:
        candidates(file, BYTES, Curate.model_validate({"dataset": "all"}), longest=3)
    assert "none of its 9 items can be asked (2 contradictory, 1 duplicates, 6 tooLong); mend them" in str(caught.value)


def spec_of_file(folder: Path) -> Any:
    from ratchet_api.datasets import Jsonl

    return Jsonl(path=str(written(folder / "all.jsonl")))


RIGHT = np.array([0, 1, 2, 9, 10, FAILED, REFUSED], np.int16)


@pytest.mark.parametrize(
    ("keep", "kept", "hard", "easy"),
    [
        ({}, [1, 2, 3], 1, 1),
        ({"low": "0.2", "high": "0.9"}, [2, 3], 2, 1),  # both ends are included, and compared exactly
        ({"low": "0", "high": "0.1"}, [0, 1], 0, 3),
        ({"high": "1"}, [1, 2, 3, 4], 1, 0),
        ({"low": "1", "high": "1"}, [4], 4, 0),
    ],
)
def test_which_items_are_kept(keep: dict[str, str], kept: list[int], hard: int, easy: int) -> None:
    found = chosen(RIGHT, 10, Keep.model_validate(keep), {"duplicates": 3})
    assert found.kept == kept
    expected = {"duplicates": 3, "refused": 1, "failed": 1, "tooHard": hard, "tooEasy": easy, "kept": len(kept)}
    assert found.counts == expected
    assert sum(found.counts.values()) == len(RIGHT) + 3, "every item is counted once"


@pytest.fixture(scope="module")
def calm(memory_runtime: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """An undisturbed run, and its folder."""
    runtime = memory_runtime(spec(folder := tmp_path_factory.mktemp("calm")))
    run(runtime)
    return runtime, folder


def test_a_stage_leaves_a_data_set_and_the_next_one_trains_on_it(calm: tuple[Any, Path]) -> None:
    runtime, folder = calm
    lines, report = left(folder)
    assert [(line["item"], line["question"], line["answer"]) for line in lines] == [
        (0, "1+1=", "2"),
        (1, "1+2=", "3"),
        (6, "3+4=", "7"),
        (7, "4+4=", "8"),
    ]
    counts = {"contradictory": 2, "duplicates": 1, "tooLong": 1, "refused": 1, "failed": 0, "kept": 4}
    assert {name: report[name] for name in counts} == counts
    assert report["items"] == sum(counts.values()) + report["tooHard"] + report["tooEasy"] == len(ITEMS)
    rates = [float(line["passRate"]) for line in lines]
    assert [report["byRightResponses"][n] for n in range(5)] == [rates.count(n / 4) for n in range(5)]
    content = (folder / "checkpoints/datasets/choose/items.jsonl").read_bytes()
    assert report["itemsSha256"] == hashlib.sha256(content).hexdigest()
    assert [step for step, *_ in runtime.steps] == [1, 2, 3, 4, 5]
    assert runtime.boundaries == [(0, 3, "curated"), (1, 5, "steps 2")]
    _, arrays, control, *_ = runtime.commits[2]
    assert control["curated"] == {"choose": report["itemsSha256"]}
    start = runtime.commits[0][1]
    assert all(np.array_equal(start[path], arrays[path]) for path in start if path.startswith("params/")), "no update"
    assert control["nextOrdinal"] == 5, "draws have numbers of their own"


@pytest.mark.parametrize("drain_at", range(1, 12))
def test_a_run_that_is_told_to_go_ends_with_the_same_bits(
    calm: tuple[Any, Path], memory_runtime: Any, tmp_path: Path, drain_at: int
) -> None:
    """Wherever in the first steps it is told to; the file of an attempt that made it is written over."""
    undisturbed, folder = calm
    plan, commits = spec(tmp_path), []
    plan["datasets"][0]["jsonl"]["path"] = str(folder / "all.jsonl")
    with pytest.raises(Drain):
        run(memory_runtime(plan, commits=commits, drain_at=drain_at, rollouts=tmp_path / "rollouts"))
    runtime = memory_runtime(plan, commits=commits, rollouts=tmp_path / "rollouts")
    run(runtime)
    assert runtime.stream == undisturbed.stream
    assert runtime.commits[-1][2] == undisturbed.commits[-1][2] | {"stage": runtime.commits[-1][2]["stage"]}, (
        "the same but for paths in the stage's hash"
    )
    for path, array in undisturbed.commits[-1][1].items():
        assert np.array_equal(array, runtime.commits[-1][1][path]), path
    for name in ("items.jsonl", "report.json"):
        of = f"checkpoints/datasets/choose/{name}"
        assert (tmp_path / of).read_bytes() == (folder / of).read_bytes()


def test_nothing_left_is_an_error_that_counts_and_says_a_way_out(memory_runtime: Any, tmp_path: Path) -> None:
    with pytest.raises(StageFailed) as caught:
        run(memory_runtime(spec(tmp_path, keep={"low": "1", "high": "1"})))
    message = str(caught.value)
    assert message.startswith(
        "stage choose: nothing of data set all is left: 0 of 9 items are kept (2 contradictory, 1"
    )
    assert "4 tooHard" in message
    assert "for tooHard, a lower keep.low, more samples, or training before" in message
    _, report = left(tmp_path)
    assert (report["kept"], report["tooHard"]) == (0, 4), "the report is there to be read"


def test_a_file_that_is_not_the_one_is_refused(calm: tuple[Any, Path], memory_runtime: Any, tmp_path: Path) -> None:
    """By whoever begins the next stage, or goes on in its middle."""
    runtime, folder = calm
    plan, file = spec(folder), folder / "checkpoints/datasets/choose/items.jsonl"
    content = file.read_bytes()
    try:
        for commits in (runtime.commits[:3], runtime.commits[:4]):
            file.write_bytes(content.replace(b'"item": 6', b'"item": 7'))
            with pytest.raises(
                ConfigurationInvalid, match=r"is not the file that stage choose wrote.*put that one back"
            ):
                run(memory_runtime(plan, commits=list(commits)))
            file.unlink()
            with pytest.raises(ConfigurationInvalid, match=r"No such file.*put back the file that stage choose wrote"):
                run(memory_runtime(plan, commits=list(commits)))
    finally:
        file.write_bytes(content)


def test_a_curated_set_is_curated_again(memory_runtime: Any, tmp_path: Path) -> None:
    plan = spec(tmp_path, rl=False)
    again = {**plan["stages"][0]["curate"], "dataset": "chosen", "samples": 1}
    plan["stages"].append({"name": "again", "curate": again, "guards": []})
    run(memory_runtime(plan))
    lines = (tmp_path / "checkpoints/datasets/again/items.jsonl").read_text().splitlines()
    assert [json.loads(line)["question"] for line in lines] == ["1+1=", "1+2=", "3+4=", "4+4="]
    assert [json.loads(line)["item"] for line in lines] == [0, 1, 2, 3], "places in the set that it looked through"


def test_evaluations_and_guards_look_on(memory_runtime: Any, tmp_path: Path) -> None:
    plan = spec(tmp_path, rl=False)
    (tmp_path / "held.jsonl").write_text('{"question": "9+9=", "answer": "18"}\n')
    plan["datasets"].append({"name": "held", "jsonl": {"path": str(tmp_path / "held.jsonl")}})
    plan["evaluations"] = [{"name": "e", "dataset": "held", "items": 1, "everySteps": 2}]
    runtime = memory_runtime(plan)
    run(runtime)
    assert [step for step, record, _ in runtime.steps if "evaluation/e/accuracy" in record] == [2]
    (tmp_path / "checkpoints/datasets/choose/items.jsonl").unlink()
    plan["stages"][0]["guards"] = [{"metric": "curate/accuracy", "atMost": "0", "window": 2}]
    with pytest.raises(GuardTripped, match=r"curate/accuracy <= 0 over 2"):
        run(memory_runtime(plan))


def test_a_critic_waits_for_the_stage_that_uses_it(memory_runtime: Any, tmp_path: Path) -> None:
    sizes = {"promptsPerStep": 2, "groupSize": 2, "maxPromptTokens": 24, "maxResponseTokens": 3}
    learn = {"name": "learn", "rl": {"dataset": "all", "method": "ppo", **sizes}, "advance": {"steps": 1}}
    plan = spec(tmp_path, start=[learn])
    plan["stages"][2]["rl"]["method"] = "ppo"
    straight = memory_runtime(plan)
    run(straight)
    critics = {
        step: {path: leaf for path, leaf in arrays.items() if path.startswith("critic/")}
        for step, arrays, *_ in straight.commits
    }
    learned, kept = critics[1], critics[max(step for step in critics if step < straight.commits[-1][0] - 1)]
    assert learned.keys() == kept.keys() != set()
    assert all(np.array_equal(learned[path], kept[path]) for path in learned)
    midway = next(i for i, (*_, control, _, _) in enumerate(straight.commits) if control["stage"]["name"] == "choose")
    runtime = memory_runtime(plan, commits=straight.commits[: midway + 1])
    run(runtime)
    same(runtime, straight)


def test_moments_go_through_it_and_evaluations_are_sampled_as_it_samples(memory_runtime: Any, tmp_path: Path) -> None:
    sizes = {"batchSize": 2, "maxPromptTokens": 32, "maxResponseTokens": 12}
    before = {"name": "learn", "sft": {"dataset": "all", **sizes}, "advance": {"steps": 2}}
    plan = spec(tmp_path, rl=False, start=[before], temperature="0.5", sampling={"stop": ["7"]})
    (tmp_path / "held.jsonl").write_text('{"question": "9+9=", "answer": "18"}\n')
    plan["datasets"].append({"name": "held", "jsonl": {"path": str(tmp_path / "held.jsonl")}})
    plan["evaluations"] = [{"name": "e", "dataset": "held", "items": 1, "samples": 2}]
    attempt = Run(runtime := memory_runtime(plan))
    attempt.to_the_end()
    after = {step: arrays for step, arrays, *_ in runtime.commits}
    moments = [path for path in after[2] if path.startswith("optimizer/")]
    assert any(after[2][path].any() for path in moments)
    assert all(np.array_equal(after[2][path], after[5][path]) for path in moments), "no update, so none is lost"
    engine, _ = attempt.stage.evaluation_engines["e"]
    assert (engine.temperature, engine.stops is not None) == (0.5, True)


@pytest.mark.parametrize(
    ("text", "levels", "hints"),
    [
        ("a\nb\nc", 2, ["a", "b"]),
        ("a\nb\nc\nd\ne\nf", 2, ["a\nb", "c\nd"]),
        ("a\nb\nc\nd\ne", 1, ["a\nb"]),
        ("a\nb", 5, ["a"]),
        ("a", 3, []),
        (" \n", 3, []),
        (5, 3, []),
    ],
)
def test_hints_are_the_beginning_of_a_text_and_never_its_end(text: Any, levels: int, hints: list[str]) -> None:
    settings = MakeHints.model_validate({"from": "solution", "levels": levels})
    assert hints_of({"solution": text}, settings) == hints
    assert hints_of({}, settings) == []


def test_hints_are_made_for_what_is_kept_and_the_next_stage_has_them(memory_runtime: Any, tmp_path: Path) -> None:
    runtime = memory_runtime(spec(tmp_path, hints={"from": "solution", "levels": 2}))
    run(runtime)
    lines, _ = left(tmp_path)
    assert [line["hints"] for line in lines][:2] == [[["Take 1.", "Add 1."]], [["Take 1.", "Add 2."]]]
    digest = runtime.commits[-1][2]["curated"]["choose"]
    folder = tmp_path / "checkpoints/datasets/choose"
    made = kept_of(FileItems("all", spec_of_file(tmp_path), None), "chosen", folder, digest)
    assert made.item(1).fields["hints"] == [["Take 1.", "Add 2."]]
    assert made.item(1).fields["solution"].endswith("It is 3."), "the other fields stay"


def test_hints_of_a_text_that_nobody_has_are_refused_before_anything_is_sampled(
    memory_runtime: Any, tmp_path: Path
) -> None:
    plan = spec(tmp_path, hints={"from": "answers"})
    for stages in (plan["stages"], [{"name": "before", "curate": {"dataset": "all"}}, *plan["stages"]]):
        runtime = memory_runtime(plan | {"stages": stages})
        with pytest.raises(ConfigurationInvalid, match=r"all: no item has a text .* under answers.* one has solution"):
            run(runtime)
        assert runtime.commits == []


def test_hints_of_a_text_that_no_kept_item_has_end_the_stage(memory_runtime: Any, tmp_path: Path) -> None:
    plan = spec(tmp_path, hints={"from": "answers"})
    rows = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    rows[2]["answers"] = "One.\nTwo."  # a duplicate, which is never kept
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(StageFailed, match=r"choose: no kept item has a text .* under answers.*first one has solution"):
        run(memory_runtime(plan))


def test_a_method_that_gives_hints_gives_those_that_were_made(memory_runtime: Any, tmp_path: Path) -> None:
    plan = spec(tmp_path, hints={"from": "solution", "levels": 2})
    of = {"method": "scaf-grpo", "maxPromptTokens": 64, "expansion": {"exemptSteps": 0}}
    plan["stages"][1]["rl"] |= of
    runtime = memory_runtime(plan)
    run(runtime)
    record = runtime.steps[-1][1]
    assert record["train/accuracy"] == 0.0, "so all are asked again"
    assert record["train/hint_rollouts"] == 4.0, "two prompts, two levels"
