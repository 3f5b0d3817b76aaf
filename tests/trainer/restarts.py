"""Attempts on a checkpoint directory without training: what a restart finds there, and what it leaves as it is."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from ratchet_api.protocol import Exit
from ratchet_trainer.errors import TrainerError
from ratchet_trainer.process.agreement import Peers
from ratchet_trainer.process.environment import Environment
from ratchet_trainer.process.progress import Progress
from ratchet_trainer.process.runtime import Runtime, Saved
from ratchet_trainer.process.shutdown import Watchdog

STEPS = 4


def runtime(
    directory: Any, attempt: int, uid: str = "uid-1", last_step: int = 0, logs: Path | None = None, **spec: Any
) -> Runtime:
    """One process of an attempt, as in a pod."""
    log = (logs or directory.parent) / "termination"
    who = "default", "sums", uid, attempt, f"jobset-{uid}-{attempt}", last_step
    environment = Environment(*who, 1, 0, None, "127.0.0.1", log, log, log, None)
    plain = {
        "model": {"preset": "tiny"},
        "datasets": [{"name": "d", "jsonl": {"path": "/unused"}}],
        "stages": [{"name": "only", "sft": {"dataset": "d"}, "advance": {"steps": 100}}],
        "checkpoint": {"directory": str(directory), "keep": 3},
        "placements": [{"name": "here", "cpu": {"hosts": 1}}],
    }
    plain["checkpoint"] |= spec.pop("checkpoint", {})
    job = {"v": 1, "namespace": "default", "name": "sums", "jobUID": uid, "spec": plain | spec, "mayEnter": 0}
    return Runtime(environment, job, Peers(environment), Watchdog(log), Progress(environment))


def restored(one: Runtime) -> Saved | None:
    replicated = jax.sharding.NamedSharding(one.mesh, jax.sharding.PartitionSpec())
    return one.restore(lambda path, shape: replicated)


def state(step: int) -> Saved:
    """A state that follows from its number."""
    values = np.random.default_rng(step).standard_normal((40, 30)).astype(np.float32)
    arrays = {"params/a": jax.numpy.asarray(values), "optimizer/mu": jax.numpy.asarray(values[0] * 2)}
    control = {"stage": {"name": "only", "index": 0, "start_step": 0}, "step": step, "metricsDigest": ""}
    return Saved(step, arrays, control, [b'{"step":%d}\n' % step])


def made(one: Runtime, first: int, last: int) -> None:
    for step in range(first, last + 1):
        one.commit(state(step), wait=True)


def goes_on(directory: Path, step: int, last_step: int = STEPS, **changes: Any) -> None:
    """A restart is at `step` with the state of that step, makes the rest, and the next one finds all of it."""
    heir = runtime(directory, 2, last_step=last_step, **changes)
    found = restored(heir)
    assert found.step == step
    expected = state(step)
    assert all((np.asarray(found.arrays[p]) == np.asarray(expected.arrays[p])).all() for p in expected.arrays)
    assert found.control == expected.control
    made(heir, step + 1, STEPS + 1)
    assert restored(runtime(directory, 3, last_step=STEPS + 1, **changes)).step == STEPS + 1
    stream = (directory / "metrics.jsonl").read_bytes()
    lines = [json.loads(line)["step"] for line in stream.splitlines() if line.strip()]
    assert lines[-2:] == [STEPS, STEPS + 1]
    assert lines == sorted(set(lines)), "no line stands twice"


def refused(directory: Path, code: Exit, *words: str, attempt: int = 2, **changes: Any) -> None:
    """A start leaves with the code; its message has the words; every file is as it was."""
    before = contents(directory)
    with pytest.raises(TrainerError) as caught:
        restored(runtime(directory, attempt, **changes))
    assert caught.value.exit == code, caught.value
    for word in (str(directory), *words):
        assert word in str(caught.value)
    after = contents(directory)
    assert {name: after.get(name) for name in before} == before, "what was there is as it was"
    assert all(name.startswith(("journal/", "ledger/")) for name in after.keys() - before.keys())


def contents(directory: Path) -> dict[str, bytes]:
    if not directory.is_dir():
        return {".": directory.read_bytes()} if directory.exists() else {}
    return {str(f.relative_to(directory)): f.read_bytes() for f in directory.rglob("*") if f.is_file()}


def newest(directory: Path) -> Path:
    (folder,) = (directory / "steps").glob(f"{STEPS}-*")
    return folder


def entry(directory: Path, number: int) -> Path:
    return directory / "journal" / f"{number:010d}.json"


def altered(file: Path, change: Callable[[Any], None]) -> None:
    data = json.loads(file.read_bytes())
    change(data)
    file.write_text(json.dumps(data))


def fill(disk: Path) -> Path:
    """Fills a file system; the file that it returns can be removed again."""
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 1024):
            pass
    return ballast
