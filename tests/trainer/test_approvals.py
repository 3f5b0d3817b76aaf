"""`ratchet train` at the end of a stage that needs an approval: it stops there, and goes on once it is approved."""

from __future__ import annotations

import sys
from pathlib import Path

from ratchet_api.job import RLTrainingJob
from ratchet_api.protocol import Exit
from ratchet_trainer.step.state import StageState, State
from ratchet_trainer.tools.local import Folder, train

SMALL_RUN = (sys.executable, str(Path(__file__).with_name("small_run.py")))


def job(approvals: tuple[str, ...] = ()) -> RLTrainingJob:
    """Two stages of four steps; the end of each needs an approval."""
    stage = {"sft": {"dataset": "d"}, "advance": {"steps": 4, "approval": "Manual"}}
    spec = {
        "model": {"preset": "tiny"},
        "datasets": [{"name": "d", "jsonl": {"path": "/unused"}}],
        "stages": [{"name": "first", **stage}, {"name": "second", **stage}],
        "checkpoint": {"directory": "/replaced"},
        "placements": [{"name": "here", "cpu": {"hosts": 1}}],
        "approvals": [{"stage": name} for name in approvals],
    }
    return RLTrainingJob.model_validate({"spec": spec})


def test_training_stops_where_an_approval_is_missing_and_goes_on_with_it(tmp_path: Path) -> None:
    code, message = train(Folder(tmp_path, "small", job()), 1, command=SMALL_RUN)
    first = {"stage": 0, "step": 4, "rule": "steps 4", "needsApproval": True}
    assert (code, message["unapproved"]) == (Exit.DRAINED, first)

    approved = Folder(tmp_path, "small", job(approvals=("first",)))
    code, message = train(approved, 1, command=SMALL_RUN)
    assert (code, message["unapproved"]["stage"]) == (Exit.DRAINED, 1), "the manifest approves one stage of the two"
    assert approved.result()["step"] == 8

    code, _ = train(approved, 1, command=SMALL_RUN, approve=True)
    assert code == Exit.DONE


def test_the_end_of_a_stage_of_an_older_checkpoint_needs_no_approval() -> None:
    control = State(4, 0, 0, StageState(0, "s", "", 0, 0, done="steps 4"), {}, {}).control()
    del control["stage"]["needs_approval"]
    restored = State.restored({}, control, {"params": {}, "optimizer": {}})
    assert restored.boundary == {"stage": 0, "step": 4, "rule": "steps 4"}
