"""SIGKILL in the middle of a generation: the restart on the same node goes on with the tokens that were sampled."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from ratchet_api.job import RLTrainingJob
from ratchet_api.protocol import Exit
from ratchet_trainer.tools.local import Folder, Gang, train

pytestmark = pytest.mark.usefixtures("flags_of_the_product")


def job() -> RLTrainingJob:
    """One step whose responses of random weights take many chunks."""
    sizes = {"promptsPerStep": 2, "groupSize": 4, "maxPromptTokens": 96, "maxResponseTokens": 400}
    config = {"max_terms": 2, "max_digits": 1}
    spec = {
        "model": {"preset": "tiny"},
        "datasets": [{"name": "sums", "reasoningGym": {"task": "chain_sum", "size": 100, "config": config}}],
        "stages": [{"name": "only", "rl": {"dataset": "sums", **sizes}, "advance": {"steps": 1}}],
        "checkpoint": {"directory": "/replaced", "localDirectory": "/replaced-too", "journalSeconds": 1},
        "placements": [{"name": "here", "cpu": {"hosts": 1}}],
    }
    return RLTrainingJob.model_validate({"spec": spec})


def test_what_a_killed_attempt_had_sampled_is_used_and_no_bit_differs(tmp_path: Path) -> None:
    calm, folder = (Folder(tmp_path / name, "sums", job(), tmp_path / "cache") for name in ("calm", "killed"))
    assert train(calm, 1)[0] == Exit.DONE
    gang = Gang.start(folder, 1)
    try:
        while not (folder.path / "fast" / "rollouts" / "0-of-1").exists():
            assert gang.wait(0.001) is None, "it ended before anything was kept"
    finally:
        gang.send(signal.SIGKILL)
    assert gang.wait() == [-signal.SIGKILL]
    assert folder.last_commit() is None, "it was killed in its first step"
    assert train(folder, 1)[0] == Exit.DONE
    assert (
        "1 sampling calls of the attempt before may be taken up again" in (folder.local / "process-0.log").read_text()
    )
    for name in ("step", "weightsSha256", "stateSha256", "metricsSha256"):
        assert folder.result()[name] == calm.result()[name], name
