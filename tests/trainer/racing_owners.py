"""Attempts that run at once, which the operator prevents: each claims one checkpoint directory and commits to it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from ratchet_trainer.checkpoints.journal import Commit, Journal
from ratchet_trainer.storage import Location

OWNER = """
import json, sys
from ratchet_trainer.errors import Fenced
from ratchet_trainer.checkpoints.journal import Claim, Journal

attempt, steps = map(int, sys.argv[2:])
print("ready", flush=True)
sys.stdin.readline()
committed, by = [], None
try:
    journal = Journal(sys.argv[1])
    journal.claim(Claim(0, "default", "sums", "uid-1", "hash", attempt, f"jobset-{attempt}"), None, 0)
    for step in range(steps):
        committed.append(journal.commit(step + 1, f"{attempt}-{step + 1}", "00").seq)
except Fenced as error:
    by = error.owner["attempt"]
print(json.dumps([committed, by]))
"""


def race(place: Path | Location, owners: int, steps: int, env: Mapping[str, str] | None = None) -> None:
    """At any time one owns, each commit is its owner's, and the last attempt makes all its steps."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": env}
    numbers = range(1, owners + 1)
    begun = {
        n: subprocess.Popen([sys.executable, "-c", OWNER, str(place), str(n), str(steps)], **pipes) for n in numbers
    }
    try:
        for one in begun.values():
            assert one.stdout.readline() == "ready\n"
        for one in begun.values():
            one.stdin.write("go\n")
            one.stdin.flush()
        told = {n: json.loads(one.communicate(timeout=120)[0]) for n, one in begun.items()}
    finally:
        for one in begun.values():
            one.kill()
            one.wait()
    holder = 0
    seen: dict[int, list[int]] = {n: [] for n in told}
    for entry in Journal(place).read():
        if isinstance(entry, Commit):
            assert entry.path == f"{holder}-{entry.step}", "a commit of somebody who did not own the directory"
            seen[holder].append(entry.seq)
        else:
            assert entry.attempt > holder, "ownership went backwards"
            holder = entry.attempt
    assert seen == {n: seqs for n, (seqs, _) in told.items()}, "what was reported as committed is what stands"
    assert told[owners][1] is None, "nobody is newer than the last attempt"
    assert len(told[owners][0]) == steps
