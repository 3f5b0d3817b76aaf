"""`ratchet train` and `ratchet prove` on a run of milliseconds: real processes, killed for real."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from ratchet_api.job import RLTrainingJob
from ratchet_api.protocol import Exit
from ratchet_trainer.tools.local import Folder, FolderInUse, train, verdict
from ratchet_trainer.tools.prove import MOMENTS, prove, schedule

SMALL_RUN = (sys.executable, str(Path(__file__).with_name("small_run.py")))


def job(every_steps: int = 1, steps: int = 15) -> RLTrainingJob:
    stage = {"sft": {"dataset": "d"}, "advance": {"steps": steps}}
    spec = {
        "model": {"preset": "tiny"},
        "datasets": [{"name": "d", "jsonl": {"path": "/unused"}}],
        "stages": [{"name": "first", **stage}, {"name": "second", **stage}],
        "checkpoint": {"directory": "/replaced", "everySteps": every_steps},
        "placements": [{"name": "here", "cpu": {"hosts": 2}}],
    }
    return RLTrainingJob.model_validate({"spec": spec})


@pytest.mark.parametrize(("processes", "every_steps", "seed"), [(2, 1, 3), (2, 4, 8), (1, 4, 5)])
def test_kills_change_no_bit(tmp_path: Path, processes: int, every_steps: int, seed: int) -> None:
    said: list[str] = []
    found = prove(tmp_path, "small", job(every_steps), processes, 4, seed, said.append, command=SMALL_RUN)
    assert found["equal"], "\n".join(said)
    assert found["steps"] == [30, 30]
    assert found["stepsLostWithNotice"] == 0
    assert all(r["stepsLost"] <= every_steps for r in found["recoveries"])


def test_a_run_that_is_not_exact_is_found_out(tmp_path: Path) -> None:
    """The proof must be able to fail: this program trains on what the clock says."""
    program = tmp_path / "inexact.py"
    program.write_text(Path(SMALL_RUN[1]).read_text().replace("+ step\n", "+ time.time() % 1\n"))
    assert "time.time()" in program.read_text()
    found = prove(
        tmp_path / "proof", "small", job(steps=3), 1, 0, 0, lambda _: None, command=(sys.executable, str(program))
    )
    assert not found["equal"]
    assert found["weightsSha256"][0] != found["weightsSha256"][1]


def test_schedules_follow_from_the_seed_and_reach_every_moment() -> None:
    assert schedule(6, 3, 100, 2) == schedule(6, 3, 100, 2)
    assert schedule(6, 3, 100, 2) != schedule(6, 4, 100, 2)
    kills = [kill for seed in range(50) for kill in schedule(5, seed, 100, 2)]
    assert {k.moment for k in kills} == set(MOMENTS)
    assert {(k.graceful, k.process) for k in kills} == {(g, p) for g in (True, False) for p in (0, 1)}


def test_training_stops_at_a_step_and_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    parts, whole = (Folder(tmp_path / name, "small", job(every_steps=4)) for name in ("parts", "whole"))
    for until in (5, 15, 17):
        assert train(parts, 2, until_step=until, command=SMALL_RUN)[0] == Exit.DONE
        assert parts.result()["step"] == until
    assert train(parts, 2, command=SMALL_RUN)[0] == train(whole, 2, command=SMALL_RUN)[0] == Exit.DONE
    for name in ("step", "finished", "weightsSha256", "stateSha256", "metricsSha256"):
        assert parts.result()[name] == whole.result()[name], name
    assert (parts.path / "metrics.jsonl").read_bytes() == (whole.path / "metrics.jsonl").read_bytes()


def test_a_warm_start_compiles_nothing_on_any_process(tmp_path: Path) -> None:
    for name in ("cold", "warm"):
        folder = Folder(tmp_path / name, "small", job(steps=2), cache=tmp_path / "cache")
        assert train(folder, 2, command=SMALL_RUN)[0] == Exit.DONE
    for process in (0, 1):
        counted = json.loads((folder.local / f"compiled-{process}.json").read_text())
        assert 0 < counted["compile_requests_use_cache"] == counted["cache_hits"], f"process {process}"


def test_an_interrupted_run_drains(tmp_path: Path) -> None:
    folder, stop = Folder(tmp_path, "small", job(steps=100_000)), threading.Event()
    code, message = train(
        folder, 2, listener=lambda d: stop.set() if d["step"] >= 3 else None, stop=stop, command=SMALL_RUN
    )
    assert code == Exit.DRAINED
    assert message["step"] == folder.result()["step"] >= 3


def test_a_folder_has_one_user(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "small", job())
    with folder.locked(), pytest.raises(FolderInUse, match=str(os.getpid())), Folder(tmp_path, "small", job()).locked():
        pass
    with folder.locked():
        pass


def test_the_code_that_says_most() -> None:
    assert verdict([69, 64]) == 64
    assert verdict([69, 1]) == 1
    assert verdict([69, -signal.SIGKILL]) == -signal.SIGKILL
    assert verdict([75, 69]) == 75
    assert verdict([0, 0]) == 0


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    plain = {"apiVersion": "ratchet.dev/v1alpha1", "kind": "RLTrainingJob", "metadata": {"name": "small"}}
    manifest = plain | {"spec": job().spec.manifest()}
    manifest["spec"]["datasets"][0]["jsonl"]["path"] = str(tmp_path / "missing.jsonl")
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(manifest))
    command = [sys.executable, "-m", "ratchet_cli.main", "train", str(tmp_path / "job.yaml"), "--processes", "1"]
    result = tmp_path / "result.json"
    ended = subprocess.run(
        [*command, "--workdir", str(tmp_path / "work"), "--json", str(result)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == os.EX_DATAERR
    assert "missing.jsonl" in ended.stderr
    assert json.loads(result.read_text())["step"] == 0


def test_a_killed_command_leaves_no_process_behind(tmp_path: Path) -> None:
    driver = (
        "import sys; from pathlib import Path; import yaml; from ratchet_api.job import RLTrainingJob;"
        "from ratchet_trainer.tools.local import Folder, train;"
        "job = RLTrainingJob.model_validate(yaml.safe_load(sys.argv[1]));"
        "train(Folder(Path(sys.argv[2]), 'small', job), 2, command=sys.argv[3:],"
        " listener=lambda d: d['step'] >= 2 and print('going', flush=True))"
    )
    spec = yaml.safe_dump({"spec": job(steps=100_000).spec.manifest()})
    command = [sys.executable, "-c", driver, spec, str(tmp_path / "work"), *SMALL_RUN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "going\n"
        children = [int(pid) for pid in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]
        assert len(children) == 2
        handles = [os.pidfd_open(child) for child in children]
        parent.kill()
    for handle in handles:
        assert select.select([handle], [], [], 60)[0], "it runs on"
        os.close(handle)
    assert Folder(tmp_path / "work", "small", job()).result()["step"] >= 2, "it drained"
