"""No checker that cannot fail: a good history has no fault, and what breaks it is found by its invariant alone."""

from __future__ import annotations

import copy

import pytest
from history import JOB, JOBSET, NODE, POD, Act, History, Look, Resumed, Round, Seen, Version
from invariants import INVARIANTS, broken

LABELS = {"ratchet.dev/job-name": "sums", "ratchet.dev/job-uid": "job"}
OPERATOR = "ratchet-operator/first"


class Life:
    """A history, written down version by version; revisions count up from 1."""

    def __init__(self):
        self.history = History()
        self.revision = 0

    def say(self, kind, change, name, uid, by_operator=False, **parts):
        """A version of an object; `parts` are what is in it beside the metadata, `meta` what is added to that."""
        self.revision += 1
        meta = {"name": name, "uid": uid, "resourceVersion": str(self.revision), **parts.pop("meta", {})}
        raw = copy.deepcopy({"metadata": meta, **parts})
        self.history.versions.append(Version(kind, change, raw))
        if by_operator:
            sent = {"metadata": {"resourceVersion": str(self.revision - 1)}}
            self.history.acts.append(Act("PUT", f"/{name}", 200, OPERATOR, sent, raw))
        return self

    def job(self, change="MODIFIED", generation=1, **status):
        """The job as the operator writes it."""
        full = {"observedGeneration": 1, **status}
        return self.say(JOB, change, "sums", "job", True, spec={}, status=full, meta={"generation": generation})

    def jobset(self, number, change="ADDED", told=0, owner="job", **status):
        owners = [{"kind": "RLTrainingJob", "uid": owner}]
        labels = {**LABELS, "ratchet.dev/attempt": str(number)}
        pod = {"spec": {"containers": [{"env": [{"name": "RATCHET_LAST_STEP", "value": str(told)}]}]}}
        spec = {"replicatedJobs": [{"template": {"spec": {"template": pod}}}]}
        meta = {"ownerReferences": owners, "labels": labels}
        return self.say(JOBSET, change, f"sums-a{number}", f"set-{number}", spec=spec, status=status, meta=meta)

    def pod(self, number, phase, change="MODIFIED", node="node-1", **status):
        labels = {**LABELS, "ratchet.dev/attempt": str(number), "jobset.sigs.k8s.io/jobset-uid": f"set-{number}"}
        meta = {"labels": labels, "ownerReferences": [{"kind": "Job", "uid": "some-job"}]}
        status = {"phase": phase, **status}
        return self.say(
            POD, change, f"sums-a{number}-0", f"pod-{number}", spec={"nodeName": node}, status=status, meta=meta
        )

    def node(self, name, change="ADDED", uid=None, taints=()):
        return self.say(NODE, change, name, uid or f"uid of {name}", spec={"taints": list(taints)})

    def looks(self):
        self.history.reads.append(Look("sums", self.revision))
        return self

    def sees(self, **older):
        """A pass sees the last version of everything, out of the watches, but of `older` another one."""
        left = {uid: it.revision for kind in (JOB, JOBSET, POD) for uid, it in self.history.left(kind).items()}
        seen = {uid: older.get(uid.replace("-", "_"), revision) for uid, revision in left.items()}
        self.history.reads.append(Seen("sums", seen, self.revision))
        return self

    def round(self):
        self.history.reads.append(Round(self.revision))
        return self


def condition(status, since, kind="Running"):
    return {"type": kind, "status": status, "lastTransitionTime": since, "observedGeneration": 1}


def record(number, verdict, budget):
    return {"number": number, "verdict": verdict, "chargedTo": budget}


def preempted(life):
    """A job whose first attempt loses its machine at step 5, and whose second one completes it."""
    life.node("node-1").node("node-2").job("ADDED").looks().round()
    life.job(attempt={"number": 1}, stage={"index": 0}, conditions=[condition("False", "10:00")])
    life.jobset(1).pod(1, "Pending", "ADDED").pod(1, "Running").looks()
    life.job(attempt={"number": 1}, stage={"index": 0}, checkpoint={"step": 5}, conditions=[condition("True", "10:01")])
    life.node("node-1", "DELETED").looks().round()
    lost = {
        "attempts": [record(1, "NodeLost", "preemptions")],
        "counters": {"preemptions": 1},
        "checkpoint": {"step": 5},
    }
    life.job(attempt={"number": 2}, stage={"index": 0}, conditions=[condition("False", "10:02")], **lost)
    life.jobset(1, "MODIFIED", conditions=[{"type": "Failed", "status": "True"}])
    life.jobset(2, told=5).pod(2, "Pending", "ADDED", "node-2").pod(2, "Running", node="node-2").looks()
    life.job(attempt={"number": 2}, stage={"index": 1}, conditions=[condition("True", "10:03")], **lost)
    life.pod(2, "Succeeded", node="node-2").looks().round()
    life.job(
        attempt={"number": 2}, stage={"index": 1}, phase="Completed", conditions=[condition("False", "10:04")], **lost
    )
    life.history.resumed += [Resumed("set-1", 0), Resumed("set-2", 5)]
    life.history.settled = True
    return life


def test_a_good_history_is_not_faulted():
    assert broken(preempted(Life()).history) == []


def test_a_machine_out_of_service_runs_nothing():
    life = Life().node("node-1").node("node-2").pod(1, "Running", "ADDED")
    life.node("node-1", "MODIFIED", taints=[{"key": "node.kubernetes.io/out-of-service"}])
    assert broken(life.pod(2, "Running", "ADDED", "node-2").history) == []


def two_attempts_run(life):
    life.node("node-1").node("node-2").pod(1, "Running", "ADDED").pod(2, "Running", "ADDED", "node-2")


def an_attempt_is_made_beside_another(life):
    life.jobset(1).jobset(2)


def the_attempt_falls(life):
    life.job("ADDED", attempt={"number": 2}).job(attempt={"number": 1})


def the_stage_falls(life):
    life.job("ADDED", stage={"index": 2}).job(stage={"index": 1})


def the_step_falls(life):
    life.job("ADDED", checkpoint={"step": 9}).job(checkpoint={"step": 8})


def the_step_is_forgotten(life):
    life.job("ADDED", checkpoint={"step": 9}).job()


def a_pod_outlives_its_job(life):
    life.job("ADDED").jobset(1).node("node-1").pod(1, "Running", "ADDED").looks().job("DELETED")
    life.history.settled = True


def a_pod_outlives_its_jobset(life):
    life.job("ADDED").jobset(1).node("node-1").pod(1, "Running", "ADDED").jobset(1, "DELETED").looks()
    life.history.settled = True


def an_attempt_is_told_an_old_step(life):
    life.job("ADDED", checkpoint={"step": 9}).jobset(1, told=4)


def an_attempt_is_told_a_step_that_does_not_exist(life):
    life.job("ADDED").jobset(1, told=4)
    life.history.resumed.append(Resumed("set-1", 3))


def a_generation_is_observed_that_is_to_come(life):
    life.job("ADDED", observedGeneration=2)


def a_condition_is_of_a_generation_that_is_to_come(life):
    life.job("ADDED", conditions=[{**condition("True", "10:00"), "observedGeneration": 7}])


def an_edit_is_never_observed(life):
    life.job("ADDED", generation=2, phase="Failed")
    life.history.settled = True


def a_time_moves_without_its_status(life):
    life.job("ADDED", conditions=[condition("True", "10:00")]).job(conditions=[condition("True", "10:01")])


def a_time_goes_back(life):
    life.job("ADDED", conditions=[condition("True", "10:01")]).job(conditions=[condition("False", "10:00")])


def something_is_written_at_rest(life):
    life.history.quiet.append(Act("POST", "/api/v1/namespaces/x/events", 201, OPERATOR))


def a_write_changes_nothing(life):
    same = {"metadata": {"resourceVersion": "7"}}
    life.history.acts.append(Act("PUT", "/rltrainingjobs/sums/status", 200, OPERATOR, same, same))


def a_failed_job_goes_on(life):
    life.job("ADDED", phase="Failed").job(phase="Running")


def a_completed_job_starts_an_attempt(life):
    life.job("ADDED", phase="Completed").jobset(2)


def a_lost_node_is_charged_as_a_failure(life):
    life.pod(1, "Failed", "ADDED", containerStatuses=[{"state": {"terminated": {"exitCode": 1}}}])
    life.job("ADDED", attempts=[record(1, "NodeLost", "failures")], counters={"failures": 1})


def a_preemption_is_counted_twice(life):
    life.job("ADDED", attempts=[record(1, "Preempted", "preemptions")], counters={"preemptions": 2})


def a_failure_is_counted_that_nobody_charged(life):
    life.job("ADDED", attempts=[record(1, "Drained", "nothing")], counters={"failures": 1})


def a_failure_is_charged_though_nothing_failed(life):
    life.pod(1, "Failed", "ADDED", containerStatuses=[{"state": {"terminated": {"exitCode": 75}}}])
    life.job("ADDED", attempts=[record(1, "ApplicationFailed", "failures")], counters={"failures": 1})


def an_attempt_starts_beyond_the_limit(life):
    failed = [record(number, "Hung", "failures") for number in range(1, 5)]
    life.job("ADDED", attempts=failed, counters={"failures": 4}).jobset(5)


def the_periodic_list_finds_nothing(life):
    life.job("ADDED").looks().node("node-1").pod(1, "Failed", "ADDED")
    for _ in range(12):
        life.round()


def a_change_is_never_looked_at(life):
    life.job("ADDED").looks().jobset(1).node("node-1").pod(1, "Running", "ADDED")
    life.history.settled = True


def a_pass_sees_a_pod_as_it_was_before(life):
    life.job("ADDED").jobset(1).node("node-1").pod(1, "Pending", "ADDED").sees()
    life.pod(1, "Running").sees(pod_1=life.revision - 1)
    life.history.settled = True


BREAKS = {
    "I1": (two_attempts_run, an_attempt_is_made_beside_another),
    "I2": (the_attempt_falls, the_stage_falls, the_step_falls, the_step_is_forgotten),
    "I3": (a_pod_outlives_its_job, a_pod_outlives_its_jobset),
    "I4": (an_attempt_is_told_an_old_step, an_attempt_is_told_a_step_that_does_not_exist),
    "I5": (a_generation_is_observed_that_is_to_come, a_condition_is_of_a_generation_that_is_to_come,
           an_edit_is_never_observed),
    "I6": (a_time_moves_without_its_status, a_time_goes_back),
    "I7": (something_is_written_at_rest, a_write_changes_nothing),
    "I8": (a_failed_job_goes_on, a_completed_job_starts_an_attempt),
    "I9": (a_lost_node_is_charged_as_a_failure, a_preemption_is_counted_twice, a_failure_is_counted_that_nobody_charged,
           a_failure_is_charged_though_nothing_failed, an_attempt_starts_beyond_the_limit),
    "I10": (the_periodic_list_finds_nothing, a_change_is_never_looked_at, a_pass_sees_a_pod_as_it_was_before),
}  # fmt: skip


@pytest.mark.parametrize(
    ("invariant", "breaks"),
    [
        pytest.param(name, breaks, id=f"{name} {breaks.__name__}")
        for name, all_of in BREAKS.items()
        for breaks in all_of
    ],
)
def test_a_broken_history_is_found_by_its_invariant_alone(invariant, breaks):
    life = Life()
    breaks(life)
    found = broken(life.history)
    assert found, "nothing was found"
    assert {text.partition(":")[0] for text in found} == {invariant}
    assert broken(life.history, {invariant: "on purpose"}) == []


def test_what_passes_saw_out_of_the_watches_was_looked_at():
    life = Life()
    life.job("ADDED").jobset(1).node("node-1").pod(1, "Running", "ADDED").sees().pod(1, "Failed", "DELETED").sees()
    life.history.settled = True
    assert broken(life.history) == []


def test_every_invariant_can_be_broken():
    assert BREAKS.keys() == INVARIANTS.keys()
