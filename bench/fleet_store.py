"""What the store costs a fleet: calls that are published, taken, answered and collected, and versions of the weights.

    python bench/fleet_store.py [--calls N] [--workers N] [--parameters N] [--kinds path gs] [--json FILE]

One process stands for the trainer and, with a thread each, for all workers, who answer at once; so their processors
and the store's are the bounds. Beside it, in the same run, the same bytes are created and read as plain objects, by as
many threads. Of versions (bfloat16) printed are bytes in the store over bytes of the weights, and seconds of a
publication and of a load over those of plain objects of 32 MiB. `gs` is a server of Google's API on loopback.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np

from ratchet_cluster.object_stores import ObjectStore
from ratchet_trainer import storage
from ratchet_trainer.fleet import result as results
from ratchet_trainer.fleet.board import AT_ONCE, Board
from ratchet_trainer.fleet.call import Call
from ratchet_trainer.fleet.versions import Versions
from ratchet_trainer.storage import Location

PROMPTS, SAMPLES, SLOTS = 16, 8, 64
PIECE = 32 << 20
SHA = "0" * 64


def call(number: int) -> Call:
    prompts = tuple(tuple(range(100 + n, 200 + n)) for n in range(PROMPTS))
    draws = tuple(range(number * PROMPTS, (number + 1) * PROMPTS))
    zeros, limits = (0,) * PROMPTS, (SLOTS,) * PROMPTS
    sizes = {"rows": PROMPTS, "prompt_slots": 104, "response_slots": SLOTS, "refills": False}
    return Call(0, SHA, 1, 0, number, SHA, SHA, prompts, 1, SAMPLES, 0, draws, zeros, limits, **sizes)


def answer(asked: Call, worker: str) -> results.Result:
    size = PROMPTS, SAMPLES, SLOTS
    sampled = SimpleNamespace(
        tokens=np.full(size, asked.number, np.int32),
        log_probs=np.zeros(size, np.float32),
        entropy=np.zeros(size, np.float32),
        lengths=np.full(size[:2], SLOTS, np.int32),
        finish=np.full(size[:2], "length"),
    )
    return results.made(asked, sampled, identity=SHA, worker=worker)


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def of_calls(place: Location, number: int, workers: int) -> dict[str, float]:
    """A round of calls; seconds of its parts over those of the same bytes as plain objects."""
    trainer, asked = Board(place, 1), [call(n) for n in range(number)]
    done: dict[str, results.Result] = {}
    taken: list[str] = []

    def work(name: str) -> None:
        board = Board(place, 1, name)
        while len(done) < number:
            found = board.next_call()
            if found is None or (lease := board.take(found)) is None:
                time.sleep(0.2)
                continue
            board.put(found, answer(found, name))
            lease.end()
            taken.append(found.folder)

    def collect() -> None:
        while len(done) < number:
            waiting = [one for one in asked if one.folder not in done]
            trainer.announce(waiting)
            done.update(trainer.collect(waiting))

    publishing = seconds(lambda: trainer.publish(asked))
    threads = [threading.Thread(target=work, args=(f"w{n}",), daemon=True) for n in range(workers)]
    trainer.announce(asked)
    for thread in threads:
        thread.start()
    answering = seconds(collect)
    for thread in threads:
        thread.join()
    again = seconds(lambda: Board(place, 1).collect(asked))
    calls, answers = [one.to_bytes() for one in asked], [results.encode(answer(one, "w0")) for one in asked]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        plain = [place / "plain" / str(n) for n in range(number)]
        creating_calls = seconds(lambda: list(pool.map(storage.create, plain, calls)))
        plain = [place / "plain" / f"result-{n}" for n in range(number)]
        creating = seconds(lambda: list(pool.map(storage.create, plain, answers)))
        reading = seconds(lambda: list(pool.map(storage.read, plain)))
    return {
        "publishedOverCreated": publishing / creating_calls,
        "roundOverCreatedAndRead": answering / (creating_calls + creating + reading),
        "collectedOverRead": again / reading,
        "sampledTwice": len(taken) - number,
        "roundSecondsPerCall": answering / number,
    }


def of_versions(place: Location, parameters: int) -> dict[str, float]:
    """One version; seconds over those of the same bytes as plain objects."""
    side = 2048
    words = np.random.default_rng(0).integers(0, 1 << 16, parameters, np.uint16)
    rows = [words[at : at + side * side] for at in range(0, parameters - side * side + 1, side * side)]
    arrays = {f"params/{n}": row.view(ml_dtypes.bfloat16).reshape(side, side) for n, row in enumerate(rows)}
    size = sum(array.nbytes for array in arrays.values())
    data = words.tobytes()[:size]
    pieces = {str(at): data[at : at + PIECE] for at in range(0, size, PIECE)}
    writing = seconds(lambda: storage.write_all(place / "raw", pieces, durable=False))
    reading = seconds(lambda: storage.read_all(place / "raw", pieces))
    versions, names = Versions(place, 1), []
    publishing = seconds(lambda: names.append(versions.publish(arrays)))
    again = seconds(lambda: names.append(versions.publish(arrays)))
    loaded: list[Any] = []
    loading = seconds(lambda: loaded.append(versions.load(names[0])))
    assert names[0] == names[1]
    assert all(loaded[0][path].tobytes() == array.tobytes() for path, array in arrays.items())
    folder = place / "fleet" / "1" / "versions" / names[0]
    stored = sum(len(found or b"") for found in storage.read_all(folder, storage.tree(folder)))
    return {
        "bytes": size,
        "storedOverBytes": stored / size,
        "publishedOverWritten": publishing / writing,
        "publishedAgainOverWritten": again / writing,
        "loadedOverRead": loading / reading,
        "publishSeconds": publishing,
        "loadSeconds": loading,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--parameters", type=int, default=100_000_000)
    parser.add_argument("--kinds", nargs="+", choices=("path", "gs"), default=("path", "gs"))
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        store = ObjectStore.begin("gs", Path(temporary) / "gs") if "gs" in arguments.kinds else None
        try:
            if store is not None:
                store.make_bucket("fleet")
                os.environ |= store.env()
            for kind in arguments.kinds:
                place = Location("gs", "fleet", "jobs") if kind == "gs" else Location.parse(Path(temporary) / "path")
                for what, found in (
                    ("calls", of_calls(place / "calls", arguments.calls, arguments.workers)),
                    ("versions", of_versions(place / "versions", arguments.parameters)),
                ):
                    figures[f"{kind} {what}"] = found
                    said = ", ".join(f"{name} {value:.3g}" for name, value in found.items())
                    print(f"{kind}, {what}: {said}", flush=True)
        finally:
            if store is not None:
                store.stop()
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
