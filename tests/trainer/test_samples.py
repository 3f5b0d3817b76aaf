"""Which rollouts are kept to be read, what is said of each, and that nothing depends on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ratchet_trainer.run import run
from ratchet_trainer.step import samples


def job(folder: Path, steps: int = 6, **settings: Any) -> dict[str, Any]:
    """Steps of rl that earn nothing, as fast as they go."""
    rl = {"dataset": "d", "promptsPerStep": 2, "groupSize": 2, "maxPromptTokens": 16, "maxResponseTokens": 4}
    (folder / "d.jsonl").write_text("".join(f'{{"question": "{i}", "answer": "{i}{i}"}}\n' for i in range(4)))
    return {
        "model": {"preset": "tiny"},
        "datasets": [{"name": "d", "jsonl": {"path": str(folder / "d.jsonl")}}],
        "samples": settings,
        "stages": [{"name": "r", "rl": rl, "advance": {"steps": steps}}],
        "checkpoint": {"directory": str(folder / "checkpoints")},
        "placements": [{"name": "cpu", "cpu": {"hosts": 1}}],
    }


def kept(folder: Path) -> list[int]:
    return samples.steps(folder / "checkpoints")


def test_the_first_steps_each_nth_the_last_and_where_nothing_is_learned(tmp_path, memory_runtime) -> None:
    runtime = memory_runtime(job(tmp_path, 9, everySteps=5))
    run(runtime)
    assert runtime.told["learning"]["reason"] in ("NoInformativeGroups", "ResponsesTruncated")
    assert kept(tmp_path) == [1, 2, 3, 5, 9], "step 3 is the first that can say so"


def test_each_line_says_all_of_a_rollout(tmp_path, memory_runtime) -> None:
    run(memory_runtime(job(tmp_path, 1)))
    lines = samples.read(tmp_path / "checkpoints")
    assert len(lines) == 2, "all of a group are worth the same, so one stands for it"
    for line in lines:
        assert line["step"] == 1
        assert line["expected"] == 2 * line["prompt"]
        assert line["place"] == f"data set d, {tmp_path}/d.jsonl:{line['item'] + 1}"
        assert line["parts"] == {"accuracy": 0.0}
        assert line["disposition"] == "all_wrong"
        assert 0 < line["tokens"] <= 4
        assert line["finish"] in ("end", "length")


@pytest.mark.parametrize(("count", "groups"), [(0, 0), (1, 1), (8, 2)])
def test_as_many_prompts_as_asked_for(tmp_path, memory_runtime, count, groups) -> None:
    run(memory_runtime(job(tmp_path, 1, count=count)))
    assert len({line["draw"] for line in samples.read(tmp_path / "checkpoints")}) == groups


def test_a_folder_that_cannot_be_written_costs_a_warning_and_no_bit(tmp_path, memory_runtime, caplog) -> None:
    well = memory_runtime(job(tmp_path, 3))
    run(well)
    (other := tmp_path / "other").mkdir()
    (other / "checkpoints").mkdir()
    (other / "checkpoints/samples").write_text("a file where the folder should be")
    spec = job(tmp_path, 3) | {"checkpoint": {"directory": str(other / "checkpoints")}}
    runtime = memory_runtime(spec)
    run(runtime)
    assert "samples are not kept" in caplog.text
    assert runtime.stream == well.stream
    assert runtime.commits[-1][2] == well.commits[-1][2]


def test_old_files_make_room(tmp_path, memory_runtime, monkeypatch) -> None:
    monkeypatch.setattr(samples, "KEPT_FILES", 2)
    run(memory_runtime(job(tmp_path, 4, everySteps=1)))
    assert kept(tmp_path) == [3, 4]


def test_a_step_that_is_made_again_writes_the_same(tmp_path, memory_runtime) -> None:
    first = memory_runtime(job(tmp_path, 3, everySteps=1))
    run(first)
    folder = tmp_path / "checkpoints/samples"
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    for file in folder.iterdir():
        file.unlink()
    run(memory_runtime(job(tmp_path, 3, everySteps=1), commits=first.commits[:1]))
    after = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert after == {name: text for name, text in before.items() if name in after}
    assert "00000003.jsonl" in after


def test_reading_takes_any_text_and_names_no_half_written_file(tmp_path) -> None:
    (folder := tmp_path / samples.FOLDER).mkdir()
    text = "a\N{LINE SEPARATOR}b\x85c"
    (folder / "00000007.jsonl").write_text(json.dumps({"response": text}, ensure_ascii=False) + "\n", "utf-8")
    (folder / ".00000008.jsonl.tmp").write_text('{"resp')
    assert samples.steps(tmp_path) == [7]
    assert samples.read(tmp_path) == [{"response": text}]
    assert samples.read(tmp_path, 6) == []
    assert samples.steps(tmp_path / "nowhere") == []
