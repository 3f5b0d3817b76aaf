"""What a save and a restore cost where every process has its part of a large state.

    python bench/sharded_saves.py [--folder DIR] [--layers N] [--json FILE]

A Llama shape of a billion parameters (vocabulary 32,000, width 2,048, 20 layers, SwiGLU 5,632, untied) with both of
Adam's moments, all bfloat16 (6.1 GB), on CPUs: 4 processes save it (mesh fsdp 4), 2 and 8 restore it (fsdp 2; fsdp 4 x
tensor 2), and a stock Orbax checkpointer opens it. Printed are, of the save, the most that any process's resident
memory grows by, over the bytes of its own shards; bytes in the folder over bytes of the state; of each restore the
bytes that a process read over those that its devices hold, and whether every bit is right; and seconds, for the disk
that DIR is on. Memory of the devices is the host's here: before a save it is there already, after a restore it is part
of the growth.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ratchet_api.job import RLTrainingJob
from ratchet_api.protocol import Exit

LAYERS = 20
SAVED_BY, RESTORED_BY = (4, 4, 1), ((2, 2, 1), (8, 4, 2))
"""Processes, fsdp, tensor."""
SETTINGS = "sharded-saves.json"


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """The state's arrays."""
    from ratchet_trainer.model.architecture import Architecture, Layer
    from ratchet_trainer.model.policy import Policy
    from ratchet_trainer.step.state import flat_paths

    shape = Architecture(
        vocabulary=32_000, width=2048, heads=32, kv_heads=4, hidden=5632, layers=(Layer(),) * layers, tied=False
    )
    weights = Policy(shape).abstract
    tree = {"params": weights, "optimizer": {"mu": weights, "nu": weights}}
    return {path: tuple(leaf.shape) for path, leaf in flat_paths(tree).items()}


def values(number: int, shape: tuple[int, ...], index: tuple[slice, ...]) -> np.ndarray:
    """What is in a part of array `number`: bits that follow from where they stand."""
    import ml_dtypes

    at = np.zeros((), np.uint32)
    for size, part in zip(shape, index, strict=True):
        at = at[..., None] * np.uint32(size) + np.arange(*part.indices(size), dtype=np.uint32)
    at += np.uint32(number * 97)
    at *= np.uint32(2654435761)
    at >>= np.uint32(16)
    return at.astype(np.uint16).view(ml_dtypes.bfloat16)


def resident(field: str) -> int:
    """Bytes of VmRSS or VmHWM of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


def from_here() -> int:
    """Bytes that are resident now; the peak is counted from here on."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def bytes_read() -> int:
    import tensorstore as ts

    found = ts.experimental_collect_matching_metrics("/tensorstore/kvstore/file/bytes_read")
    return sum(int(value["value"]) for metric in found for value in metric["values"])


def run(runtime: Any) -> None:
    """One process: restores what there is, saves if it is told to, and writes down what it saw."""
    import jax

    from ratchet_trainer.checkpoints import parts
    from ratchet_trainer.learning import host_memory
    from ratchet_trainer.model.sharding import of_parameter
    from ratchet_trainer.process.distributed import AXES
    from ratchet_trainer.process.runtime import Saved

    host_memory.tune_allocator(host_memory.LARGE)
    local = Path(os.environ["RATCHET_JOB_FILE"]).parent
    settings = json.loads((local / SETTINGS).read_text())
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(-1, settings["fsdp"], settings["tensor"]), AXES)
    lies = lambda path, shape: of_parameter(mesh, path, shape)  # noqa: E731
    state = shapes(settings["layers"])
    numbers = {path: number for number, path in enumerate(state)}

    before, began = from_here(), time.perf_counter()
    saved = runtime.restore(lies)
    found: dict[str, Any] = {"seconds": time.perf_counter() - began}
    if saved is not None:
        held = sum(shard.data.nbytes for array in saved.arrays.values() for shard in array.addressable_shards)
        found |= {"ownBytes": held, "growth": (resident("VmHWM") - before) / held, "read": bytes_read() / held}
        found["right"] = all(
            np.asarray(shard.data).tobytes() == values(numbers[path], state[path], shard.index).tobytes()
            for path, array in saved.arrays.items()
            for shard in array.addressable_shards
        )
    else:
        arrays = {
            path: jax.make_array_from_callback(
                shape, lies(path, shape), lambda index, path=path, shape=shape: values(numbers[path], shape, index)
            )
            for path, shape in state.items()
        }
        control = {"stage": {"name": "only", "index": 0, "start_step": 0}, "metricsDigest": ""}
        me = jax.process_index(), jax.process_count()
        own = sum(parts.bytes_of(parts.host_part({path: array}, *me)) for path, array in arrays.items())
        before, began = from_here(), time.perf_counter()
        runtime.commit(Saved(1, arrays, control, []), None)
        found["blockingSeconds"] = time.perf_counter() - began
        runtime.wait_for_commits()
        found |= {"seconds": time.perf_counter() - began, "ownBytes": own}
        found["growth"] = (resident("VmHWM") - before) / own
    (local / f"found-{runtime.process}.json").write_text(json.dumps(found))


def gang(folder: Any, processes: int, fsdp: int, tensor: int, layers: int) -> list[dict[str, Any]]:
    """What each process of a gang found."""
    from ratchet_trainer.tools.local import Gang

    settings = {"fsdp": fsdp, "tensor": tensor, "layers": layers}
    (folder.local / SETTINGS).write_text(json.dumps(settings))
    one = Gang.start(folder, processes, command=(sys.executable, __file__, "--process"))
    codes = one.wait()
    if codes != [Exit.DONE] * processes:
        sys.exit(f"{codes}: {(folder.local / 'process-0.log').read_text()[-3000:]}")
    return [json.loads((folder.local / f"found-{p}.json").read_text()) for p in range(processes)]


def opened_by_orbax(arrays: Path, layers: int) -> bool:
    """Whether a stock Orbax checkpointer finds the same bits; in a process of its own, which needs all the state."""
    import orbax.checkpoint as ocp

    tree = ocp.PyTreeCheckpointer().restore(arrays)
    for number, (path, shape) in enumerate(shapes(layers).items()):
        found = tree
        for key in path.split("/"):
            found = found[key]
        if np.asarray(found).tobytes() != values(number, shape, (slice(None),) * len(shape)).tobytes():
            return False
    return True


def measure(place: Path, layers: int) -> dict[str, Any]:
    """Every figure, printed as it comes."""
    from ratchet_trainer.tools.local import Folder

    spec = {
        "model": {"preset": "tiny"},
        "datasets": [{"name": "d", "jsonl": {"path": "/unused"}}],
        "stages": [{"name": "only", "sft": {"dataset": "d"}, "advance": {"steps": 1}}],
        "checkpoint": {"directory": "/replaced"},
        "placements": [{"name": "here", "cpu": {"hosts": 1}}],
    }
    folder = Folder(place, "sharded-saves", RLTrainingJob.model_validate({"spec": spec}))
    state = 2 * sum(int(np.prod(shape)) for shape in shapes(layers).values())
    print(f"{state / 6e9:.2f} billion parameters, {state / 1e9:.2f} GB with moments in bfloat16", flush=True)

    saved = gang(folder, *SAVED_BY, layers)
    commit = folder.last_commit()
    assert commit is not None
    arrays = folder.path / commit.path / "arrays"
    written = sum(f.stat().st_size for f in arrays.rglob("*") if f.is_file())
    found: dict[str, Any] = {
        "stateBytes": state,
        "saveGrowth": max(one["growth"] for one in saved),
        "writtenOfState": written / state,
        "ownOfState": sum(one["ownBytes"] for one in saved) / state,
        "saveSeconds": max(one["seconds"] for one in saved),
        "saveBlockingSeconds": max(one["blockingSeconds"] for one in saved),
    }
    print(
        f"saved by {SAVED_BY[0]} processes: memory grows by {found['saveGrowth']:.2f} of the own shards; written "
        f"{found['writtenOfState']:.4f} of the state, {found['saveSeconds']:.1f} s, of which "
        f"{found['saveBlockingSeconds']:.1f} s hold the step up",
        flush=True,
    )
    for processes, fsdp, tensor in RESTORED_BY:
        ones = gang(folder, processes, fsdp, tensor, layers)
        one = {
            "right": all(one["right"] for one in ones),
            "read": max(one["read"] for one in ones),
            "growth": max(one["growth"] for one in ones),
            "seconds": max(one["seconds"] for one in ones),
        }
        found[f"restoredBy{processes}"] = one
        bits = "every bit" if one["right"] else "WRONG"
        print(
            f"restored by {processes} (fsdp {fsdp} x tensor {tensor}): {bits}; read {one['read']:.3f} of what devices "
            f"hold, memory grows by {one['growth']:.2f} of it; {one['seconds']:.1f} s",
            flush=True,
        )
    command = [sys.executable, __file__, "--orbax", str(arrays), "--layers", str(layers)]
    found["orbaxOpens"] = subprocess.run(command, env=os.environ | {"JAX_PLATFORMS": "cpu"}).returncode == 0
    print(f"stock Orbax: {'every bit' if found['orbaxOpens'] else 'WRONG'}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, help="an empty folder with room for the state (default: a temporary one)"
    )
    parser.add_argument("--layers", type=int, default=LAYERS, help="fewer, to try it out")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--process", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--orbax", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.process:
        from ratchet_trainer import app

        app.main(run)
    if arguments.orbax:
        sys.exit(0 if opened_by_orbax(arguments.orbax, arguments.layers) else 1)
    with tempfile.TemporaryDirectory() as temporary:
        found = measure(arguments.folder or Path(temporary), arguments.layers)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
