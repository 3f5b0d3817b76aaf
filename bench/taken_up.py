"""How much of a long generation is sampled again after a notice: told to go at 90 % of it, then started anew.

    python bench/taken_up.py [--seconds S] [--share S] [--json FILE]

Trains as `ratchet train` does, one process, responses of 128 tokens, with as many prompts a step as make its generation
take `--seconds`. SIGTERM comes after `--share` of the second step's generation. Printed are how long the process took
to go, what it kept, and the seconds of generation of the attempt that follows, as a share of a whole one.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from drain import Seen

from ratchet_api.job import RLTrainingJob
from ratchet_trainer.tools.local import Folder, Gang

SUMS = {"task": "chain_sum", "size": 20000, "config": {"max_terms": 2, "max_digits": 1}}
FIRST_GUESS = 32
"""Prompts a step, to find out how many are wanted."""


def job(prompts: int) -> RLTrainingJob:
    rl = {"method": "grpo", "promptsPerStep": prompts, "groupSize": 8, "maxPromptTokens": 96, "maxResponseTokens": 128}
    rl |= {"rowsPerPass": 64, "optimizer": {"learningRate": "0.000001"}}  # it goes on answering at full length
    return RLTrainingJob.model_validate(
        {
            "spec": {
                "model": {"preset": "tiny"},
                "datasets": [{"name": "sums", "reasoningGym": SUMS}],
                "stages": [{"name": "rl", "rl": {"dataset": "sums", **rl}, "advance": {"steps": 4}}],
                "checkpoint": {"directory": "/replaced", "everySteps": 1},
                "placements": [{"name": "here", "cpu": {"hosts": 1}}],
                "podTemplate": {"resources": {"requests": {"cpu": "2"}}},
            }
        }
    )


def generation(folder: Folder, attempt: int, step: int) -> float:
    """Seconds for which an attempt generated in a step that it completed, by its own books."""
    (file,) = (folder.path / "ledger").glob(f"a{attempt}-*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return sum(line.get("generate", 0.0) for line in lines if line["step"] == step and "tokens" in line)


def finish(folder: Folder, until_step: int) -> None:
    gang = Gang.start(folder, 1, until_step)
    codes = gang.wait()
    if folder.last_commit() is None or folder.last_commit().step < until_step:  # type: ignore[union-attr]
        raise SystemExit(f"it ended with {codes}: {gang.termination().get('message')}")


def measure(seconds: float, share: float, scratch: Path) -> dict[str, Any]:
    trial = Folder(scratch / "trial", "trial", job(FIRST_GUESS), scratch / "cache")
    finish(trial, 2)
    prompts = max(1, round(FIRST_GUESS * seconds / generation(trial, 1, 2)))

    folder, seen = Folder(scratch / "run", "run", job(prompts), scratch / "cache"), Seen()
    gang = Gang.start(folder, 1, until_step=2, listener=seen.heard)
    try:
        while seen.until("generate", gang) < 1:
            time.sleep(0.02)
        began, whole = time.monotonic(), generation(folder, 1, 1)
        time.sleep(max(0.0, began + share * whole - time.monotonic()))
        sent = time.monotonic()
        gang.send(signal.SIGTERM)
        gang.wait(120)
        gone = time.monotonic() - sent
    finally:
        gang.end()
    log = (folder.local / "process-0.log").read_text()
    kept = re.search(r"kept .* for the next attempt", log)
    finish(folder, 2)
    again = generation(folder, 2, 2)
    return {
        "promptsPerStep": prompts,
        "generationSeconds": round(whole, 2),
        "exitSeconds": round(gone, 2),
        "kept": kept.group() if kept else "nothing",
        "generatedAgain": round(again / whole, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the generation")
    parser.add_argument("--share", type=float, default=0.9, help="after which the signal comes")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(arguments.seconds, arguments.share, Path(scratch))
    print(
        f"a generation of {found['generationSeconds']} s ({found['promptsPerStep']} prompts), told to go after "
        f"{arguments.share:.0%}: gone in {found['exitSeconds']} s, {found['kept']}; "
        f"the next attempt generated for {found['generatedAgain']:.0%} of it",
        flush=True,
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
