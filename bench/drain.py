"""How soon a trainer that is told to go decides to, and is gone: SIGTERM in every phase of a real run.

    python bench/drain.py [--times N] [--processes N] [--grace S] [--phases a,b] [--json FILE]

Trains as `ratchet train` does (PPO with a critic, 128 responses and four updates a step) and sends SIGTERM to one
process (during a start: to all), again and again, at random moments of each phase. Printed are for each, in seconds
from the signal, the median and the longest

* decision: all processes are at a safe point where they leave, or the watchdog leaves where none can come;
* exit: the last process has ended, with everything committed;

and what stood then: complete steps, or a step left in its middle (`u`), and steps lost (always 0). The phase is the one
that the run was seen in; the short ones (verify, save) may be over when the signal arrives.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ratchet_api import protocol
from ratchet_api.job import RLTrainingJob
from ratchet_trainer.tools.local import Folder, Gang

RL = {"method": "ppo", "promptsPerStep": 16, "groupSize": 8, "updatesPerStep": 4, "maxResponseTokens": 64}
SUMS = {"task": "chain_sum", "size": 500, "config": {"max_terms": 2, "max_digits": 1}}
STAGES = [
    {"name": "warm-up", "sft": {"dataset": "sums", "maxPromptTokens": 96}, "advance": {"steps": 2}},
    {"name": "rl", "rl": {"dataset": "sums", "maxPromptTokens": 96, **RL}, "advance": {"steps": 100_000}},
]
DELAYS = {"start": 1.5, "compile": 1.0, "generate": 0.3, "update": 1.0}
"""Phase -> at most so many seconds after it was seen comes the signal; at once in the others."""
PHASES = ("start", "restore", "compile", "generate", "verify", "update", "save", "boundary")
DECIDED = ("a safe point in phase", "leaving with")


@dataclass
class Drain:
    """One of them; seconds from the signal."""

    phase: str
    decision: float
    exit: float
    codes: list[int]
    committed: str  # name of the newest step's folder
    lost: int


class Seen:
    """The last answer of /progress, to be waited for."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._document: dict[str, Any] = {}

    def heard(self, document: dict[str, Any]) -> None:
        with self._news:
            self._document = document
            self._news.notify_all()

    def until(self, phase: str, gang: Gang) -> int:
        """Waits until the run is in a phase, and no longer before its first step; returns the step reported."""
        early = phase in ("restore", "compile", "boundary")
        with self._news:
            while not (self._document.get("phase") == phase and (early or self._document["parts"].get("step"))):
                if gang.wait(0.0) is not None:
                    raise SystemExit(f"it ended before it came to {phase}: {gang.termination()}")
                self._news.wait(0.05)
            return int(self._document["step"])


def drain(folder: Folder, processes: int, phase: str, draw: random.Random) -> Drain:
    """Starts an attempt, sends the signal in a phase, and looks at what came of it."""
    logs = [folder.local / f"process-{i}.log" for i in range(processes)]
    begin = [log.stat().st_size if log.exists() else 0 for log in logs]
    seen = Seen()
    may_enter = 0 if phase == "boundary" else None
    gang = Gang.start(folder, processes, listener=seen.heard, may_enter=may_enter)
    try:
        step = 0 if phase == "start" else seen.until(phase, gang)
        time.sleep(draw.uniform(0, DELAYS.get(phase, 0.0)))
        sent, clock = datetime.now(), time.monotonic()
        # Before they have met, nobody hears of it from a peer.
        gang.send(signal.SIGTERM, None if phase == "start" else draw.randrange(processes))
        codes = gang.wait(120)
    finally:
        gang.end()
    ended = time.monotonic() - clock
    assert codes is not None, "it does not end"
    found = [decided(log, at, sent) for log, at in zip(logs, begin, strict=True)]
    commit = folder.last_commit()
    return Drain(
        phase,
        round(max(ended if seconds is None else seconds for seconds in found), 3),
        round(ended, 3),
        codes,
        commit.path.partition("/")[2] if commit else "none",
        max(0, step - (commit.step if commit else 0)),
    )


def decided(log: Path, begin: int, sent: datetime) -> float | None:
    """Seconds after the signal at which a process's log says that it leaves; None if it says nothing."""
    with open(log, "rb") as file:
        file.seek(begin)
        lines = file.read().decode(errors="replace").splitlines()
    times = (line.split(" ", 1)[0] for line in lines if any(what in line for what in DECIDED))
    for text in times:
        at = datetime.combine(sent.date(), datetime.strptime(text, "%H:%M:%S.%f").time())
        return max(0.0, (at - sent).total_seconds())
    return None


def measure(phases: list[str], times: int, processes: int) -> list[Drain]:
    """So many drains in each phase, printed as they come."""
    job = RLTrainingJob.model_validate(
        {
            "spec": {
                "model": {"preset": "tiny"},
                "datasets": [{"name": "sums", "reasoningGym": SUMS}],
                "stages": STAGES,
                "checkpoint": {"directory": "/replaced"},
                "placements": [{"name": "here", "cpu": {"hosts": processes}}],
            }
        }
    )
    draw, found = random.Random(0), []
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch) / "cache"
        run = Folder(Path(scratch) / "run", "drain", job, cache)
        for phase in sorted(phases, key=lambda phase: phase in ("start", "restore")):  # those want something to restore
            mine = []
            for i in range(times):
                folder = run
                if phase == "compile":  # nothing in the cache, or it would be over in no time
                    folder = Folder(Path(scratch) / f"compile-{i}", "drain", job)
                if phase == "boundary":
                    folder = Folder(Path(scratch) / f"boundary-{i}", "drain", job, cache)
                mine.append(drain(folder, processes, phase, draw))
            found += mine
            decisions, exits = [d.decision for d in mine], [d.exit for d in mine]
            print(
                f"{phase:10} decision {statistics.median(decisions):6.3f}, at most {max(decisions):6.3f}   "
                f"exit {statistics.median(exits):6.3f}, at most {max(exits):6.3f}   "
                f"steps lost {sum(d.lost for d in mine)}   {' '.join(d.committed for d in mine)}",
                flush=True,
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3, help="signals in each phase")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--grace", type=int, default=protocol.SPOT_GRACE_SECONDS, help="seconds that are given to go")
    parser.add_argument("--phases", default=",".join(PHASES), help="only these")
    parser.add_argument("--json", type=Path, help="write every drain to this file")
    arguments = parser.parse_args()
    os.environ[protocol.ENV_GRACE_SECONDS] = str(arguments.grace)
    found = measure(arguments.phases.split(","), arguments.times, arguments.processes)
    if arguments.json:
        arguments.json.write_text(json.dumps([vars(d) for d in found], indent=2) + "\n")


if __name__ == "__main__":
    main()
