"""The workers of a rollout fleet: when there are any, what becomes of each, and what their trainer waits for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from plan_story import Story, node

from ratchet_api.protocol import NO_WORKERS
from ratchet_operator.decide import stamps
from ratchet_operator.decide.end_signs import disruptions
from ratchet_operator.decide.verdict import TABLE as OF_TRAINERS
from ratchet_operator.decide.verdict import Verdict
from ratchet_operator.decide.worker_end import BACK_OFF_MOST, PAUSE_SECONDS, TABLE, Answer

STAGES = [{"name": "reason", "rl": {"dataset": "sums"}, "advance": {"steps": 30}}]
HERE = {"name": "here", "cpu": {"hosts": 1}, "waitSeconds": 60}
THERE = {"name": "there", "cpu": {"hosts": 2}, "waitSeconds": 60}


class Fleet(Story):
    """A job whose trainer runs on two TPU hosts, with workers of their own."""

    def __init__(self, workers: dict[str, int] | None = None, **spec: Any) -> None:
        rollouts = {"workers": workers or {"min": 1, "max": 3}, "placements": [HERE], "waitSeconds": 600}
        super().__init__(**({"stages": STAGES, "rollouts": rollouts} | spec))

    @property
    def fleet(self) -> dict[str, Any]:
        return self.status["rollouts"]

    @property
    def said(self) -> tuple[str, str]:
        condition = self.condition("RolloutsAvailable")
        return condition["status"], condition["reason"]

    @property
    def workers(self) -> dict[int, dict[str, Any]]:
        """JobSets of workers by the worker's number."""
        found: dict[int, dict[str, Any]] = {}
        for jobset in self.jobsets:
            number = jobset["metadata"]["labels"].get("ratchet.dev/worker")
            if number is not None:
                assert int(number) not in found, f"worker {number} has two JobSets"
                found[int(number)] = jobset
        return found

    def names(self) -> list[str]:
        return sorted(jobset["metadata"]["name"] for jobset in self.workers.values())

    def of(self, number: int) -> dict[str, Any]:
        """A worker as status has it."""
        return next(worker for worker in self.fleet["workers"] if worker["worker"] == number)

    def pods_of(self, number: int) -> list[dict[str, Any]]:
        uid = self.workers[number]["metadata"]["uid"]
        return [p for p in self.pods if p["metadata"]["labels"]["jobset.sigs.k8s.io/jobset-uid"] == uid]

    def workers_run(self, *numbers: int, place: bool = True) -> Fleet:
        """What the cluster does: pods of these workers (all by default) are made, placed and run."""
        for number, jobset in self.workers.items():
            if (not numbers or number in numbers) and not self.pods_of(number):
                self.make_pods(jobset)
                if place:
                    self.place(jobset["metadata"]["name"])
                    self.run()
        self.settle()
        return self

    def scale(self, **workers: int) -> Fleet:
        self.job["spec"]["rollouts"]["workers"] |= workers
        self.job["metadata"]["generation"] += 1
        self.settle()
        return self

    def leaves(self, number: int, code: int, **message: Any) -> Fleet:
        """All pods of a worker exit, and what the operator makes of it."""
        for pod in self.pods_of(number):
            self.leave(pod, code, **message)
        self.settle()
        return self


def running(**spec: Any) -> Fleet:
    story = Fleet(**spec)
    story.begin()
    story.settle()
    return story.workers_run()


def test_the_table_has_a_row_for_every_verdict():
    assert set(TABLE) == set(Verdict) == set(OF_TRAINERS)


def test_capacity_that_was_taken_away_costs_a_worker_nothing():
    lost = {Verdict.PREEMPTED, Verdict.MAINTENANCE, Verdict.NODE_LOST, Verdict.EVICTED, Verdict.DELETED}
    assert {TABLE[verdict] for verdict in lost} == {Answer.AT_ONCE}
    assert {v for v in Verdict if TABLE[v] == Answer.HOPELESS} == {
        Verdict.CONFIGURATION_INVALID,
        Verdict.DETERMINISTIC_FAILURE,
        Verdict.CHECKPOINT_UNREADABLE,
    }
    assert callable(disruptions)


def test_a_job_without_a_fleet_says_so_and_has_no_workers():
    story = Story(stages=STAGES).begin()
    assert "rollouts" not in story.status
    condition = story.condition("RolloutsAvailable")
    assert (condition["status"], condition["reason"]) == ("Unknown", "NotApplicable")


def test_the_trainer_starts_first_and_then_the_workers():
    story = Fleet()
    story.settle()
    assert story.workers == {}
    assert story.said == ("False", "AwaitingTrainer")
    story.up()
    story.settle()
    assert story.names() == ["sums-w0-a1", "sums-w1-a2", "sums-w2-a3"]
    assert story.said == ("False", "TooFew")
    story.workers_run()
    assert story.said == ("True", "AllRunning")
    assert (story.fleet["running"], story.fleet["desired"], story.fleet["text"]) == (3, 3, "3/3")


def test_a_workers_number_is_in_status_before_its_objects_exist():
    story = Fleet()
    story.settle()
    story.make_pods()
    story.place()
    story.run()
    plan = next(plan for plan in iter(story.decide, None) if plan.create_last)
    assert plan.status_first
    assert [w["attempt"] for w in plan.status["rollouts"]["workers"]] == [1, 2, 3]
    assert [body["kind"] for body in plan.create_last] == ["ConfigMap", "JobSet"] * 3


def test_a_worker_is_the_trainer_with_another_command_on_a_placement_of_its_own():
    story = running()
    jobset = story.workers[1]
    labels = jobset["metadata"]["labels"]
    assert labels["ratchet.dev/worker"] == "1"
    assert "ratchet.dev/attempt" not in labels, "whoever looks for attempts never finds a worker"
    (replicated,) = jobset["spec"]["replicatedJobs"]
    (container,) = replicated["template"]["spec"]["template"]["spec"]["containers"]
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert container["command"] == ["ratchet", "rollout-worker"]
    assert (env["RATCHET_WORKER"], env["RATCHET_ATTEMPT"]) == ("1", labels["ratchet.dev/worker-attempt"])
    assert (replicated["replicas"], replicated["template"]["spec"]["completions"]) == (1, 1)
    assert f"{jobset['metadata']['name']}-job" in story.configmaps


def test_workers_have_a_class_of_their_own_unless_the_manifest_names_one():
    def classes(**template: str) -> set[str | None]:
        story = Fleet()
        story.job["spec"]["rollouts"]["podTemplate"] = template
        story.values = type(story.values)(image="trainer:1", worker_priority_class="low")
        story.begin()
        story.settle()
        made = [jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"] for jobset in story.jobsets]
        return {pod["spec"].get("priorityClassName") for pod in made}

    assert classes() == {None, "low"}
    assert classes(priorityClassName="sampling") == {None, "sampling"}


def test_a_worker_verifies_nothing_so_it_holds_no_secret():
    judge = {"http": {"url": "http://judge", "secret": {"name": "judge", "key": "token"}}}
    rewards = [{"name": "right"}, {"name": "prefix", "correctPrefix": judge}]
    rl = {"dataset": "sums", "method": "sgpo", "rewards": rewards}
    story = Fleet(stages=[{"name": "reason", "rl": rl, "advance": {"steps": 30}}])
    story.begin()
    story.settle()
    held = {
        jobset["metadata"]["name"]: "judge" in json.dumps(jobset["spec"]["replicatedJobs"]) for jobset in story.jobsets
    }
    assert held == {"sums-a1": True, "sums-w0-a1": False, "sums-w1-a2": False, "sums-w2-a3": False}


@pytest.mark.parametrize("taken", ["notice", "node gone", "pod deleted", "JobSet deleted"])
def test_a_worker_that_is_taken_away_is_replaced_alone_and_nothing_is_charged(taken):
    story = running()
    story.later(30)
    trainer, others = story.attempt, story.names()
    pod = story.pods_of(1)[0]
    if taken == "notice":
        story.shut_down(pod["spec"]["nodeName"])
    elif taken == "node gone":
        story.nodes[pod["spec"]["nodeName"]] = None
    elif taken == "pod deleted":
        pod["metadata"] |= {"deletionTimestamp": stamps.whole(story.now), "deletionGracePeriodSeconds": 0}
    else:
        story.jobsets = [j for j in story.jobsets if j is not story.workers[1]]
    story.settle()
    assert story.names() == sorted({*others, "sums-w1-a4"} - {"sums-w1-a2"})
    assert story.attempt == trainer, "the trainer's attempt goes on"
    assert (story.of(1)["failures"], story.fleet["restarts"]) == (0, 1)
    assert story.status.get("attempts", []) == []
    assert story.said == ("True", "SomeRunning")
    story.workers_run(1)
    assert story.said == ("True", "AllRunning")


def test_a_new_worker_waits_for_no_pod_of_the_old_one():
    story = running()
    story.later(30)
    name = story.pods_of(1)[0]["spec"]["nodeName"]
    story.nodes[name]["status"]["conditions"][0] |= {"status": "Unknown", "reason": "NodeStatusUnknown"}
    story.jobsets = [j for j in story.jobsets if j is not story.workers[1]]
    story.settle()
    assert "sums-w1-a4" in story.names()


def test_what_takes_a_worker_away_at_once_does_not_make_the_operator_busy():
    story = running()
    story.later(30)
    for _ in range(2):
        assert 0 in story.workers
        taken = story.workers[0]
        story.jobsets = [j for j in story.jobsets if j is not taken]
        story.settle()
    assert 0 not in story.workers
    assert story.decide().requeue_after == pytest.approx(PAUSE_SECONDS, abs=0.1)
    story.later(PAUSE_SECONDS + 0.1).settle()
    assert 0 in story.workers


def test_failures_of_a_worker_back_off_and_its_log_stays_until_the_next_start():
    story = running()
    waits = []
    for _ in range(4):
        story.later(10)
        story.leaves(2, 1, message="no room on the disk")
        assert 2 in story.workers, "its pods can be read"
        wait = story.decide().requeue_after
        waits.append(round(wait))
        story.later(wait).settle()
        story.workers_run(2)
    assert waits == [5, 10, 20, 40]
    assert story.of(2)["failures"] == 4
    assert story.counters["failures"] == 0
    story.later(301)
    story.leaves(2, 1)
    assert story.of(2)["failures"] == 1, "it had shown that it can"


def test_the_back_off_has_an_end():
    story = running()
    for _ in range(12):
        story.leaves(2, 1)
        wait = story.decide().requeue_after
        story.later(wait).settle()
        story.workers_run(2)
    assert wait == pytest.approx(BACK_OFF_MOST, abs=1)


@pytest.mark.parametrize("code", [64, 65, 77])
def test_one_worker_that_cannot_never_ends_the_job_and_all_of_them_do(code):
    story = running()
    for _ in range(5):
        story.leaves(0, code, message="no such thing")
        story.later(story.decide().requeue_after).settle()
        story.workers_run(0)
    assert story.status["phase"] == "Running"
    assert story.said == ("True", "AllRunning")
    story.leaves(0, code, message="no such thing")
    for _ in range(2):
        story.leaves(1, code, message="no such thing").leaves(2, code, message="no such thing")
        story.later(story.decide().requeue_after).settle()
        story.workers_run(1, 2)
    story.leaves(1, code, message="no such thing")
    assert "attempts" not in story.status or not story.status["attempts"], "worker 2 may yet sample"
    story.leaves(2, code, message="no such thing")
    record = story.status["attempts"][-1]
    assert (record["verdict"], record["chargedTo"]) == ("WorkersFailed", "nothing")
    assert "no such thing" in record["evidence"]
    for pod in [story.pod(0), story.pod(1)]:
        story.leave(pod, 75)
    story.later(3).settle()
    failed = story.condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", "WorkersFailed")
    assert story.workers == {}, "nothing is held any more"
    story.job["spec"]["rollouts"]["podTemplate"] = {"labels": {"mended": "yes"}}
    story.job["metadata"]["generation"] += 1
    story.settle()
    assert story.condition("Failed")["status"] == "False"
    assert story.attempt["number"] == 2


def test_other_failures_of_all_workers_never_end_the_job():
    story = running(workers={"min": 1, "max": 1})
    for _ in range(6):
        story.leaves(0, 74, message="the bucket does not answer")
        story.later(story.decide().requeue_after).settle()
        story.workers_run(0)
    assert story.status["phase"] == "Running"


def test_a_failing_fleet_says_which_worker_and_why():
    story = running(workers={"min": 1, "max": 1})
    story.leaves(0, 74, message="the bucket does not answer")
    assert story.said == ("False", "WorkersFail")
    message = story.condition("RolloutsAvailable")["message"]
    assert "worker 0 failed 1 times running" in message
    assert "the bucket does not answer" in message
    assert "WorkersFail" in story.events


def test_the_number_of_workers_follows_the_manifest():
    story = running(workers={"min": 1, "max": 1})
    story.scale(max=4)
    assert list(story.workers) == [0, 1, 2, 3]
    story.workers_run()
    kept = story.workers[0]["metadata"]["uid"]
    story.scale(max=2)
    assert list(story.workers) == [0, 1]
    assert story.workers[0]["metadata"]["uid"] == kept
    story.scale(max=0)
    assert story.workers == {}
    assert story.said == ("False", "ScaledToZero")
    assert story.attempt["number"] == 1, "the trainer waits"
    story.scale(max=3)
    assert len(story.workers) == 3
    assert not {"sums-w0-a1", "sums-w1-a2"} & set(story.names()), "no name comes twice"
    assert len(story.configmaps & {f"{name}-job" for name in story.names()}) == 3


def test_a_large_fleet_starts_some_workers_a_pass():
    story = Fleet({"min": 1, "max": 40})
    story.settle()
    story.up()
    plans = story.settle()
    assert len(story.workers) == 40
    assert max(len(plan.create_last) for plan in story.plans) == 32
    assert plans is not None


def test_workers_outlive_an_attempt_of_the_trainer():
    story = running()
    names = story.names()
    story.later(30).shut_down("pool-a-0", "pool-a-1")
    story.settle()
    story.leave(story.pod(0), 75).leave(story.pod(1), 75)
    story.settle()
    assert story.attempt["number"] == 2
    assert story.names() == names
    story.make_pods(next(j for j in story.jobsets if j["metadata"]["name"] == "sums-a2"))
    story.place("pool-b")
    story.run()
    story.settle()
    assert story.status["phase"] == "Running"
    assert story.names() == names


def test_a_trainer_that_is_away_for_long_lets_its_workers_go():
    story = running()
    story.later(30).shut_down("pool-a-0", "pool-a-1")
    story.settle()
    story.leave(story.pod(0), 75).leave(story.pod(1), 75)
    story.settle()
    assert len(story.workers) == 3
    story.later(590).settle()
    assert len(story.workers) == 3
    assert story.decide().requeue_after <= 10
    story.later(11).settle()
    assert story.workers == {}
    assert story.said == ("Unknown", "NotNeeded")
    assert "has not run for 600 s" in story.condition("RolloutsAvailable")["message"]


def gives_up(story: Fleet) -> None:
    """The trainer leaves for want of workers."""
    for pod in (story.pod(0), story.pod(1)):
        story.leave(pod, 75)
        text = json.dumps({"v": 1, "reason": NO_WORKERS, "message": "too few workers"})
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"] = text
    story.settle()


def test_a_trainer_without_workers_comes_back_when_enough_of_them_run():
    story = running(workers={"min": 2, "max": 3})
    for number in range(3):
        story.nodes[story.pods_of(number)[0]["spec"]["nodeName"]] = None
    story.settle()
    story.later(900)
    gives_up(story)
    placed = story.condition("Placed")
    assert (placed["status"], placed["reason"]) == ("False", "WaitingForWorkers")
    assert "0 of 2 workers" in placed["message"]
    assert story.attempt["number"] == 1
    assert (story.counters["failures"], story.counters["preemptions"]) == (0, 0)
    assert story.counters["disturbancesWithoutProgress"] == 0
    story.later(4000).settle()
    assert len(story.workers) == 3, "it is they whom the trainer waits for"
    story.workers_run(0)
    assert story.attempt["number"] == 1
    story.workers_run(1)
    assert story.attempt["number"] == 2
    assert "trainerWaits" not in story.fleet
    assert len(story.workers) == 3


def test_a_trainer_that_waits_for_a_fleet_of_none_says_what_to_do():
    story = running()
    story.scale(max=0)
    gives_up(story)
    assert "raise it to go on" in story.condition("Placed")["message"]


def test_a_suspended_job_has_no_workers_and_gets_them_back():
    story = running()
    story.job["spec"]["suspend"] = True
    story.settle()
    assert story.workers == {}
    assert story.said == ("Unknown", "NotNeeded")
    story.leave(story.pod(0), 75).leave(story.pod(1), 75)
    story.settle()
    story.job["spec"]["suspend"] = False
    story.settle()
    story.up("pool-b")
    story.settle()
    assert len(story.workers) == 3


def test_a_stage_that_samples_nothing_has_no_workers():
    warm_up = {"name": "warm-up", "sft": {"dataset": "sums"}, "advance": {"steps": 10}}
    story = Fleet(stages=[warm_up, *STAGES])
    story.begin()
    assert story.workers == {}
    assert story.said == ("Unknown", "NotNeeded")
    boundary = {"stage": 0, "step": 10, "rule": "steps", "needsApproval": False}
    story.later(5).report(step=10, stage={"name": "warm-up", "index": 0, "startStep": 0}, boundary=boundary)
    story.settle()
    assert len(story.workers) == 3, "the stage that samples has begun"


def test_nobody_samples_while_an_approval_is_awaited():
    stages = [{**STAGES[0], "advance": {"steps": 30, "approval": "Manual"}}]
    story = running(stages=stages)
    boundary = {"stage": 0, "step": 30, "rule": "steps", "needsApproval": True}
    story.report(step=30, stage={"name": "reason", "index": 0, "startStep": 0}, boundary=boundary)
    story.settle()
    assert story.workers == {}


def test_chips_of_workers_are_counted_and_spend_the_budget():
    story = running(budgets=[{"stage": "reason", "chipHours": "1"}], workers={"min": 1, "max": 2})
    story.later(100)
    story.nodes[story.pods_of(0)[0]["spec"]["nodeName"]] = None
    story.settle()
    assert story.status["stages"][0]["chipSeconds"] == 100, "what the lost worker took, a chip a host"
    assert story.counters["chipSeconds"] == {"OnDemand": 100}
    # 3600 s of chips: the trainer holds 8, a worker 1.
    story.later(275).settle()
    assert story.condition("Suspended")["status"] == "False"
    story.later(15).settle()
    assert story.status["attempts"][-1]["verdict"] == "Drained"
    assert story.workers == {}, "who may cost no more holds nothing"


def test_a_finished_job_holds_no_worker():
    story = running()
    boundary = {"stage": 0, "step": 30, "rule": "steps", "needsApproval": False}
    story.report(step=30, stage={"name": "reason", "index": 0, "startStep": 0}, boundary=boundary)
    story.settle()
    assert story.workers == {}
    story.leave(story.pod(0), 0).leave(story.pod(1), 0)
    story.settle()
    assert story.status["phase"] == "Completed"
    assert story.status["rollouts"]["workers"] == []


def test_a_placement_without_room_is_left_for_the_next():
    story = Fleet({"min": 1, "max": 2})
    story.job["spec"]["rollouts"]["placements"] = [HERE, THERE]
    story.begin()
    story.settle()
    story.workers_run(place=False)
    message = story.condition("RolloutsAvailable")["message"]
    assert "2 have no node of here" in message
    assert story.decide().requeue_after == pytest.approx(60, abs=1)
    story.later(61).settle()
    assert {worker["placement"] for worker in story.fleet["workers"]} == {"there"}
    completions = {
        jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["completions"] for jobset in story.workers.values()
    }
    assert completions == {2}
    assert story.of(0)["failures"] == 0


def test_a_worker_of_two_hosts_runs_when_both_do_and_is_replaced_as_a_whole():
    story = Fleet({"min": 1, "max": 1})
    story.job["spec"]["rollouts"]["placements"] = [THERE]
    story.begin()
    story.settle()
    story.workers_run()
    assert story.fleet["running"] == 1
    story.later(30)
    first = story.pods_of(0)[0]
    story.nodes[first["spec"]["nodeName"]] = None
    story.settle()
    assert story.names() == ["sums-w0-a2"]


def test_what_the_trainer_says_of_its_fleet_is_shown():
    story = running()
    told = {"version": "ab" * 32, "waitingCalls": 5, "resultsPerSecond": 2.5, "workers": 3}
    story.report(step=3, stage={"name": "reason", "index": 0, "startStep": 0}, rollouts=told)
    story.settle()
    assert (story.fleet["version"], story.fleet["waitingCalls"]) == ("ab" * 32, 5)
    assert story.fleet["resultsPerSecond"] == "2.5"
    story.flush_due = False
    story.report(step=3, stage={"name": "reason", "index": 0, "startStep": 0}, rollouts=told | {"waitingCalls": 4})
    assert story.decide().status is None, "what changes with every call waits for the next flush"


def test_workers_are_taken_up_again_when_status_was_lost():
    story = running()
    names = story.names()
    del story.job["status"]
    story.settle()
    assert story.names() == names
    assert story.fleet["lastAttempt"] == 3
    story.scale(max=4)
    assert "sums-w3-a4" in story.names()


def test_a_name_that_somebody_else_has_is_passed_over():
    story = Fleet({"min": 1, "max": 1})
    story.begin()
    story.jobsets = [j for j in story.jobsets if "ratchet.dev/worker" not in j["metadata"]["labels"]]
    story.job["status"]["rollouts"]["workers"][0].pop("createdTime", None)
    story.conflicts = ["JobSet/sums-w0-a1"]
    story.settle()
    assert story.names() == ["sums-w0-a2"]
    assert story.condition("Placed")["reason"] == "AllPodsScheduled", "the trainer has nothing to do with it"


def test_a_worker_that_is_refused_keeps_nothing_from_the_trainer():
    story = Fleet({"min": 1, "max": 1})
    story.begin()
    story.jobsets = [j for j in story.jobsets if "ratchet.dev/worker" not in j["metadata"]["labels"]]
    story.job["status"]["rollouts"]["workers"][0].pop("createdTime", None)
    story.refused = "JobSet sums-w0-a1 could not be created: exceeded quota"
    plan = story.decide()
    assert plan.create == ()
    assert len(plan.create_last) == 2
    assert "exceeded quota" in story.condition("RolloutsAvailable")["message"]
    assert story.condition("Placed")["reason"] == "AllPodsScheduled"


def test_no_worker_starts_while_the_spec_is_not_accepted_and_those_that_run_go_on():
    story = running()
    names = story.names()
    story.directory_owner = "team/other"
    story.settle()
    assert story.names() == names
    story.nodes[story.pods_of(0)[0]["spec"]["nodeName"]] = None
    story.later(30).settle()
    assert len(story.workers) == 2 or story.of(0).get("endTime") is not None


def test_trainers_logic_never_takes_a_worker_for_a_trainer():
    story = running()
    stuck = story.pods_of(0)[0]
    stuck["spec"]["nodeName"] = "silent"
    story.nodes["silent"] = node("silent")
    story.nodes["silent"]["status"]["conditions"][0] |= {"status": "Unknown"}
    story.later(30).shut_down("pool-a-0", "pool-a-1")
    story.settle()
    story.leave(story.pod(0), 75).leave(story.pod(1), 75)
    story.settle()
    assert story.attempt["number"] == 2
    assert any(j["metadata"]["name"] == "sums-a2" for j in story.jobsets), "no worker's pod fences it off"
    assert "ForeignObject" not in story.events
