"""A trainer process whose training takes milliseconds: the real runtime around a few arrays and a collective.

Started by the tests as a program. What it does besides is said by the file `small.json` beside the job file:
`hold: "PHASE:STEP"` process 0 stands still there until the file `release` exists, and says so in the file `held`;
`raise: "NAME:STEP"` raises that error there, on every process;
`largest: "BYTES:STEP"` from that step on no file may grow beyond so many bytes, like a full disk;
`word: S` waits so many seconds for a gate; `patience: S` calls it a hang after so many without a sign of life.
At its end each process says in `compiled-N.json` how often it asked the compilation cache and found what it wanted.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import resource
import signal
import sys
import time
from pathlib import Path

from ratchet_trainer import app
from ratchet_trainer.storage import retries

LOCAL = Path(os.environ["RATCHET_JOB_FILE"]).parent
SETTINGS = json.loads((LOCAL / "small.json").read_text()) if (LOCAL / "small.json").exists() else {}
HOLD, HOLD_STEP = SETTINGS.get("hold", ":0").split(":")
RAISE, RAISE_STEP = SETTINGS.get("raise", ":0").split(":")
LARGEST, LARGEST_STEP = map(int, SETTINGS.get("largest", "0:0").split(":"))
COUNTED = ("compile_requests_use_cache", "cache_hits")


def maybe_hold(runtime, phase: str, step: int) -> None:
    if (phase, step) == (HOLD, int(HOLD_STEP)) and runtime.process == 0 and not (LOCAL / "release").exists():
        (LOCAL / "held").touch()
        while not (LOCAL / "release").exists():
            time.sleep(0.005)


def maybe_fail(runtime, step: int) -> None:
    if RAISE and step == int(RAISE_STEP):
        from ratchet_trainer import errors

        raise getattr(errors, RAISE, RuntimeError)("as the test wants it")
    if LARGEST and step == LARGEST_STEP:
        runtime.wait_for_commits()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, LARGEST))


def run(runtime) -> None:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from ratchet_trainer.errors import Drain
    from ratchet_trainer.process.runtime import Saved
    from ratchet_trainer.step.state import metric_line

    events: list[str] = []
    jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
    spec = jax.sharding.PartitionSpec
    replicated = jax.sharding.NamedSharding(runtime.mesh, spec())
    shared = jax.sharding.NamedSharding(runtime.mesh, spec("data"))
    saved = runtime.restore(lambda path, shape: replicated)
    maybe_hold(runtime, "restore", saved.step if saved else 0)
    if saved is None:
        arrays = {f"params/{i}": np.full((64, 8), i, np.float32) for i in range(3)} | {
            "optimizer/mu": np.zeros((100,), jnp.bfloat16)
        }
        arrays = {path: jax.device_put(leaf, replicated) for path, leaf in arrays.items()}
        stage = {"name": runtime.job.spec.stages[0].name, "index": 0, "start_step": 0, "done": False}
        saved = Saved(0, arrays, {"stage": stage, "metricsDigest": ""})
    step, arrays, control = saved.step, saved.arrays, saved.control
    committed, lines = step, []
    runtime.enter("compile")
    maybe_hold(runtime, "compile", step)

    @jax.jit
    def update(arrays, batch):
        mean = batch.mean()
        return {path: (0.99 * leaf + mean * jnp.sin(leaf)).astype(leaf.dtype) for path, leaf in arrays.items()}

    def commit(boundary=None) -> None:
        nonlocal committed, lines
        runtime.commit(Saved(step, arrays, control, lines), boundary, wait=boundary is not None)
        committed, lines = step, []

    try:
        while True:
            stage = control["stage"]
            end = stage["start_step"] + runtime.job.spec.stages[stage["index"]].advance.steps
            while step < end:
                rows = np.arange(8, dtype=np.float32) + step
                batch = jax.make_array_from_callback((8,), shared, lambda index, rows=rows: rows[index])
                for _ in range(3):
                    runtime.enter("generate")
                    maybe_hold(runtime, "generate", step + 1)
                    runtime.safe_point()
                maybe_fail(runtime, step + 1)
                runtime.enter("update")
                arrays = jax.block_until_ready(update(arrays, batch))
                step += 1
                line = metric_line(step, stage["name"], {"train/mean": rows.mean(), "train/kl": math.nan})
                lines = [*lines, line]
                digest = hashlib.sha256(bytes.fromhex(control["metricsDigest"]) + line).hexdigest()
                control = control | {"metricsDigest": digest, "stage": stage | {"done": step == end}}
                if step == end:
                    commit({"stage": stage["index"], "step": step, "rule": f"steps {end}"})
                elif step - committed >= runtime.job.spec.checkpoint.every_steps or runtime.commit_requested:
                    commit()
                shown = {"name": stage["name"], "index": stage["index"], "startStep": stage["start_step"]}
                record = {"train/reward": 0.5, "train/accuracy": step / 100}
                runtime.step_done(step, end, shown, record, {"tokensPerSecond": 100.0})
            waits = runtime.job.spec.stages[stage["index"]].advance.approval == "Manual"
            gate = runtime.boundary(stage["index"], step, f"steps {end}", waits)
            if gate.finish:
                compiled = {name: events.count(f"/jax/compilation_cache/{name}") for name in COUNTED}
                (LOCAL / f"compiled-{runtime.process}.json").write_text(json.dumps(compiled))
                return
            index = stage["index"] + 1
            name = runtime.job.spec.stages[index].name
            control = control | {"stage": {"name": name, "index": index, "start_step": step, "done": False}}
    except Drain:
        if step > committed:
            commit()
        runtime.wait_for_commits()
        raise


if __name__ == "__main__":
    retries.BACK_OFF_SECONDS = (0.01, 0.01)
    if SETTINGS:
        from ratchet_trainer.process import runtime as real

        real.BOUNDARY_WAIT_SECONDS = SETTINGS.get("word", real.BOUNDARY_WAIT_SECONDS)
        if "patience" in SETTINGS:
            real.Runtime.patience = lambda self, phase: SETTINGS["patience"]
    sys.exit(app.main(run))
