"""A stage that begins again: the same bits as if what it was before had never been, and nothing of that is lost."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ratchet_api.job import RLTrainingJob
from ratchet_api.protocol import Exit
from ratchet_trainer.tools.local import Folder, train, write_json

SMALL_RUN = (sys.executable, str(Path(__file__).with_name("small_run.py")))


def job(steps: int, **more: Any) -> RLTrainingJob:
    """Two stages; the second makes so many steps."""
    spec = {
        "model": {"preset": "tiny"},
        "datasets": [{"name": "d", "jsonl": {"path": "/unused"}}],
        "stages": [
            {"name": "first", "sft": {"dataset": "d"}, "advance": {"steps": 4}},
            {"name": "second", "sft": {"dataset": "d"}, "advance": {"steps": steps}},
        ],
        "checkpoint": {"directory": "/replaced"},
        "placements": [{"name": "here", "cpu": {"hosts": 1}}],
    }
    return RLTrainingJob.model_validate({"spec": spec | more})


def trained(path: Path, steps: int, **more: Any) -> dict[str, Any]:
    folder = Folder(path, "small", job(steps, **more))
    write_json(folder.local / "small.json", {})
    code, message = train(folder, 1, command=SMALL_RUN)
    assert code == Exit.DONE, f"{message}\n{(folder.local / 'process-0.log').read_text()[-3000:]}"
    return folder.result()


def test_a_stage_with_other_settings_ends_in_the_bits_of_a_run_that_never_had_others(tmp_path: Path) -> None:
    straight = trained(tmp_path / "straight", 6)
    assert trained(tmp_path / "again", 9)["step"] == 13
    again = trained(tmp_path / "again", 6, rewind={"id": 1, "stage": "second"})
    hashes = ("step", "stateSha256", "metricsSha256", "streamSha256")
    assert {key: again[key] for key in hashes} == {key: straight[key] for key in hashes}
    lines = (tmp_path / "again" / "metrics.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 11))
    kept = {path.name.split("-")[0] for path in (tmp_path / "again" / "steps").iterdir()}
    assert {"4", "10", "13"} <= kept, "what was made before is kept"
    assert trained(tmp_path / "again", 6, rewind={"id": 1, "stage": "second"})["step"] == 10, "once"
