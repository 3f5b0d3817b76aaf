"""How long programs take to compile, as ratios of a deep model to a shallow one of the same widths.

    python bench/compile.py [--json FILE] [--tpu-only]

The widths of SmolLM2-135M (vocabulary 49,152, width 576, 9 heads over 3, SwiGLU 1,536) with 6 and with 30 layers:
update, prefill and decode. First for the processor that is here, where layers are compiled one by one because a loop
pays neither in compile time nor in speed (8 prompts of 80 tokens, 8 responses of 16 each, float32); then, where libtpu
is installed, by the real TPU compiler for a v5e 2x4, where layers that are alike are a loop (64 prompts of 256 tokens,
8 responses of 256, bfloat16, activation checkpointing, fsdp 8). No TPU is needed for that: `pip install 'jax[tpu]'`.

Every measurement is a process of its own. Printed are seconds and the time of processors, which other load on the
machine changes less, and the ratio of both.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SHALLOW, DEEP = 6, 30
TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
TOPOLOGY = "v5e:2x4"


def compiled(layers: int, tpu: bool) -> dict[str, Any]:
    """Seconds, time of processors and bytes of temporaries (a device) of each program."""
    import jax

    from ratchet_api.stages import Rl
    from ratchet_trainer.algorithm.methods import resolve
    from ratchet_trainer.learning import optimizer
    from ratchet_trainer.learning.learner import Layout, Learner
    from ratchet_trainer.model.architecture import Architecture, Layer
    from ratchet_trainer.model.computation import Computation
    from ratchet_trainer.model.policy import Policy
    from ratchet_trainer.model.sharding import of_parameters, shapes
    from ratchet_trainer.process import distributed
    from ratchet_trainer.rollout.sampler import Sampler

    shape = Architecture(49_152, 576, 9, 1536, (Layer(),) * layers, kv_heads=3)
    prompts, samples, prompt_tokens, tokens = (64, 8, 256, 256) if tpu else (8, 8, 80, 16)
    mesh = _tpu_mesh() if tpu else distributed.one_device()
    policy = Policy(shape, Computation.on(mesh, *("bfloat16", True) if tpu else ()))
    sampler, learner = Sampler(policy, mesh, ()), Learner(policy, mesh)
    abstract = policy.abstract, jax.eval_shape(optimizer.init, policy.abstract)
    shaped = shapes(abstract, of_parameters(mesh, abstract))
    layout = Layout.of(prompts * samples, samples, learner.parts, prompt_tokens, tokens)
    objective = resolve(Rl.model_validate({"dataset": "none", "maxResponseTokens": tokens})).objective
    numbers = {"learning_rate": 1e-5, "weight_decay": 0.0, "clip_norm": 1.0}
    found: dict[str, Any] = {}

    def measured(name: str, prepare: Any) -> None:
        temporaries = []
        compile = jax.stages.Lowered.compile

        def seen(self: Any) -> Any:
            made = compile(self)
            temporaries.append(made.memory_analysis().temp_size_in_bytes)
            return made

        jax.stages.Lowered.compile = seen
        began = time.perf_counter(), time.process_time()
        prepare()
        found[name] = {
            "seconds": round(time.perf_counter() - began[0], 2),
            "processorSeconds": round(time.process_time() - began[1], 2),
            "temporaryBytes": max(temporaries),
        }
        jax.stages.Lowered.compile = compile

    measured(
        "update",
        lambda: learner.prepare(*shaped, layout, objective, numbers, sampled=True, old=False, reference=False),
    )
    measured("prefill and decode", lambda: sampler.prepare(shaped[0], prompts, prompt_tokens, samples, tokens))
    return found


def _tpu_mesh() -> Any:
    import jax
    import numpy as np
    from jax.experimental import topologies

    from ratchet_trainer.process.distributed import AXES

    devices = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGY).devices
    kinds = (jax.sharding.AxisType.Auto,) * len(AXES)
    return jax.sharding.Mesh(np.array(devices).reshape(1, -1, 1), AXES, axis_types=kinds)


def measure(where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for layers in (SHALLOW, DEEP):
        command = [sys.executable, __file__, "--one", str(layers), *["--tpu"] * (where != "cpu")]
        environment = os.environ | {"JAX_PLATFORMS": "cpu"} | (TPU if where != "cpu" else {})
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
        found[str(layers)] = json.loads(done.stdout.splitlines()[-1])
    for name in found[str(DEEP)]:
        shallow, deep = (found[str(layers)][name] for layers in (SHALLOW, DEEP))
        ratios = {key: round(deep[key] / shallow[key], 2) for key in ("seconds", "processorSeconds")}
        found[name] = ratios
        print(
            f"{where:8} {name:20} {shallow['seconds']:5.1f} s for {SHALLOW}, {deep['seconds']:6.1f} s for {DEEP}: "
            f"{ratios['seconds']:.2f}, of processors' time {ratios['processorSeconds']:.2f} "
            f"({deep['processorSeconds']:.1f} s); {deep['temporaryBytes'] / 1e9:.2f} GB of temporaries",
            flush=True,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--tpu-only", action="store_true", help="leave out the processor that is here")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--tpu", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(compiled(arguments.one, arguments.tpu)))
        return
    found = {} if arguments.tpu_only else {"cpu": measure("cpu")}
    if importlib.util.find_spec("libtpu") is None:
        print("tpu      not measured: there is no libtpu here (pip install 'jax[tpu]')")
    else:
        found[TOPOLOGY] = measure(TOPOLOGY)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
