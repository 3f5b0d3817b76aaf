"""A rollout fleet whose sampling takes simulated seconds: does adding workers add steps, and what does the fleet cost?

    python bench/fleet.py [--steps N] [--update S] [--json FILE]

The trainer's side (`fleet.sampling`), the board and its leases are the product's, on a path; a worker is a thread that
takes calls as `worker.py` does and then sleeps as long as an accelerator would sample, and an update is a sleep, too:
a stand-in for accelerators, which this machine has none of. Generation takes four times as long as an update, in 16
calls. Ideal is a step every max(update, generation / workers), or their sum without lag.

Then, without sleeping: what one step of 1,000 calls costs the trainer over one store while 64 workers look for calls,
beside the same bytes read and written plainly.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from ratchet_trainer import storage
from ratchet_trainer.fleet import result as results
from ratchet_trainer.fleet.board import Board
from ratchet_trainer.fleet.sampling import FleetSampling
from ratchet_trainer.fleet.watch import FleetWatch
from ratchet_trainer.rollout.engine import Shape
from ratchet_trainer.rollout.sampler import Sampled
from ratchet_trainer.rollout.sampling_call import SamplingCall
from ratchet_trainer.storage import Location

PROMPTS, SAMPLES, TOKENS = 4, 8, 32
CALLS, GENERATION = 16, 4.0
VERSION = "0" * 64


class Alone:
    """A group of one process."""

    process, processes = 0, 1

    def broadcast(self, value: Any) -> Any:
        return value

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def enter(self, phase: str) -> None: ...
    def safe_point(self) -> None: ...


def sampled(call: Any) -> Sampled:
    shape = PROMPTS, SAMPLES, TOKENS
    lengths = np.full(shape[:2], TOKENS, np.int32)
    return Sampled(
        np.ones(shape, np.int32), np.zeros(shape, np.float32), np.zeros(shape, np.float32), lengths,
        np.full(shape[:2], "length"),
    )  # fmt: skip


def calls_of(step: int, count: int) -> list[SamplingCall]:
    return [
        SamplingCall(
            f"{step}-{i}", 0, SAMPLES, 0, 8, ((1, 2, 3),) * PROMPTS,
            tuple(range((step * count + i) * PROMPTS, (step * count + i + 1) * PROMPTS)), (0,) * PROMPTS,
            (TOKENS,) * PROMPTS,
        )
        for i in range(count)
    ]  # fmt: skip


class Workers:
    """So many threads that work as `worker.py` does, each call taking so many seconds."""

    def __init__(self, root: Location, count: int, seconds: float):
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(Board(root, 1, f"w{i}"), seconds)) for i in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, board: Board, seconds: float) -> None:
        while not self._over.is_set():
            call = board.next_call()
            lease = board.take(call) if call is not None else None
            if call is None or lease is None:
                time.sleep(0.05)
                continue
            time.sleep(seconds)
            board.put(call, results.made(call, sampled(call), identity="machine", worker=board.worker))
            lease.end()

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def sampling(root: Location) -> FleetSampling:
    def ignored(*said: Any) -> None: ...

    fleet = FleetWatch(0, 1e9, ignored, lambda: (), ignored, ignored, ignored)
    shape = Shape(PROMPTS, 9, TOKENS)
    return FleetSampling(Alone(), Board(root, 1), (0, "stage"), shape, VERSION, fleet)  # type: ignore[arg-type]


def steps_a_second(root: Location, workers: int, lag: int, steps: int, update: float) -> float:
    """Of a run whose every step samples CALLS calls."""
    fleet, crew = sampling(root), Workers(root, workers, GENERATION * update / CALLS)
    planned = 0
    try:
        began = 0.0
        for step in range(1, steps + 3):
            if step == 3:  # the pipeline is full
                began = time.monotonic()
            while lag and planned < step + lag:
                planned += 1
                fleet.bind(planned, VERSION, "first")
                fleet.send(calls_of(planned, CALLS), sampled)
            fleet.bind(step, VERSION, "first")
            fleet.responses(calls_of(step, CALLS), sampled)
            time.sleep(update)
        return steps / (time.monotonic() - began)
    finally:
        crew.end()


def ideal(workers: int, lag: int, update: float) -> float:
    generation = GENERATION * update / workers
    return 1 / (max(update, generation) if lag else update + generation)


def own_cost(root: Location, calls: int, workers: int) -> dict[str, float]:
    """Processor seconds of the trainer's thread for a step of so many calls, and the same bytes plainly."""
    fleet = sampling(root)
    asked = calls_of(1, calls)
    fleet.bind(1, VERSION, "first")
    crew = Workers(root, workers, 0.0)
    try:
        began, cpu = time.monotonic(), time.thread_time()
        fleet.responses(asked, sampled)
        wall, cpu = time.monotonic() - began, time.thread_time() - cpu
    finally:
        crew.end()
    board = Board(root, 1)
    size = sum(len(storage.read(board.folder / name) or b"") for name in storage.tree(board.folder) if "result" in name)
    began = time.thread_time()
    for i in range(calls):
        storage.write(root / "plain" / str(i), b"0" * (size // calls), durable=False)
        storage.read(root / "plain" / str(i))
    return {"wall": wall, "cpu": cpu, "bytes": size, "plainCpu": time.thread_time() - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--update", type=float, default=1.0, help="seconds of an update")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rows = []
    print("workers  lag   steps/s     ideal     ratio")
    for lag in (0, 1, 2):
        for workers in (1, 2, 4, 8):
            with tempfile.TemporaryDirectory() as folder:
                found = steps_a_second(Location.parse(folder), workers, lag, asked.steps, asked.update)
            best = ideal(workers, lag, asked.update)
            rows.append({"workers": workers, "lag": lag, "stepsPerSecond": found, "ideal": best})
            print(f"{workers:7}  {lag:3}   {found:7.3f}   {best:7.3f}   {found / best:7.3f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        cost = own_cost(Location.parse(folder), 1000, 64)
    print(
        f"a step of 1,000 calls with 64 workers: {cost['wall']:.2f} s, of which the trainer's thread computes "
        f"{cost['cpu']:.2f} s; {cost['bytes'] / 1e6:.1f} MB written and read plainly: {cost['plainCpu']:.2f} s"
    )
    if asked.json:
        asked.json.write_text(json.dumps({"scaling": rows, "cost": cost}, indent=2) + "\n")


if __name__ == "__main__":
    main()
