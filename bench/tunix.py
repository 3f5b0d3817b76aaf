"""The same work through Ratchet and through Tunix (google-tunix 0.1.7), in turns on the same two processors.

    python bench/tunix.py [--rounds N] [--json FILE]

Same model folder and weights, same questions, tokenizer and verifier: 8 prompts of 16 tokens a step, 8 responses of
exactly 32 tokens each, GRPO without a reference, one AdamW update a step, all in float32 (`measuring/work.py`). Tunix
runs as its `GRPOLearner` over an `RLCluster` with the rollout engine `vanilla` and its own Llama, with its fastest
settings for this work (`measuring/tunix_steps.py`); Ratchet as `ratchet train` runs it: with one process for both
processors, with one that counts them as two devices (`--devices 2`), and with one process on each. None writes
checkpoints or logs meanwhile.

Tunix is installed into an environment of its own in the user's cache folder, with the same Python as this one. Where
that fails, the reason is printed and nothing is measured.
"""

from __future__ import annotations

import json
import os
import subprocess
from functools import partial
from pathlib import Path

from measuring import rounds, work
from measuring.environment import NotInstalled, python_with
from measuring.runs import WARM_UP, Times, cores, run

from ratchet_api.exact_environment import performance_environment

PEER = "google-tunix==0.1.7"
STEPS = 24


def theirs(python: Path, model: Path, folder: Path) -> Times:
    task = {
        "prompts": work.PROMPTS,
        "samples": work.SAMPLES,
        "promptTokens": work.PROMPT_TOKENS,
        "responseTokens": work.RESPONSE_TOKENS,
        "learningRate": float(work.LEARNING_RATE),
        "steps": STEPS,
        "warmUp": WARM_UP,
    }
    command = str(python), str(Path(work.__file__).with_name("tunix_steps.py")), str(model), json.dumps(task)
    done = subprocess.run(
        command,
        env=os.environ | performance_environment(os.environ) | {"NPROC": str(len(cores()))},
        preexec_fn=lambda: os.sched_setaffinity(0, cores()),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"Tunix ended with {done.returncode}:\n{done.stderr[-4000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Times(found["generate"], [], found["step"], found["processor"])


def main() -> None:
    try:
        python = python_with(PEER, "tunix")
    except NotInstalled as reason:
        print(f"no comparison with Tunix: {reason}")
        return

    def runs_of(model: Path) -> rounds.Runs:
        return {
            "ratchet": partial(run, model, steps=STEPS),
            "two devices": partial(run, model, steps=STEPS, devices=2),
            "two processes": partial(run, model, steps=STEPS, processes=2),
            "tunix": partial(theirs, python, model),
        }

    rounds.main(__doc__, runs_of, "tunix")


if __name__ == "__main__":
    main()
