"""Many jobs and a flood of events for one operator: all are looked at, memory stays small, nothing is written at rest.

How it is with thousands is measured in `bench/`; here it is shown that nothing is lost and nothing grows.
"""

from __future__ import annotations

import asyncio

from running_operator import until
from scripted_trainer import Pace

from ratchet_cluster.api import MERGE

JOBS = 40
FLOOD = 200


async def test_a_flood_of_jobs_and_events_starves_nobody_and_comes_to_rest(world):
    operator = await (await world.operator(RATCHET_RESYNC_SECONDS="1")).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=5)
    await world.apply()
    status = await world.running(step=5)
    names = [f"job-{number}" for number in range(JOBS)]
    await asyncio.gather(*(world.apply(name, suspend=True) for name in names))

    async def all_seen():
        jobs = await world.items("rltrainingjobs")
        return sum((job.get("status") or {}).get("phase") == "Suspended" for job in jobs) == JOBS

    await until("every job has its status", all_seen)
    pod = world.path("pods", (await world.items("pods"))[0]["metadata"]["name"])

    async def flood():
        for number in range(FLOOD):
            await world.api.patch(pod, {"metadata": {"annotations": {"flood": str(number)}}}, MERGE)

    flooding = asyncio.create_task(flood())
    await world.apply("late", suspend=True)
    await world.until("a job that comes in the flood has its turn", lambda s: s.get("phase") == "Suspended", "late")
    await flooding
    assert (await world.status())["attempt"] == status["attempt"], "nothing has come of the flood"
    await world.at_rest(lists=3)
    with open(f"/proc/{operator.worker}/status") as lines:
        resident = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    assert resident < 512 * 1024
    world.kubelet.pace["sums"].stop_at = None
    await world.completed()
