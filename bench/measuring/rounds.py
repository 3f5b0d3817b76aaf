"""Things that are measured in turns, so that other load on the machine meets all of them, and what is said of them.

One round runs each once. Of a run count the median and the best of its steps, the first few left out. Ratios are of
rates, between runs of one round; of the rounds stand there the median and, in brackets, the range.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median

from measuring import work
from measuring.runs import Times

PARTS: Mapping[str, Callable[[Times], list[float]]] = {
    "generation": lambda times: times.generate,
    "update": lambda times: times.update,
    "step": lambda times: times.step,
    "processor time": lambda times: times.processor,
}
KINDS: Mapping[str, Callable[[list[float]], float]] = {"median": median, "best": min}
"""Other load only makes a step slower: on a busy machine the best ones say most."""

Runs = Mapping[str, Callable[[Path], Times]]
"""Name -> a run in a new folder."""


def main(doc: str | None, runs_of: Callable[[Path], Runs], base: str) -> None:
    """The command line of a benchmark. `runs_of` gets the model's folder; ratios are rates relative to those of
    `base`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is run (default: 3)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        found = in_turns(runs_of(work.write(place / "model")), arguments.rounds, place)
    against = {name: ratios(found[name], found[base]) for name in found if name != base}
    for name, kinds in against.items():
        for kind, parts in kinds.items():
            said = ", ".join(f"{part} {_spread(values)}" for part, values in parts.items())
            print(f"{name} to {base}, rates of {kind} steps: {said}", flush=True)
    if arguments.json:
        plain = {name: [asdict(times) for times in all_times] for name, all_times in found.items()}
        arguments.json.write_text(json.dumps({"seconds": plain, "ratios": against}, indent=2) + "\n")


def in_turns(runs: Runs, rounds: int, place: Path) -> dict[str, list[Times]]:
    """What each run found, round by round, printed as it comes."""
    found: dict[str, list[Times]] = {name: [] for name in runs}
    for number in range(rounds):
        for name, run in runs.items():
            times = run(place / f"{number}-{name.replace(' ', '-')}")
            found[name].append(times)
            load = f"load {os.getloadavg()[0]:.1f}"
            for kind, of in KINDS.items():
                parts = [f"generation {work.TOKENS / of(times.generate):6.0f} tokens/s"]
                parts += [f"update {1e3 * of(times.update):5.0f} ms"] if times.update else []
                parts += [f"step {1e3 * of(times.step):5.0f} ms, {1 / of(times.step):.2f} a second"]
                parts += [f"{1e3 * of(times.processor):5.0f} ms of processors"]
                print(f"{name:14} {kind:7} {', '.join(parts)}; {load}", flush=True)
    return found


def ratios(mine: list[Times], theirs: list[Times]) -> dict[str, dict[str, list[float]]]:
    """Of each kind and part the rates of one to those of the other, round by round; above 1 the first is faster."""
    found: dict[str, dict[str, list[float]]] = {kind: {} for kind in KINDS}
    for kind, of in KINDS.items():
        for part, seconds in PARTS.items():
            pairs = [(seconds(a), seconds(b)) for a, b in zip(mine, theirs, strict=True)]
            if all(a and b for a, b in pairs):
                found[kind][part] = [round(of(b) / of(a), 4) for a, b in pairs]
    return found


def _spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
