"""What Ratchet exports, opened in transformers: the same prompts, logits and continuations as those of the policy.

    python bench/export_in_transformers.py [--model DIR] [--layers N] [--python PYTHON] [--keep DIR] [--json FILE]

A real model is trained for a few steps of `sft` and then of `rl`, once whole and once as adapters, and `spec.export`
writes a folder at the end of each stage. AutoModelForCausalLM and AutoTokenizer open it, and what they make of a few
conversations is compared with the checkpoint that the stage ended with, computed by this project from the checkpoint's
own arrays: adapters lie beside the base there, not in it. All is float32. Printed are, over all positions of prompts
and continuations, the largest difference of two logits, the same as a share of the largest logit at its position, and
how many positions have the same likeliest token; whether prompts and greedy continuations are the same tokens; and, to
see that there was something to export, how far the stage has moved a logit. Ends with 1 where anything is not equal.

Needs some ten minutes of two cores and 4 GB of memory. MODEL is SmolLM2-135M-Instruct by default, fetched into the
user's cache folder; `--layers` cuts it to its first N layers, which takes a fraction of the time. PYTHON is one that
has transformers and PyTorch; by default they are installed into an environment of their own in the cache folder, and
where that fails, the reason is printed and nothing is compared. KEEP is a new folder for manifests, runs and exports,
which are removed otherwise.
"""

from __future__ import annotations

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import yaml
from measuring.environment import NotInstalled, python_with
from safetensors import safe_open
from safetensors.numpy import save_file

from ratchet_api.job import RLTrainingJob, Spec
from ratchet_cluster.build import cache_folder
from ratchet_trainer.model.check import greedy, logits_of
from ratchet_trainer.model.decoder import Params
from ratchet_trainer.model.lora import trained
from ratchet_trainer.process import distributed
from ratchet_trainer.step.stage import Programs, programs_of
from ratchet_trainer.step.state import flat_paths
from ratchet_trainer.storage import Location
from ratchet_trainer.tools.fetch_model import fetch
from ratchet_trainer.tools.inspect_run import newest

EXAMPLE = Path(__file__).parents[1] / "examples/smollm2-short.yaml"
PROGRAM = Path(__file__).parent / "measuring/transformers_numbers.py"
PEER, BESIDE = "transformers==5.24.0", ("torch==2.15.0", "numpy")
STEPS = 3
"""Steps of each stage."""
TOKENS = 32
"""Tokens decoded after each prompt."""
MODELS = {"whole": None, "lora": {"rank": 8, "alpha": "16"}}
LETTER = "(?i)[a-m].*"
"""What earns something whether or not it is right, so that a model that can do no sums learns, too."""
CLOSE = 2e-4
"""Largest difference of two logits that count as equal: that of `ratchet model check`."""
CONVERSATIONS = (
    [{"role": "user", "content": "State the final answer to the following arithmetic problem: 4 + 9 - 2 ="}],
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "system", "content": "You answer in one word."}, {"role": "user", "content": "Is water wet?"}],
    [{"role": "user", "content": "  Zähle bis drei: \U0001f9ee 一, 二,\n\n\tund?  "}],
    [
        {"role": "user", "content": "Name a prime number."},
        {"role": "assistant", "content": "7"},
        {"role": "user", "content": "Another one."},
    ],
    [{"role": "user", "content": "def add(a, b):\n    return a + b\n\n# What does it do?\n" + "add(1, 2)\n" * 40}],
)


@dataclass(frozen=True)
class Found:
    """One exported folder beside the policy. `difference` and `moved` are of logits, `relative` a share of the largest
    logit at the position, `likeliest` the share of the positions with the same likeliest token."""

    difference: float
    relative: float
    likeliest: float
    positions: int
    same_prompts: bool
    same_continuations: bool
    moved: float

    @property
    def equal(self) -> bool:
        return self.difference <= CLOSE and self.likeliest == 1 and self.same_prompts and self.same_continuations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of the model (default: SmolLM2, fetched)")
    parser.add_argument("--layers", type=int, help="cut the model to so many layers (default: all)")
    parser.add_argument("--python", type=Path, help="a Python that has transformers (default: installed)")
    parser.add_argument("--keep", type=Path, help="a new folder in which everything stays")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    try:
        python = arguments.python or python_with(PEER, "transformers", *BESIDE, size="6 GB")
    except NotInstalled as reason:
        print(f"no comparison with transformers: {reason}")
        return
    model = arguments.model or cache_folder() / "models" / "smollm2"
    if arguments.model is None:
        fetch("smollm2", model)
    with tempfile.TemporaryDirectory() as place:
        folder = arguments.keep or Path(place) / "runs"
        folder.mkdir(parents=True)
        if arguments.layers is not None:
            model = cut(model, arguments.layers, folder / "model")
        found = dict(all_of(python.absolute(), model.absolute(), folder.absolute()))
    if arguments.json:
        arguments.json.write_text(json.dumps({name: asdict(one) for name, one in found.items()}, indent=2) + "\n")
    sys.exit(0 if all(one.equal for one in found.values()) else 1)


def cut(model: Path, layers: int, folder: Path) -> Path:
    """A copy of a model of one file with its first layers alone."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((model / "config.json").read_text()) | {"num_hidden_layers": layers}
    (folder / "config.json").write_text(json.dumps(config))
    with safe_open(model / "model.safetensors", "numpy") as opened:
        layer = {name: re.search(r"\.layers\.(\d+)\.", name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
        kept = {name: opened.get_tensor(name) for name, at in layer.items() if at is None or int(at[1]) < layers}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def all_of(python: Path, model: Path, folder: Path) -> Iterator[tuple[str, Found]]:
    """Trains, and compares what was exported: name -> what was found, printed as it comes."""
    for name, lora in MODELS.items():
        spec = train(model, lora, folder / name)
        for index, stage in enumerate(spec.stages):
            found = compare(python, spec, index, folder / name)
            said = f"{name} {stage.name}: largest difference of a logit {found.difference:.2g}"
            said += f" ({found.relative:.2g} of the largest logit there), the same likeliest token at "
            said += f"{found.likeliest:.2%} of {found.positions} positions"
            said += f", prompts {'equal' if found.same_prompts else 'DIFFERENT'}"
            said += f", continuations {'equal' if found.same_continuations else 'DIFFERENT'}"
            print(f"{said}; the stage moved a logit by up to {found.moved:.2g}", flush=True)
            yield f"{name} {stage.name}", found


def train(model: Path, lora: dict[str, Any] | None, folder: Path) -> Spec:
    """Trains the example, made short, with a stage of each kind: manifest, run and exports go into `folder`."""
    folder.mkdir()
    manifest = yaml.safe_load(EXAMPLE.read_text())
    spec = manifest["spec"]
    spec["model"] = {"path": str(model), "dtype": "float32"} | ({"lora": lora} if lora else {})
    rl = spec["stages"][0]["rl"] | {
        "rewards": [{"name": "accuracy"}, {"name": "letter", "format": {"pattern": LETTER}}]
    }
    sft = {"dataset": spec["datasets"][0]["name"], "batchSize": 8}
    spec["stages"] = [
        {"name": "sft", "sft": sft, "advance": {"steps": STEPS}},
        {"name": "rl", "rl": rl, "advance": {"steps": STEPS}},
    ]
    del spec["evaluations"], spec["samples"]
    spec["export"] = {"directory": str(folder / "exports"), "when": "EachStage", "dtype": "float32"}
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(manifest, sort_keys=False))
    command = sys.executable, "-m", "ratchet_cli.main", "train", str(file), "--workdir", str(folder / "run")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return RLTrainingJob.model_validate({"spec": spec}).spec


def compare(python: Path, spec: Spec, index: int, folder: Path) -> Found:
    """What was exported at the end of a stage, beside the checkpoint that it ended with."""
    theirs = by_transformers(python, folder / "exports" / spec.stages[index].name, folder)
    programs = programs_of(spec.model, distributed.one_device())
    params = at_the_end(programs, spec, index, folder)
    start = at_the_end(programs, spec, index - 1, folder) if index else programs.start(spec.seed)[0]
    prompts = [tuple(programs.tokenizer.encode_messages(messages)) for messages in CONVERSATIONS]
    made = greedy(programs.policy, params, prompts, TOKENS)
    gaps, shares, likeliest, moved = [], [], [], []
    for i in range(len(prompts)):
        tokens, logits = theirs[f"tokens-{i}"], theirs[f"logits-{i}"]
        mine, before = (logits_of(programs.policy, p, tokens[None])[0] for p in (params, start))
        gaps.append(np.abs(mine - logits).max(-1))
        shares.append(gaps[-1] / np.abs(logits).max(-1))
        likeliest.append(mine.argmax(-1) == logits.argmax(-1))
        moved.append(np.abs(mine - before).max())
    return Found(
        difference=float(np.concatenate(gaps).max()),
        relative=float(np.concatenate(shares).max()),
        likeliest=float(np.concatenate(likeliest).mean()),
        positions=sum(map(len, gaps)),
        same_prompts=all(tuple(theirs[f"prompt-{i}"].tolist()) == prompt for i, prompt in enumerate(prompts)),
        same_continuations=all(
            np.array_equal(theirs[f"tokens-{i}"][len(prompt) :], made[i]) for i, prompt in enumerate(prompts)
        ),
        moved=float(np.max(moved)),
    )


def at_the_end(programs: Programs, spec: Spec, index: int, folder: Path) -> Params:
    """The policy's parameters as the checkpoint at the end of a stage has them."""
    at_its_end = lambda commit: commit.boundary is not None and commit.boundary["stage"] == index  # noqa: E731
    content = newest(Location.parse(str(folder / "run")), f"the end of stage {index}", at_its_end)[2]
    kept = trained(programs.policy.abstract)
    arrays = [np.asarray(content.arrays[path]) for path in flat_paths({"params": kept})]
    return programs.whole(jax.tree.unflatten(jax.tree.structure(kept), arrays), spec.seed)


def by_transformers(python: Path, export: Path, folder: Path) -> dict[str, np.ndarray]:
    """The arrays that `measuring/transformers_numbers.py` makes of an exported folder."""
    task, out = folder / "task.json", folder / "theirs.npz"
    task.write_text(json.dumps({"conversations": CONVERSATIONS, "tokens": TOKENS}))
    command = str(python), str(PROGRAM), str(export), str(task), str(out)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"transformers did not open {export}:\n{done.stderr[-4000:]}")
    print(f"{folder.name} {export.name}: opened by {done.stdout.strip()}", flush=True)
    with np.load(out) as opened:
        return {name: opened[name] for name in opened.files}


if __name__ == "__main__":
    main()
