"""A job that loses machines again and again: what share of its time is work, by its own ledger, checked by the clock.

    python bench/goodput.py [--minutes N] [--every S] [--abrupt SHARE] [--seed N] [--prompts N] [--json FILE]

On the local control plane one gang of two hosts trains on spot nodes, with a spare pool of the same shape beside it. In
every `--every` seconds one of its machines is taken away, at a moment that is drawn; `--abrupt` of them without notice.
The goodput is the ledger's useful seconds (generate, verify, update, evaluate) over all time from the first attempt's
start to the end, so time without any attempt counts against it. What the ledger has is compared with the clock: the
seconds of all attempts and those between attempts, as the job's status tells of them, must add up to the whole.

`--prompts` is the size of a step: with 8 it takes some milliseconds, so that saves and work between steps weigh more
than losses; with the default a second or two, as a small model's do on an accelerator.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from recovery import JOBS, NODES, PARTS, PODS, Gang, manifest, operated

from ratchet_api.protocol import LABEL_JOB
from ratchet_cluster.cluster import Cluster
from ratchet_trainer.process import ledger

Raw = dict[str, Any]
PRICE = ("init", "compile", "restore", "replay", "drain")
"""Categories of seconds that a run without losses has once, at its start."""


def job_of(prompts: int) -> Raw:
    """The job whose machines are taken away."""
    job = manifest("goodput", None)
    spec: Raw = job["spec"]
    spec["stages"][0]["rl"]["promptsPerStep"] = prompts
    spec["datasets"][0]["reasoningGym"]["size"] = max(800, 4 * prompts)
    return job


async def story(cluster: Cluster, job: Raw, minutes: float, every: float, abrupt: float, seed: int) -> Raw:
    draw = random.Random(seed)
    async with cluster.plane.api() as api, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        gang = Gang(api, "goodput")
        following = [
            asyncio.create_task(gang.follow(PODS, gang.pods, labelSelector=f"{LABEL_JOB}=goodput")),
            asyncio.create_task(gang.follow(NODES, gang.nodes)),
        ]
        await api.create(JOBS, job)
        await gang.until("the gang runs", lambda: len(gang.running()) == 2)
        await gang.trains(session, 3)
        began, kills = time.monotonic(), []
        for window in range(int(minutes * 60 / every)):
            await asyncio.sleep(max(0.0, began + (window + draw.random()) * every - time.monotonic()))
            hosts = sorted({str(pod["spec"]["nodeName"]) for pod in gang.running()})
            if not hosts:
                continue  # it has not come back yet
            kills.append(draw.random() < abrupt)
            print(f"{time.monotonic() - began:7.1f} s: {'without' if kills[-1] else 'with'} notice", flush=True)
            await asyncio.to_thread(cluster.preempt, draw.choice(hosts), kills[-1])
        await asyncio.sleep(max(0.0, began + minutes * 60 - time.monotonic()))
        await api.patch(f"{JOBS}/goodput", {"spec": {"suspend": True}}, "application/merge-patch+json")
        await gang.until("the pods are gone", lambda: not gang.pods)
        ended = datetime.now(UTC)
        status = (await api.get(f"{JOBS}/goodput"))["status"]
        whole = (ended - datetime.fromisoformat(status["attempts"][0]["startTime"])).total_seconds()
        for task in following:
            task.cancel()
    attempts = ledger.read(cluster.folder / "volumes/checkpoints/goodput")
    seconds = {k: sum(line.get(k, 0.0) for lines in attempts.values() for line in lines) for k in ledger.CATEGORIES}
    recoveries = [it["recovery"] for it in status["attempts"] if it.get("recovery")]
    return {"whole": whole, "kills": kills, "seconds": seconds, "recoveries": recoveries, "attempts": len(attempts)}


def show(found: Raw) -> None:
    seconds, whole = found["seconds"], found["whole"]
    useful = sum(seconds[k] for k in ledger.USEFUL)
    booked = sum(seconds.values())
    kills = len(found["kills"])
    print(
        f"{kills} kills, {sum(found['kills'])} without notice, {found['attempts']} attempts in {whole:.0f} s; "
        f"useful {useful:.0f} s: goodput {useful / whole:.4f}"
    )
    print("  ".join(f"{name} {s:.1f}" for name, s in seconds.items() if s >= 0.05))
    lost = (whole - useful) / max(1, kills)
    print(f"all attempts {booked:.0f} s, between attempts {whole - booked:.0f} s by the clock; {lost:.2f} s a kill")
    price = sum(seconds[k] for k in PRICE) + whole - booked
    print(f"of it the price of losses ({', '.join(PRICE)}, no attempt): {price:.1f} s, {price / whole:.4f}")
    for part in PARTS:
        values = sorted(float(it[part]) for it in found["recoveries"] if part in it)
        if values:
            print(f"  {part:8} median {values[len(values) // 2]:6.2f} s, most {values[-1]:6.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--every", type=float, default=60, help="seconds in which one machine is lost")
    parser.add_argument("--abrupt", type=float, default=0.0, help="share of losses without notice")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prompts", type=int, default=512, help="prompts a step, with eight responses each")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with operated() as (cluster, _):
        found = asyncio.run(story(cluster, job_of(asked.prompts), asked.minutes, asked.every, asked.abrupt, asked.seed))
    show(found)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
