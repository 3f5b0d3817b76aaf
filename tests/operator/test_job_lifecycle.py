"""Whole lives of a job on a real control plane: stages, preemptions, failures, what is written and what is not."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import sys
from collections import Counter

from running_operator import until
from scripted_trainer import Pace

from ratchet_api.protocol import Exit


def conditions(status):
    return {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}


async def test_a_job_runs_through_its_stages_to_the_end(world):
    await (await world.operator()).leads()
    await world.apply()
    status = await world.completed()
    assert [(s["name"], s["startStep"], s["endStep"]) for s in status["stages"]] == [
        ("warm-up", 0, 10),
        ("reason", 10, 30),
    ]
    assert status["attempt"]["number"] == 1
    assert conditions(status)["Completed"][0] == "True"
    (gang,) = world.kubelet.gangs.values()
    assert gang.steps_run == list(range(1, 31)), "every step once"
    repeated = [pair for pair, count in Counter(await world.events()).items() if count > 1]
    assert not repeated, "each transition is told once"


async def test_nothing_is_written_while_nothing_happens(world):
    """Also not by the periodic list, and neither on a running job nor on a finished one."""
    await (await world.operator(RATCHET_RESYNC_SECONDS="0.3")).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=5)
    await world.apply()
    await world.running(step=5)
    await world.at_rest()
    world.kubelet.pace["sums"].stop_at = None
    await world.completed()
    await world.at_rest()


async def running_with_a_spare_pool(world) -> list[str]:
    """The two nodes of a job that has made six steps and may go on; there is another pool for it."""
    await (await world.operator()).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=6)
    await world.apply()
    await world.running(step=6)
    taken = list(world.kubelet.nodes)
    await world.kubelet.add_pool("b")
    world.kubelet.pace["sums"].stop_at = None
    return taken


async def test_a_preemption_with_notice_costs_no_step(world):
    node, _ = await running_with_a_spare_pool(world)
    await world.kubelet.shut_down(node)
    status = await world.completed()
    assert (status["counters"]["preemptions"], status["counters"].get("failures", 0)) == (1, 0)
    assert status["counters"].get("stepsLost", 0) == 0
    assert status["attempts"][0]["verdict"] == "Preempted"
    assert status["attempt"]["number"] == 2
    assert world.kubelet.overlaps == []
    first, second = world.kubelet.gangs.values()
    assert first.steps_run + second.steps_run == list(range(1, 31)), "every step once, in order"


async def test_a_node_that_vanishes_is_told_from_a_failure(world):
    for node in await running_with_a_spare_pool(world):
        await world.kubelet.remove_node(node)
    status = await world.completed()
    assert (status["counters"]["preemptions"], status["counters"].get("failures", 0)) == (1, 0)
    assert status["attempts"][0]["verdict"] == "NodeLost"
    assert world.kubelet.overlaps == []


async def test_a_machine_that_is_gone_right_after_its_notice_was_preempted(world):
    """Whoever looks finds neither the Node nor pods that say anything: the notice was heard, and counts."""
    node, _ = await running_with_a_spare_pool(world)
    await world.kubelet.announce(node)
    await world.kubelet.remove_node(node)
    status = await world.completed()
    assert status["attempts"][0]["verdict"] == "Preempted"
    assert (status["counters"]["preemptions"], status["counters"].get("failures", 0)) == (1, 0)


async def test_a_failing_trainer_spends_the_budget_and_fails_the_job(world):
    await (await world.operator()).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=0)
    await world.apply(restart={"failureLimit": 0})
    await until("pods run", lambda: len(world.kubelet.running) == 2)
    for gang in world.kubelet.gangs.values():
        gang.end(Exit.CONFIGURATION_INVALID, "no such task: chain_summ")
    status = await world.until("the job is Failed", lambda s: s.get("phase") == "Failed")
    assert "chain_summ" in next(c["message"] for c in status["conditions"] if c["type"] == "Failed")
    assert status["attempt"]["number"] == 1


async def test_stages_go_on_where_http_is_blocked(world):
    """A boundary in the termination message does what /progress cannot."""
    await (await world.operator()).leads()
    world.kubelet.pace["sums"] = Pace(serve=False, boundary_wait=1.5)
    await world.apply()
    status = await world.completed()
    assert [s["endStep"] for s in status["stages"]] == [10, 30]
    # On a busy machine a pod may be deleted with its JobSet before its end is seen, which is charged to nobody either.
    assert {a["verdict"] for a in status["attempts"]} <= {"Drained", "Completed", "Deleted"}
    assert status["counters"].get("failures", 0) == 0


async def test_an_answer_of_another_attempt_is_dropped(world):
    operator = await (await world.operator()).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=5, lie={"attempt": 7, "step": 4000})
    await world.apply()
    await until("a mismatch is counted", lambda: operator.metric('ratchet_progress_answers_total{result="mismatch"}'))
    assert "progress" not in await world.status()


async def test_suspended_and_resumed(world):
    await (await world.operator()).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=5)
    await world.apply()
    await world.running(step=5)
    await world.edit(suspend=True)
    await world.until("it is Suspended", lambda s: s.get("phase") == "Suspended")
    await until("no pod is left", lambda: not world.kubelet.running)
    world.kubelet.pace["sums"].stop_at = None
    await world.edit(suspend=False)
    status = await world.completed()
    assert status["counters"].get("stepsLost", 0) == 0
    assert status["counters"].get("failures", 0) == 0


async def test_the_series_of_a_deleted_job_go(world):
    operator = await (await world.operator()).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=5)
    await world.apply()
    await world.running(step=5)
    await until("its steps are counted", lambda: operator.metric('ratchet_step{job_name="sums"') >= 1)
    await world.api.delete(world.path("rltrainingjobs", "sums"))
    await until("its series are gone", lambda: 'job_name="sums"' not in operator.get("/metrics")[1])


async def test_one_replica_stays_small(world):
    """Parent and worker together, with one job running."""
    operator = await (await world.operator()).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=5)
    await world.apply()
    await world.running(step=5)
    assert sum(resident(pid) for pid in (operator.pid, operator.worker)) < 120 * 1024


def resident(pid):
    """Resident KiB of a process."""
    with open(f"/proc/{pid}/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


async def test_a_job_waits_for_approval_without_capacity_and_goes_on_with_it(world, api_server):
    """Approved as the condition's message says, once by kubectl after the attempt has left, once while it waits."""
    await (await world.operator()).leads()
    world.kubelet.pace["sums"] = Pace(boundary_wait=0.5)
    advance = {"steps": 10, "approval": "Manual"}
    stages = [
        {"name": "warm-up", "sft": {"dataset": "sums"}, "advance": advance},
        {"name": "reason", "rl": {"dataset": "sums", "method": "grpo"}, "advance": advance},
    ]
    await world.apply(stages=stages)
    status = await world.until("the attempt has left", lambda s: s.get("attempts") and "finalTime" in s["attempts"][0])
    assert (status["phase"], status["attempts"][0]["chargedTo"]) == ("AwaitingApproval", "nothing")
    await until("no capacity is held", lambda: world.gone("jobsets", "sums-a1"))
    world.kubelet.pace["sums"].boundary_wait = 60.0
    ratchet, kubectl = commands(await world.status())
    await asyncio.to_thread(api_server.kubectl, *kubectl[1:])
    status = await world.until("the last stage waits", lambda s: s["stages"][-1].get("endStep") == 20)
    assert (status["phase"], status["attempt"]["number"]) == ("AwaitingApproval", 2)
    ratchet, kubectl = commands(status)
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "ratchet_cli.main", *ratchet[1:]],
        env={**os.environ, **api_server.env()},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "the job may be completed" in done.stdout
    status = await world.completed()
    assert [("approvedTime" in s, s["endStep"]) for s in status["stages"]] == [(True, 10), (True, 20)]
    assert status["counters"]["attempts"] == 2


def commands(status) -> list[list[str]]:
    """The two commands of the condition's message."""
    (words,) = (c["message"] for c in status["conditions"] if c["type"] == "AwaitingApproval")
    return [shlex.split(command) for command in words.split("approved: ")[1].split(", or ")]
