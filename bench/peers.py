"""Ratchet's formulas against verl's and TRL's own functions, on the same random inputs.

    python bench/peers.py [--seed N] [--keep] [--json FILE]

Prints the largest difference in each array, and ends with 1 where one is beyond what float32 explains. The peers run in
float64 in one environment of their own in the user's cache folder, which is installed once. `--keep` writes the numbers
to tests/golden/peers/, where `make test` compares with them without installing anything. What each peer is asked for,
and where its terms are not Ratchet's, is in `measuring/verl_numbers.py` and `measuring/trl_numbers.py`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from measuring.environment import NotInstalled, python_with

from ratchet_trainer.tools.objective_check import differences

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "tests" / "golden" / "peers"
ENVIRONMENT = "verl==0.9.1", "verl.trainer.ppo.core_algos"
BESIDE = "trl==1.16.0", "torch==2.11.0", "transformers==5.9.0"
PEERS = {
    # file -> release, and the program that asks it
    "verl": ("verl==0.9.1", "verl_numbers.py"),
    "trl": ("trl==1.16.0", "trl_numbers.py"),
}
SEED, GROUPS, RESPONSES, LONGEST, VOCABULARY = 20260, 3, 4, 10, 5
TOLERANCE = 1e-5


def inputs(seed: int) -> dict[str, Any]:
    """Inputs of all functions, as nested lists that are exact in float32. Ratios reach every clip; lengths go from 1 to
    LONGEST; one group's rewards are all the same."""
    random, rows = np.random.default_rng(seed), GROUPS * RESPONSES
    shape = rows, LONGEST
    lengths = random.integers(1, LONGEST + 1, rows)
    lengths[:2] = 1, LONGEST
    old = -random.gamma(2.0, 0.5, shape)
    rewards = random.integers(0, 3, rows) / 2
    rewards[:RESPONSES] = 0.5
    rewards[RESPONSES] += 0.25
    found = {
        "mask": (np.arange(LONGEST) < lengths[:, None]).astype(float),
        "group": np.repeat(np.arange(GROUPS), RESPONSES),
        "rewards": rewards,
        "old_log_probs": old,
        "log_probs": np.minimum(old + random.normal(0, 0.3, shape), 0),
        "ref_log_probs": np.minimum(old + random.normal(0, 0.5, shape), 0),
        "sampled_log_probs": np.minimum(old + random.normal(0, 0.5, shape), 0),
        "entropy": random.gamma(2.0, 0.5, shape),
        "values": random.normal(0.5, 0.3, shape),
        "new_values": random.normal(0.5, 0.3, shape),
        "tokens": random.integers(0, VOCABULARY, shape),
        "logits": random.normal(0, 2, (*shape, VOCABULARY)),
    }
    return {name: values.astype(np.float32).tolist() for name, values in found.items()}


def ask(python: Path, program: str, given: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        (str(python), str(HERE / "measuring" / program)),
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{program} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    answered: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answered


def rounded(values: Any) -> Any:
    """Nested lists with 9 significant digits, which is more than float32 has."""
    return [rounded(v) for v in values] if isinstance(values, list) else float(f"{values:.9g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the inputs (default: {SEED})")
    parser.add_argument("--keep", action="store_true", help="write tests/golden/peers/")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    try:
        python = python_with(*ENVIRONMENT, *BESIDE, size="6 GB")
    except NotInstalled as reason:
        print(f"no comparison with verl and TRL: {reason}")
        return
    given, all_found = inputs(arguments.seed), {}
    with tempfile.TemporaryDirectory() as place:
        for peer, (release, program) in PEERS.items():
            answers = ask(python, program, given)
            if peer == "verl":
                given["adv_grpo"] = answers["adv_grpo"]  # of all losses
            about = {"made by": "bench/peers.py", "release": release, "beside": list(BESIDE), "seed": arguments.seed}
            arrays = {name: rounded(values) for name, values in (given | answers).items()}
            file = (GOLDEN if arguments.keep else Path(place)) / f"{peer}.json"
            file.parent.mkdir(exist_ok=True)
            file.write_text(lines({"about": about, "arrays": arrays}))
            print(f"{release}, seed {arguments.seed}")
            all_found[release] = differences(file)
            for name, found in all_found[release].items():
                mark = "  BEYOND" if beyond(found) else ""
                print(f"{name:50} {found['difference']:.1e} of at most {found['largest']:.3g}{mark}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"seed": arguments.seed, "arrays": all_found}, indent=2) + "\n")
    sys.exit(any(beyond(found) for of_peer in all_found.values() for found in of_peer.values()))


def beyond(found: dict[str, float]) -> bool:
    return not found["difference"] <= TOLERANCE * (0.1 + found["largest"])


def lines(content: dict[str, Any]) -> str:
    """JSON with an array a line, so that a difference of two files can be read."""
    arrays = ",\n".join(f"  {json.dumps(name)}: {json.dumps(values)}" for name, values in content["arrays"].items())
    return f'{{\n"about": {json.dumps(content["about"])},\n"arrays": {{\n{arrays}\n}}\n}}\n'


if __name__ == "__main__":
    main()
