"""Trackers with packages of their own: the real ones, where they are installed (`pip install -e '.[trackers]'`)."""

from __future__ import annotations

import importlib.util
import random
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_trackers import KILLS, STEPS, committed, job, killed_at, to_the_end

from ratchet_trainer.tools.local import Folder

pytestmark = pytest.mark.soak
Points = dict[str, list[tuple[int, float]]]


def needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install -e '.[trackers]'")


def in_mlflow(folder: Path) -> Points:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=str(folder / "mlflow"))
    (experiment,) = [e for e in client.search_experiments() if e.name == "small"]
    (run,) = client.search_runs([experiment.experiment_id])
    names = run.data.metrics
    return {name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)] for name in names}


def in_trackio(folder: Path) -> Points:
    from trackio.sqlite_storage import SQLiteStorage

    (name,) = SQLiteStorage.get_runs("sums")
    rows = SQLiteStorage.get_logs("sums", name)
    return {tag: [(row["step"], row[tag]) for row in rows] for tag in ("train/mean", "train/kl")}


def in_wandb(folder: Path) -> Points:
    """Of the files that `wandb sync` sends: records of wandb's messages in the format of LevelDB's log."""
    import json

    from wandb.proto import wandb_internal_pb2

    (file,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    found: Points = {}
    for data in leveldb_log(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            for item in record.history.item:
                name = item.key or "/".join(item.nested_key)
                if not name.startswith("_"):
                    found.setdefault(name, []).append((record.history.step.num, float(json.loads(item.value_json))))
    return found


def leveldb_log(data: bytes) -> Iterator[bytes]:
    """The records behind the file's seven bytes of header, which are part of the first block of 32 KiB."""
    at, whole = 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        size, kind = struct.unpack_from("<HB", data, at + 4)
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


@pytest.mark.parametrize(
    ("package", "settings", "read"),
    [
        ("mlflow", {"mlflow": {}}, in_mlflow),
        ("trackio", {"trackio": {"project": "sums"}}, in_trackio),
        ("wandb", {"wandb": {"project": "sums", "mode": "Offline"}}, in_wandb),
    ],
)
def test_every_step_is_there_once_after_five_kills(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    settings: dict[str, Any],
    read: Callable[[Path], Points],
) -> None:
    needs(package)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "work" / "trackio"))
    folder = Folder(tmp_path / "work", "small", job(settings))
    draw = random.Random(package)
    for step in sorted(draw.sample(range(2, STEPS), KILLS)):
        killed_at(folder, step, draw.uniform(0.2, 3.5))
    heard = to_the_end(folder)
    assert heard[-1] == {"name": package, "state": "Following", "step": STEPS, "message": ""}
    found = read(folder.path)
    assert found["train/mean"] == [
        (line["step"], float(line["metrics"]["train/mean"])) for line in committed(folder.path)
    ]
    assert [step for step, _ in found["train/kl"]] == list(range(1, STEPS + 1))


def test_a_server_that_never_answers_costs_the_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "600")
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        folder = Folder(tmp_path / "work", "small", job({"mlflow": {"trackingURI": uri}, "tensorBoard": {}}))
        heard = to_the_end(folder)
    assert len(committed(folder.path)) == STEPS
    told = {tracker["name"]: tracker for tracker in heard}
    assert told["tensorBoard"] == {"name": "tensorBoard", "state": "Following", "step": STEPS, "message": ""}
    assert (told["mlflow"]["state"], told["mlflow"]["step"]) == ("Behind", None)
    assert "it has not answered for 15 s" in told["mlflow"]["message"]


@pytest.mark.parametrize(
    ("environment", "state", "words"),
    [
        ({}, "Left", "set WANDB_API_KEY in spec.podTemplate.env"),
        ({"WANDB_API_KEY": "k" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}, "Behind", "is tried again"),
    ],
)
def test_wandb_without_a_key_is_left_and_without_a_server_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], state: str, words: str
) -> None:
    needs("wandb")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    folder = Folder(tmp_path / "work", "small", job({"wandb": {"project": "sums"}}))
    heard = to_the_end(folder)
    assert len(committed(folder.path)) == STEPS
    assert heard[-1]["state"] == state, heard
    assert words in heard[-1]["message"] or "it has not answered" in heard[-1]["message"]
