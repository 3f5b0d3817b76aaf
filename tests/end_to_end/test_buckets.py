"""Runs whose checkpoints, compiled programs, model, data and export are in a bucket: killed and told to go, they come
to the bits of an undisturbed run on paths."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ratchet_api.job import RLTrainingJob
from ratchet_api.protocol import Exit
from ratchet_cluster.object_stores import ObjectStore
from ratchet_trainer import storage
from ratchet_trainer.process import ledger
from ratchet_trainer.step import samples
from ratchet_trainer.storage import Location
from ratchet_trainer.tools.local import Folder, Gang, train

pytestmark = pytest.mark.usefixtures("flags_of_the_product")

GOLDEN = Path(__file__).parents[1] / "golden/qwen2-tied"
SIZES = {"promptsPerStep": 4, "groupSize": 4, "maxPromptTokens": 16, "maxResponseTokens": 6}
STEPS = 8


def job(root: str) -> RLTrainingJob:
    """Everything that a manifest may name, under one root: a folder or a prefix."""
    spec: dict[str, Any] = {
        "model": {"path": f"{root}/model", "chatTemplate": "{{ messages[0]['content'] }}"},
        "datasets": [{"name": "d", "jsonl": {"path": f"{root}/items.jsonl"}}, {"name": "good", "fromStage": "look"}],
        "stages": [
            {
                "name": "look",
                "curate": {
                    "dataset": "d", "samples": 2, "promptsPerStep": 8, "keep": {"low": "0", "high": "1"},
                    "maxPromptTokens": 16, "maxResponseTokens": 6,
                },
            },
            {"name": "learn", "rl": {"dataset": "good", "method": "grpo", **SIZES}, "advance": {"steps": STEPS}},
        ],
        "export": {"directory": f"{root}/exports/final"},
        "checkpoint": {"directory": "/replaced", "everySteps": 2},
        "placements": [{"name": "here", "cpu": {"hosts": 2}}],
    }  # fmt: skip
    return RLTrainingJob.model_validate({"spec": spec})


def given(root: Location) -> None:
    """Model and data."""
    for file in sorted(GOLDEN.iterdir()):
        storage.write(root / "model" / file.name, file.read_bytes())
    lines = "".join(f'{{"question": "{i}?", "answer": "{i % 7}"}}\n' for i in range(16))
    storage.write(root / "items.jsonl", lines.encode())


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], dict[str, Any]]:
    """What the undisturbed run on paths comes to, and its export."""

    @cache
    def run() -> dict[str, Any]:
        root = tmp_path_factory.mktemp("calm")
        given(Location.parse(root))
        folder = Folder(root / "work", "buckets", job(str(root)), root / "cache")
        code, message = train(folder, 2)
        assert code == Exit.DONE, message
        return folder.result() | {"export": exported(Location.parse(root / "exports/final"))}

    return run


def exported(folder: Location) -> dict[str, bytes]:
    return {n: storage.read(folder / n) or b"" for n in storage.tree(folder) if n != "ratchet.json"}


@pytest.fixture(params=["gs", "s3"])
def bucket(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Location]:
    store = ObjectStore.begin(request.param, tmp_path_factory.mktemp(request.param))
    name = f"whole-runs-{store.port}"
    store.make_bucket(name)
    for key, value in store.env().items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("RATCHET_COPIES", str(tmp_path_factory.mktemp("copies")))
    yield Location(request.param, name, "")
    store.stop()


@pytest.mark.timeout(900)
def test_a_killed_run_in_a_bucket_comes_to_the_bits_of_a_calm_one_on_paths(
    calm: Callable[[], dict[str, Any]], bucket: Location, tmp_path: Path
) -> None:
    expected = calm()
    root = bucket / "jobs"
    given(root)
    folder = Folder(tmp_path / "work", "buckets", job(str(root)), bucket / "cache", bucket / "checkpoints/sums")
    codes = [
        disturbed(folder, after=3, process=1, number=signal.SIGKILL),
        disturbed(folder, after=5, process=0, number=signal.SIGTERM),
    ]
    assert codes[0][1] == -signal.SIGKILL
    assert codes[1] == [Exit.DRAINED, Exit.DRAINED]
    code, message = train(folder, 2)
    assert code == Exit.DONE, message
    found = folder.result()
    for name in ("step", "weightsSha256", "stateSha256", "metricsSha256", "streamSha256"):
        assert found[name] == expected[name], name
    assert exported(root / "exports/final") == expected["export"]
    assert json.loads(storage.read(root / "exports/final/ratchet.json"))["weightsSha256"] == found["weightsSha256"]

    # What else lies there.
    assert [line["exit"] for line in (lines[-1] for lines in ledger.read(folder.directory).values()) if "exit" in line]
    assert samples.read(folder.directory, 3)
    assert storage.names(bucket / "cache"), "compiled programs"
    assert not {"steps", "journal", "metrics.jsonl"} & set(storage.names(Location.parse(folder.path)))


def disturbed(folder: Folder, after: int, process: int, number: int) -> list[int]:
    """The exit codes of an attempt of which one process gets a signal once a step is made."""
    gang = Gang.start(folder, 2)
    try:
        while gang.document.get("step", 0) < after:
            assert gang.wait(0.01) is None, f"it ended before step {after}: {gang.termination()}"
        gang.send(number, process)
        codes = gang.wait(120)
        assert codes is not None, "it does not end"
        return codes
    finally:
        gang.end()
