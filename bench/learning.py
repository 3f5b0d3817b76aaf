"""Whether the methods do what they promise: side by side on a task whose numbers are known, several seeds each.

    python bench/learning.py [NAME ...] [--seeds N] [--steps N] [--parallel N] [--root DIR] [--out DIR] [--json FILE]

Trains as `ratchet train` does, one process on one core a run, for each row of `measuring/experiments.py` (or those that
are named). Puts a table and a picture a row into `--out`/learning.md: where the file has a place for it already, it is
renewed, and the text around it stays. What is in `--root` is gone on with, so an interrupted call can be repeated. A
variant that the trainer does not know is said and left out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import measuring.swift  # noqa: F401 - first: it may start this program again
from measuring.curves import HELD_OUT, band, table
from measuring.experiments import EXPERIMENTS, Experiment
from measuring.learning_runs import CannotRun, learn, starting_weights, write_data
from measuring.page import renewed
from measuring.plots import draw
from measuring.values_error import bias_table, error_table

Runs = dict[str, list[dict[str, Any]]]


def runs_of(experiment: Experiment, root: Path, parallel: int) -> tuple[Runs, dict[str, str]]:
    """The runs of every variant, and why the others could not be made."""
    starting_weights(experiment.chain, root / "weights", root / "cache")
    write_data(experiment, root / "data" / experiment.name)
    asked = [(variant, seed) for seed in range(experiment.seeds) for variant in experiment.variants]
    found: Runs = {}
    refused: dict[str, str] = {}

    def one(variant: str, seed: int) -> dict[str, Any] | None:
        try:
            run = learn(experiment, variant, seed, root)
        except CannotRun as reason:
            refused[variant] = str(reason)
            return None
        print(f"{experiment.name}: {variant}, seed {seed}: {run['seconds']:.0f} s", flush=True)
        return run

    with ThreadPoolExecutor(parallel) as pool:
        for (variant, _), run in zip(asked, pool.map(lambda pair: one(*pair), asked), strict=True):
            if run is not None:
                found.setdefault(variant, []).append(run)
    return found, refused


def report(experiment: Experiment, runs: Runs, refused: dict[str, str], out: Path) -> list[str]:
    """What is measured of an experiment, its picture written."""
    chain, picture = experiment.chain, f"learning/{experiment.name}.png"
    bands = {name: band(of_variant, HELD_OUT) for name, of_variant in runs.items()}
    draw(bands, experiment.target, experiment.question.partition(" (")[0], out / picture)
    shares = ", ".join(f"{share:.0%} {kind}" for kind, share in experiment.shares.items())
    rl = experiment.rl
    return [
        f"Chain of k = {chain.k}, q = {chain.q} (right at the start: {chain.value(0):.4f}), "
        f"prompts: {shares}; {rl['promptsPerStep']} x {rl['groupSize']} rollouts a step, {experiment.steps} steps.",
        "",
        *table(runs, experiment.target),
        "",
        *(f"`{name}` was not run: {reason}\n" for name, reason in sorted(refused.items())),
        f"![{experiment.question}]({picture})",
        "",
        *(values_of(experiment, runs) if experiment.values else []),
    ]


def values_of(experiment: Experiment, runs: Runs) -> list[str]:
    """What is known of the values of states, in the first step and the first 20."""
    values = {name: [run["values"] for run in of_variant] for name, of_variant in runs.items()}
    return [
        "Values at the first step, by how many steps of the response are right; a state counts once:",
        "",
        *bias_table(values, experiment.chain),
        "",
        "Squared error of values; a state counts as often as responses are in it:",
        "",
        *error_table(values),
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(e.name for e in EXPERIMENTS)}")
    parser.add_argument("--seeds", type=int, help="runs of each variant (default: the row's)")
    parser.add_argument("--steps", type=int, help="steps of each run (default: the row's)")
    parser.add_argument("--parallel", type=int, default=1, help="runs at a time, one core each (default: 1)")
    parser.add_argument("--root", type=Path, help="folder of the runs (default: a new one, removed afterwards)")
    parser.add_argument("--out", type=Path, default=Path(".ratchet/learning"), help="folder of the report")
    parser.add_argument("--json", type=Path, help="file for all numbers of the runs (default: none)")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - {e.name for e in EXPERIMENTS}:
        parser.error(f"no experiment {', '.join(sorted(unknown))}; there are {', '.join(e.name for e in EXPERIMENTS)}")
    with tempfile.TemporaryDirectory(prefix="ratchet-learning-") as scratch:
        root, out = (arguments.root or Path(scratch)).absolute(), arguments.out
        page, figures = out / "learning.md", {}
        for row in EXPERIMENTS:
            if arguments.names and row.name not in arguments.names:
                continue
            experiment = replace(row, seeds=arguments.seeds or row.seeds, steps=arguments.steps or row.steps)
            runs, refused = runs_of(experiment, root, arguments.parallel)
            if not runs:
                print(f"{row.name}: no variant can be run: {refused}", flush=True)
                continue
            found = report(experiment, runs, refused, out)
            text = page.read_text() if page.exists() else "# Learning: methods side by side\n"
            page.write_text(renewed(text, row.name, row.question, found))
            print("\n".join(found), flush=True)
            figures[row.name] = {"runs": runs, "refused": refused}
            if arguments.json:
                arguments.json.write_text(json.dumps(figures, allow_nan=True))


if __name__ == "__main__":
    main()
