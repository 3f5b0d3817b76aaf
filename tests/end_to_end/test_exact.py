"""Mode Exact: one run, bit for bit, whatever the number of devices and processes, and kills in between."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from ratchet_api.job import RLTrainingJob
from ratchet_api.protocol import Exit
from ratchet_trainer.tools.local import Folder, Gang
from ratchet_trainer.tools.prove import HASHES

pytestmark = pytest.mark.usefixtures("flags_of_the_product")

SIZES = {"promptsPerStep": 4, "groupSize": 4, "maxPromptTokens": 96, "maxResponseTokens": 8}
SUMS = {"task": "chain_sum", "size": 500, "config": {"max_terms": 2, "max_digits": 1}}


def job(**reproducibility: Any) -> RLTrainingJob:
    """SFT, GRPO with a reference and two updates a step, PPO with its critic; batches that do not fill the shards,
    prompts that wait for a place."""
    grpo = {
        "dataset": "sums",
        **SIZES,
        "promptsPerStep": 8,
        "promptsInFlight": 4,
        "kl": {"coefficient": "0.01"},
        "updatesPerStep": 2,
    }
    spec = {
        "model": {"preset": "tiny"},
        "datasets": [{"name": "sums", "reasoningGym": SUMS}],
        "stages": [
            {"name": "a", "sft": {"dataset": "sums", "batchSize": 12}, "advance": {"steps": 12}},
            {"name": "b", "rl": grpo, "advance": {"steps": 4}},
            {"name": "c", "rl": {"dataset": "sums", "method": "ppo", **SIZES}, "advance": {"steps": 4}},
        ],
        "checkpoint": {"directory": "/replaced", "everySteps": 3},
        "placements": [{"name": "here", "cpu": {"hosts": 1}}],
        "reproducibility": {"mode": "Exact", **reproducibility},
    }
    return RLTrainingJob.model_validate({"spec": spec})


def attempt(folder: Folder, processes: int, devices: int, until: int | None = None) -> list[int]:
    """One attempt; killed once step `until` is reported."""
    reached: list[int] = []
    gang = Gang.start(folder, processes, devices=devices, listener=lambda d: reached.append(d["step"]))
    try:
        while (codes := gang.wait(0.02)) is None:
            if until is not None and reached and reached[-1] >= until:
                gang.send(signal.SIGKILL)
    finally:
        gang.end()
    return codes


def straight(folder: Folder, processes: int, devices: int) -> dict[str, Any]:
    codes = attempt(folder, processes, devices)
    assert codes == [Exit.DONE] * processes, (folder.local / "process-0.log").read_text()[-3000:]
    found = folder.result()
    assert found["exactSince"] is None
    return {name: found[name] for name in ("step", *HASHES)}


@pytest.mark.timeout(900)
def test_the_bits_are_those_of_one_device_on_four_and_through_kills_and_changes(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    one, four, changing = (Folder(tmp_path / name, "x", job(virtualShards=4), cache) for name in ("1", "4", "c"))
    expected = straight(one, 1, 1)
    assert straight(four, 1, 4) == expected
    assert attempt(changing, 1, 4, until=5) == [-signal.SIGKILL]
    assert attempt(changing, 1, 1, until=14)[0] in (-signal.SIGKILL, Exit.DONE)
    assert straight(changing, 2, 1) == expected


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_one_hash_on_one_two_four_and_eight_devices(tmp_path: Path) -> None:
    found = {
        (processes, devices): straight(
            Folder(tmp_path / f"{processes}x{devices}", "x", job(), tmp_path / "cache"), processes, devices
        )
        for processes, devices in ((1, 1), (1, 2), (1, 4), (1, 8), (2, 1), (2, 2), (2, 4), (4, 1))
    }
    assert all(result == found[1, 1] for result in found.values()), found
