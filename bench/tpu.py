"""What TPU programs move and compute, over what they cannot do without: the TPU compiler's estimate, not a run.

    python bench/tpu.py [--json FILE] [--only NAME ...] [--check]

For each slice and model the programs of one stage (64 prompts of 256 tokens, 8 responses of 512 to each, bfloat16,
activation checkpointing, parameters spread over all devices) are compiled by the real TPU compiler, without a TPU:
`pip install 'ratchet-rl[tpu]'`. Printed are, of one device,

- memory over HBM, and compile seconds;
- of an update: flops over those of a forward and a backward pass, and `memory / compute`: the time that its bytes take
  at the bandwidth of HBM over the time that its flops take at the peak of the matrix units. At most 1 would mean that
  memory need not be waited for;
- of decoding: bytes of a token, a mean over a response, over weights once and live cache once.

Bytes and flops are counted in the compiled program's text, each loop's body as often as it runs
(`tools/hlo_traffic.py`); those of attention's kernels by formula. `--check` compares that count with programs whose
layers are unrolled: one layer and two, from which the rest follows.

Every slice and model is a process of its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

MODELS = Path(__file__).parents[1] / "examples/gke/models"
NAMES = ("SmolLM2-135M-Instruct", "Qwen2.5-0.5B-Instruct", "Qwen2.5-1.5B-Instruct", "Qwen2.5-7B-Instruct")
SLICES = {
    "v5e 2x4": {"accelerator": "tpu-v5-lite-podslice", "topology": "2x4", "chipsPerNode": 8},
    "v6e 4x4": {"accelerator": "tpu-v6e-slice", "topology": "4x4"},
    "v5p 2x2x2": {"accelerator": "tpu-v5p-slice", "topology": "2x2x2"},
}
PROMPTS, SAMPLES, PROMPT_TOKENS, TOKENS, ROWS = 64, 8, 256, 512, 8
DEVICES = {"v5e 2x4": 8, "v6e 4x4": 16, "v5p 2x2x2": 8}


def manifest(where: str) -> dict[str, Any]:
    rl = {"dataset": "d", "method": "dr-grpo", "promptsPerStep": PROMPTS, "groupSize": SAMPLES}
    rl |= {"maxPromptTokens": PROMPT_TOKENS, "maxResponseTokens": TOKENS, "rowsPerPass": ROWS}
    return {
        "model": {"path": "/models/one", "dtype": "bfloat16", "activationCheckpointing": True},
        "parallelism": {"fsdp": DEVICES[where]},
        "datasets": [{"name": "d", "reasoningGym": {"task": "chain_sum", "size": 100}}],
        "stages": [{"name": "r", "rl": rl, "advance": {"steps": 1}}],
        "checkpoint": {"directory": "/c", "claimName": "c"},
        "placements": [{"name": "p", **SLICES[where]}],
    }


def measured(where: str, model: str, layers: int | None, unrolled: bool) -> dict[str, Any]:
    """Of each kind of program what is found, summed over the programs of one response where there are several."""
    from ratchet_trainer.tools import fit_topology

    spec_of = manifest(where)
    fit_topology.set_environment(spec_of)
    from ratchet_api.job import Spec
    from ratchet_trainer.model import computation
    from ratchet_trainer.rollout.sampler import Pace, chunk_of, reach_of
    from ratchet_trainer.tools.fit_compile import Compiler
    from ratchet_trainer.tools.fit_programs import Job, absent_model

    if unrolled:
        computation.UNROLLED = (*computation.UNROLLED, "tpu")
    spec = Spec.model_validate(spec_of)
    placement = spec.placements[0]
    chip, devices = fit_topology.chip_of(placement), fit_topology.devices_of(placement)
    assert chip is not None, "all are TPUs"
    architecture, ends = absent_model(MODELS / model / "config.json")
    if layers is not None:
        architecture = replace(architecture, layers=architecture.layers[:layers])
    job = Job.on(spec, fit_topology.mesh_on(devices, spec.parallelism), (architecture, ends))
    ideal = Ideal(architecture, len(devices))
    found: dict[str, Any] = {"parameters": job.parameters}
    decoded = []
    for record in Compiler(chip).stage(job, 0):
        name = record.pop("program")
        if name == "decode":
            decoded.append(record)
        else:
            found[name] = record
    rows = PROMPTS * SAMPLES
    pace = Pace.on("tpu")
    count = chunk_of(rows, TOKENS, pace)
    reaches = [reach_of(at + count, TOKENS, pace) for at in range(0, TOKENS, count)]
    by_reach = dict(zip(sorted(set(reaches)), decoded, strict=True))
    found["decode"] = decoded[-1] | {"compileSeconds": max(one["compileSeconds"] for one in decoded)}
    if all("hbmBytes" in one for one in decoded):
        moved = sum(by_reach[reach]["hbmBytes"] for reach in reaches) / TOKENS
        found["decode"] |= {"bytesOfToken": moved, "ideal": ideal.decode, "overIdeal": moved / ideal.decode}
    for name in ("update",):
        if "flops" in found[name]:
            one = found[name]
            one |= {"ideal": ideal.update, "overIdeal": one["flops"] / ideal.update}
            one["memoryOverCompute"] = one["memorySeconds"] / one["computeSeconds"]
    return found


class Ideal:
    """What a device cannot do without, by hand: `update` in flops, `decode` in bytes a token."""

    def __init__(self, a: Any, devices: int):
        matrices = a.width * sum(a.projections) + a.projections[0] * a.width + 3 * a.width * a.hidden
        head, layers = a.vocabulary * a.width, len(a.layers)
        responses, prompts = PROMPTS * SAMPLES / devices, PROMPTS / devices
        read, made = prompts * PROMPT_TOKENS, responses * TOKENS
        pairs = responses * (TOKENS * PROMPT_TOKENS + TOKENS**2 / 2) + prompts * PROMPT_TOKENS**2 / 2
        attention = 4 * layers * a.heads * a.head_width * pairs
        self.update = 3 * (2 * layers * matrices * (read + made) + 2 * head * made + attention)
        slots = prompts * PROMPT_TOKENS + responses * TOKENS / 2  # of a response half are there on average
        self.decode = 2 * (layers * matrices + head) + 4 * layers * a.projections[1] * slots


def checked(where: str, model: str) -> dict[str, Any]:
    """Bytes and flops of each program over what one and two unrolled layers say of the whole depth."""
    config = json.loads((MODELS / model / "config.json").read_bytes())
    layers = config["num_hidden_layers"]
    whole = child(where, model)
    one, two = (child(where, model, "--layers", str(n), "--unrolled") for n in (1, 2))
    found: dict[str, Any] = {}
    for name in ("update", "decode", "prefill"):
        for key in ("flops", "hbmBytes"):
            expected = one[name][key] + (layers - 1) * (two[name][key] - one[name][key])
            found.setdefault(name, {})[key] = whole[name][key] / expected
    return found


def child(where: str, model: str, *more: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", where, model, *more]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def lines(where: str, model: str, found: dict[str, Any]) -> Iterator[str]:
    for name in ("sampling weights", "prefill", "decode", "update"):
        one = found[name]
        text = f"{where:10} {model:22} {name:17} {one['compileSeconds']:6.1f} s {one['bytes'] / one['hbm']:7.1%} of HBM"
        if not one["fits"]:
            text += ", does not fit"
        if name == "decode" and "overIdeal" in one:
            text += f"; a token moves {one['bytesOfToken'] / 1e9:.2f} GB, {one['overIdeal']:.2f} of ideal"
        if name == "update" and "overIdeal" in one:
            text += (
                f"; {one['flops'] / 1e12:.1f} TFLOP, {one['overIdeal']:.2f} of ideal; memory / compute "
                f"{one['memoryOverCompute']:.2f}"
            )
        yield text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--only", nargs="*", default=[], help="slices or models whose name has this in it")
    parser.add_argument("--check", action="store_true", help="compare the count with unrolled layers")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--layers", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--unrolled", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measured(*arguments.one, arguments.layers, arguments.unrolled)))
        return
    if importlib.util.find_spec("libtpu") is None:
        print("not measured: there is no TPU compiler here (pip install 'ratchet-rl[tpu]')")
        return
    found: dict[str, Any] = {}
    for where in SLICES:
        for model in NAMES:
            if not all(text in f"{where} {model}" for text in arguments.only):
                continue
            if arguments.check:
                found[f"{where} {model}"] = one = checked(where, model)
                print(f"{where:10} {model:22} over unrolled: {json.dumps(one)}", flush=True)
                continue
            found[f"{where} {model}"] = one = child(where, model)
            for line in lines(where, model, one):
                print(line, flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
