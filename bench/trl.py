"""A real model through Ratchet and through TRL (1.16.0, torch 2.15.0), in turns on the same two processors.

    python bench/trl.py [--rounds N] [--steps N] [--json FILE]

Same model (SmolLM2-135M-Instruct), questions and rewards: 8 prompts of at most 64 tokens a step, 8 responses of exactly
16 tokens each, Dr. GRPO without a reference, one AdamW update a step (`measuring/real_work.py`). Both in float32 and in
bfloat16, TRL with its fastest settings for this work (`measuring/trl_steps.py`), Ratchet as `ratchet train` runs it:
with one process for both processors, and with one that counts them as two devices (`--devices 2`). Neither writes
checkpoints meanwhile. At the end stand the rates of the best of Ratchet to the best of TRL.

TRL is installed into an environment of its own in the user's cache folder, with the same Python as this one. Where that
fails, the reason is printed and nothing is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median

from measuring import real_work as work
from measuring.environment import NotInstalled, python_with
from measuring.runs import Times, cores, run

from ratchet_api.exact_environment import performance_environment

PEER, BESIDE = "trl==1.16.0", ("torch==2.15.0", "transformers==5.24.0", "accelerate==1.15.0", "datasets==5.2.0")
STEPS, WARM_UP = 6, 2
"""Steps of a run, and how many of them do not count: the first ones compile, and fill caches."""
DTYPES = "float32", "bfloat16"
PARTS = {
    # part -> seconds of it, how much of what they make, and the unit of the rate
    "generation": (lambda times: times.generate, work.TOKENS, "tokens/s"),
    "step": (lambda times: times.step, 1, "steps/s"),
    "processor time": (lambda times: times.processor, 1, "steps/processor s"),
}
"""The time of processors hardly depends on other load, but does not see that threads wait for one another."""


def theirs(python: Path, steps: int, dtype: str, model: Path, folder: Path) -> Times:
    task = {
        "dtype": dtype,
        "threads": len(cores()),
        "prompts": work.PROMPTS,
        "samples": work.SAMPLES,
        "responseTokens": work.RESPONSE_TOKENS,
        "learningRate": float(work.LEARNING_RATE),
        "steps": steps,
        "warmUp": WARM_UP,
    }
    program = Path(work.__file__).with_name("trl_steps.py")
    done = subprocess.run(
        (str(python), str(program), str(model), json.dumps(task)),
        env=os.environ | performance_environment(os.environ),
        preexec_fn=lambda: os.sched_setaffinity(0, cores()),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"TRL ended with {done.returncode}:\n{done.stderr[-4000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Times(found["generate"], [], found["step"], found["processor"])


def ours(steps: int, dtype: str, devices: int, model: Path, folder: Path) -> Times:
    return run(
        model,
        folder,
        steps=steps,
        warm_up=WARM_UP,
        tokens=work.TOKENS,
        devices=devices,
        model={"path": str(model), "dtype": dtype},
        stages=work.stages(steps),
        datasets=work.datasets(model),
    )


def runs(python: Path, steps: int) -> dict[str, Callable[[Path, Path], Times]]:
    """Name -> a run of a model in a new folder."""
    found: dict[str, Callable[[Path, Path], Times]] = {}
    for dtype in DTYPES:
        found[f"trl {dtype}"] = partial(theirs, python, steps, dtype)
        found[f"ratchet {dtype}"] = partial(ours, steps, dtype, 1)
        found[f"ratchet {dtype}, two devices"] = partial(ours, steps, dtype, 2)
    return found


def seconds(times: Times, part: str) -> float:
    """The median of a run's steps."""
    return float(median(PARTS[part][0](times)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1, help="how often everything is run (default: 1)")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"steps of a run, the first {WARM_UP} do not count")
    parser.add_argument("--only", help="run only what has this in its name, and compare nothing")
    parser.add_argument("--without", default="nothing", help="leave out what has this in its name")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    try:
        python = python_with(PEER, "trl", *BESIDE, size="6 GB")
    except NotInstalled as reason:
        print(f"no comparison with TRL: {reason}")
        return
    chosen = {name: run for name, run in runs(python, arguments.steps).items() if (arguments.only or "") in name}
    chosen = {name: run for name, run in chosen.items() if arguments.without not in name}
    found: dict[str, list[Times]] = {name: [] for name in chosen}
    with tempfile.TemporaryDirectory() as place:
        model = work.write(Path(place) / "model")
        for number in range(arguments.rounds):
            for name, one in chosen.items():
                times = one(model, Path(place) / f"{number}-{name.replace(' ', '-').replace(',', '')}")
                found[name].append(times)
                said = [f"{p} {n / seconds(times, p):.3g} {unit}" for p, (_, n, unit) in PARTS.items()]
                print(f"{name:30} {', '.join(said)}; load {os.getloadavg()[0]:.1f}", flush=True)
    ratios = {} if arguments.only else {part: against(found, part) for part in PARTS}
    for part, values in ratios.items():
        print(f"{part}: Ratchet to TRL, each in the format that it does best: {median(values):.2f}", flush=True)
        for dtype in DTYPES:
            said = median(against({name: times for name, times in found.items() if dtype in name}, part))
            print(f"{part}: Ratchet to TRL, both in {dtype}: {said:.2f}", flush=True)
    if arguments.json:
        plain = {name: [asdict(times) for times in all_times] for name, all_times in found.items()}
        arguments.json.write_text(json.dumps({"seconds": plain, "ratios": ratios}, indent=2) + "\n")


def against(found: dict[str, list[Times]], part: str) -> list[float]:
    """The rate of Ratchet's fastest run to that of TRL's fastest, round by round."""
    best = lambda who, i: min(seconds(t[i], part) for name, t in found.items() if name.startswith(who))  # noqa: E731
    rounds = len(next(iter(found.values())))
    return [round(best("trl", i) / best("ratchet", i), 4) for i in range(rounds)]


if __name__ == "__main__":
    main()
