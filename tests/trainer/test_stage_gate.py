"""The gate: which is believed, and what it makes of the stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ratchet_api.canonical import stage_hash
from ratchet_api.protocol import STAGE_GATE_LIMIT
from ratchet_trainer.process.stage_gate import Gate, GateFile, merged


def stage(name: str, steps: int = 5) -> dict[str, Any]:
    return {"name": name, "sft": {"dataset": "d"}, "advance": {"steps": steps}}


STAGES = [stage("a"), stage("b")]


def entry(index: int, spec: dict[str, Any]) -> dict[str, Any]:
    return {"index": index, "specHash": stage_hash(spec), "spec": spec}


def said(**changes: Any) -> dict[str, Any]:
    base = {"v": 1, "jobUID": "uid", "attempt": 2, "mayEnter": 1, "finish": False, "checkpointRequest": 0, "stages": []}
    return base | changes


def read(path: Path, content: Any, may_enter: int = 0) -> Gate:
    file = GateFile(path / "word", "uid", 2, may_enter, {"d"})
    (path / "word").write_text(content if isinstance(content, str) else json.dumps(content))
    return file.read(STAGES)


def test_what_the_operator_says_is_believed(tmp_path: Path) -> None:
    added = stage("c")
    gate = read(tmp_path, said(mayEnter=2, specHash=stage_hash(added), stages=[entry(2, added)], unknown="ignored"))
    assert gate == Gate(2, stages={2: added})
    assert Gate.from_plain(json.loads(json.dumps(gate.plain()))) == gate


def test_a_stage_with_a_mixture_is_believed_if_its_data_sets_are_known(tmp_path: Path) -> None:
    mixed = {"name": "c", "rl": {"datasets": [{"name": "d", "weight": "1"}]}, "advance": {"steps": 5}}
    told = said(mayEnter=2, specHash=stage_hash(mixed), stages=[entry(2, mixed)])
    assert read(tmp_path, told) == Gate(2, stages={2: mixed})
    mixed["rl"]["datasets"].append({"name": "new", "weight": "1"})
    assert read(tmp_path, said(mayEnter=2, stages=[entry(2, mixed)])) == Gate(0)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        json.dumps(said(jobUID="another")),
        json.dumps(said(attempt=1)),
        json.dumps(said(v=2)),
        json.dumps(said(stages=[entry(1, stage("b")) | {"specHash": "00"}])),
        json.dumps(said(specHash="00")),
        json.dumps(said(padding="x" * STAGE_GATE_LIMIT)),
        json.dumps({"v": 1, "jobUID": "uid", "attempt": 2}),
    ],
    ids=["empty", "torn", "no object", "job", "attempt", "newer", "stage hash", "hash", "too long", "keys missing"],
)
def test_what_cannot_be_believed_changes_nothing(tmp_path: Path, content: str) -> None:
    assert read(tmp_path, content) == Gate(0)


def test_without_a_file_the_word_is_what_the_attempt_began_with(tmp_path: Path) -> None:
    assert GateFile(tmp_path / "none", "uid", 2, 1, {"d"}).read(STAGES) == Gate(1)


def test_the_ceiling_never_sinks(tmp_path: Path) -> None:
    assert read(tmp_path, said(mayEnter=0), may_enter=1).may_enter == 1


def test_stages_are_edited_and_appended_but_begun_ones_stay() -> None:
    edited, added = stage("b", 99), stage("c")
    gate = Gate(2, stages={0: stage("a", 99), 1: edited, 2: added, 4: stage("e")})
    assert merged(STAGES, gate, begun=0) == [STAGES[0], edited, added]
    assert merged(STAGES, gate, begun=1) == [*STAGES, added]


def test_a_stage_whose_data_set_came_later_waits_for_the_next_attempt(tmp_path: Path) -> None:
    for later in (stage("c") | {"sft": {"dataset": "later"}}, {"name": "c", "curate": {"dataset": "later"}}):
        assert read(tmp_path, said(mayEnter=2, specHash=stage_hash(later), stages=[entry(2, later)])) == Gate(0)


def test_the_end_is_the_end_of_the_last_stage_only() -> None:
    """An attempt that fell back to an earlier checkpoint meets `finish` at earlier ends, too."""
    gate = Gate(2, finish=True)
    assert [gate.ends(stage) for stage in range(4)] == [False, False, True, True]
    assert not Gate(2).ends(2)
