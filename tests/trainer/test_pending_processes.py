"""A step that is left between two of its updates, by real processes: what is in the folder, and that no bit tells."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from sums import WARM, job

from ratchet_api.job import RLTrainingJob
from ratchet_api.protocol import Exit
from ratchet_trainer.process import ledger
from ratchet_trainer.tools import inspect_run
from ratchet_trainer.tools.local import Folder, Gang, train
from ratchet_trainer.tools.prove import HASHES

TOLD_TO_GO = (sys.executable, str(Path(__file__).with_name("told_to_go.py")))
STAGES = [
    {"method": "grpo", "updatesPerStep": 4, "kl": {"coefficient": "0.01"}},
    {"method": "ppo", "updatesPerStep": 4},
]


def of_steps(folder: Folder, attempt: int) -> dict[int, dict[str, Any]]:
    """What the clock said of each step that an attempt made."""
    (file,) = (folder.path / "timings").glob(f"a{attempt}-*.jsonl")
    return {line["step"]: line for line in map(json.loads, file.read_text().splitlines())}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("processes", [2, pytest.param(1, marks=pytest.mark.soak)])
def test_grpo_and_ppo_left_in_the_middle_of_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    spec = RLTrainingJob.model_validate({"spec": job(*STAGES)})
    calm, folder = (Folder(tmp_path / name, "sums", spec, tmp_path / "cache") for name in ("calm", "told"))
    assert train(calm, processes)[0] == Exit.DONE

    # The first step of a stage, twice; then the last step of the run.
    for step, done in ((WARM + 1, 1), (WARM + 1, 3), (WARM + 4, 2)):
        monkeypatch.setenv("TOLD_TO_GO", f"{step}:{done}")
        gang = Gang.start(folder, processes, command=TOLD_TO_GO)
        assert gang.wait() == [Exit.DRAINED] * processes, (folder.local / "process-0.log").read_text()[-3000:]
        assert gang.termination()["step"] == step - 1
        found, commit = folder.result(), folder.last_commit()
        assert (found["step"], found["miniBatch"]) == (step - 1, done)
        assert commit.path.endswith(f"-u{done}")
        assert commit.boundary is None
        assert found["weightsSha256"] != calm.result()["weightsSha256"]
        shown = inspect_run.hashes(folder.path)
        assert {k: found[k] for k in shown} == shown
    assert [b["step"] for b in folder.result()["boundaries"]] == [WARM, WARM + 2]

    assert train(folder, processes)[0] == Exit.DONE
    found, expected = folder.result(), calm.result()
    for name in ("step", *HASHES):
        assert found[name] == expected[name], name
    assert "miniBatch" not in found
    assert [(b["step"], b["rule"]) for b in found["boundaries"]] == [
        (b["step"], b["rule"]) for b in expected["boundaries"]
    ]
    kept = sorted(p.name for p in (folder.path / "steps").iterdir())
    assert len([name for name in kept if "-u" in name]) <= spec.spec.checkpoint.keep

    # What was taken up: neither sampled again nor made twice.
    assert found["ledger"]["stepsReplayed"] == 0
    assert of_steps(folder, 3)[WARM + 1]["generatedTokens"] == 0
    assert of_steps(folder, 3)[WARM + 2]["generatedTokens"] > 0
    last = of_steps(folder, 4)
    assert list(last) == [WARM + 4]
    assert last[WARM + 4]["generatedTokens"] == 0
    assert "generate" not in {k for line in list(ledger.read(folder.path).values())[-1] for k in line}
