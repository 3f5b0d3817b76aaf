"""One pass of `decide` over each golden case: how long it takes, and what for.

    python bench/decide.py [--rounds N] [--profile CASE] [--json FILE]

Printed are the median of each case in milliseconds, and what one spec of each case costs to read (pydantic), which is
the floor of a pass that trusts nothing that it remembers.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/operator"))

from golden_cases import ALL

from ratchet_api.job import parse_spec
from ratchet_operator.decide import decide


def milliseconds(work: Callable[[], Any], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--profile", choices=sorted(ALL))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.profile:
        snapshot = ALL[arguments.profile]().snapshot()
        with cProfile.Profile() as profile:
            for _ in range(arguments.rounds):
                decide(snapshot)
        pstats.Stats(profile).sort_stats("cumtime").print_stats(40)
        return
    found = {}
    for name in sorted(ALL):
        snapshot = ALL[name]().snapshot()
        whole = milliseconds(lambda snapshot=snapshot: decide(snapshot), arguments.rounds)  # type: ignore[misc]
        spec = milliseconds(lambda snapshot=snapshot: parse_spec(snapshot.job["spec"]), arguments.rounds)  # type: ignore[misc]
        found[name] = {"decide": round(whole, 3), "spec": round(spec, 3)}
        print(f"{name:28} {whole:6.2f} ms, its spec {spec:5.2f} ms", flush=True)
    times = [one["decide"] for one in found.values()]
    print(f"{'median of the cases':28} {statistics.median(times):6.2f} ms, the slowest {max(times):.2f} ms")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
