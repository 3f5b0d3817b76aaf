"""A trainer process whose state lies on a mesh: it restores, compares, and saves once; a program of the tests.

`sharded.json` beside the job file: `fsdp`, `tensor`: the mesh, data is the rest; `step`: what is saved (absent:
nothing). `values`: from which every array follows. `killed: N`: process N is killed when it has written its part.
`full: N`: no file of process N may grow. Each process tells in `told-N.json` what it found.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path

import numpy as np

from ratchet_trainer import app
from ratchet_trainer.checkpoints import checkpoint
from ratchet_trainer.storage import retries

SHAPES = {
    "params/embedding": (512, 256),
    "params/blocks/0/attention/input": (256, 768),
    "params/blocks/0/mlp/output": (1024, 256),
    "params/blocks/0/mlp/input": (48, 40),  # smaller than the chunks that eight devices would want
    "params/norm/scale": (256,),
    "optimizer/mu/blocks/0/attention/input": (256, 768),
    "optimizer/count": (),
}
CONTROL = {"stage": {"name": "only", "index": 0, "start_step": 0}, "metricsDigest": ""}


def values_of(path: str, seed: int) -> np.ndarray:
    kind = np.int32 if path == "optimizer/count" else "bfloat16" if path.startswith("optimizer") else np.float32
    number = seed + sorted(SHAPES).index(path)
    return np.random.default_rng(number).standard_normal(SHAPES[path]).astype(kind)


def run(runtime) -> None:
    import jax

    from ratchet_trainer.model.sharding import of_parameter
    from ratchet_trainer.process.distributed import AXES
    from ratchet_trainer.process.runtime import Saved

    local = Path(os.environ["RATCHET_JOB_FILE"]).parent
    settings = json.loads((local / "sharded.json").read_text())
    sizes = -1, settings["fsdp"], settings["tensor"]
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(sizes), AXES)
    lies = lambda path, shape: of_parameter(mesh, path, shape)  # noqa: E731
    expected = {path: values_of(path, settings["values"]) for path in SHAPES}
    saved = runtime.restore(lies)
    told = {"step": saved.step if saved else 0, "right": True, "held": 0}
    if saved is not None:
        host = saved.arrays.pop("pending/tokens")
        told["right"] = saved.arrays.keys() == expected.keys() and (host == np.arange(7)).all().item()
        for path, array in saved.arrays.items():
            for shard in array.addressable_shards:
                told["right"] &= np.asarray(shard.data).tobytes() == expected[path][shard.index].tobytes()
                told["right"] &= shard.data.dtype == expected[path].dtype
                told["held"] += shard.data.nbytes
    (local / f"told-{runtime.process}.json").write_text(json.dumps(told))
    if "step" not in settings:
        return
    arrays = {
        path: jax.make_array_from_callback(leaf.shape, lies(path, leaf.shape), lambda index, leaf=leaf: leaf[index])
        for path, leaf in expected.items()
    } | {"pending/tokens": np.arange(7)}
    if settings.get("killed") == runtime.process:
        write_part = checkpoint.Checkpoints.write_part
        checkpoint.Checkpoints.write_part = lambda *a: (write_part(*a), os.kill(os.getpid(), signal.SIGKILL))
    if settings.get("full") == runtime.process:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    runtime.commit(Saved(settings["step"], arrays, CONTROL, []), None, wait=True)


if __name__ == "__main__":
    retries.BACK_OFF_SECONDS = (0.01,)
    sys.exit(app.main(run))
