"""The trainer's process, on processors of its own, with its books copied out after every step.

BENCH_CORES has the numbers of the processors, one list a process: `0,1` or `0;1`. Each process writes to `spent-N.json`
beside the job file, for each step, its seconds by category and, as `processor`, those for which its threads ran.
"""

import json
import os
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from ratchet_trainer import app


def run(runtime: Any) -> None:
    from ratchet_trainer.run import run as train

    def books() -> dict[str, float]:
        return runtime.progress.ledger.seconds | {"processor": time.process_time()}

    spent = [books()]
    step_done = runtime.step_done

    def copied(*of_step: Any) -> None:
        step_done(*of_step)  # settles the books
        spent.append(books())

    runtime.step_done = copied
    train(runtime)
    steps = [{k: after[k] - before[k] for k in after} for before, after in pairwise(spent)]
    Path(os.environ["RATCHET_JOB_FILE"]).with_name(f"spent-{runtime.process}.json").write_text(json.dumps(steps))


lists = os.environ["BENCH_CORES"].split(";")
os.sched_setaffinity(0, map(int, lists[int(os.environ["RATCHET_PROCESS"])].split(",")))
app.main(run)
