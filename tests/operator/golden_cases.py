"""The golden cases: how each snapshot in `cases/` came about, and how the files are written.

`python tests/operator/golden_cases.py` writes them anew; read the difference before you keep it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from plan_story import QUEUE, Story

from ratchet_operator.decide import decide
from ratchet_operator.plan import Plan
from ratchet_operator.snapshot import Snapshot

CASES = Path(__file__).parent / "cases"
WARM_UP = {"name": "warm-up", "index": 0, "startStep": 0}
REASON = {"name": "reason", "index": 1, "startStep": 10}


def running() -> Story:
    """An attempt in its first stage, step 6."""
    story = Story().begin()
    story.later(12.5).report(
        step=6, targetStep=10, stage=WARM_UP, reward=0.25, checkpoint={"step": 6, "path": "steps/6"}
    )
    story.settle()
    story.later(1)
    return story


def applied() -> Story:
    """A job was just applied. Status authorizes attempt 1 first; then its ConfigMap and its JobSet are created."""
    return Story()


def jobset_seen() -> Story:
    """The JobSet of attempt 1 is there: its uid is written down, which makes the attempt's token whole."""
    story = Story()
    story.decide()
    story.later(0.02).make_pods()
    return story


def all_pods_run() -> Story:
    """Both pods run: the recovery clock stops here, the image's digest is pinned, the leader gets its gate."""
    story = Story()
    story.settle()
    story.make_pods()
    story.place()
    story.later(0.4).run()
    return story


def spot_notice() -> Story:
    """GKE takes a spot slice. Both nodes say that they are shutting down; no pod has ended yet.

    Evidence is written first. The kubelets end their own pods within the notice, so only the JobSet is deleted.
    """
    return running().shut_down("pool-a-0", "pool-a-1")


def one_node_of_two_goes() -> Story:
    """Only one node gave notice. The other pod is given what is left of the window, so that both commit one step."""
    return running().shut_down("pool-a-1")


def maintenance_is_announced() -> Story:
    """Maintenance of the slice is announced for in half an hour: the leader is asked for a checkpoint and goes on."""
    story = running()
    for name in ("pool-a-0", "pool-a-1"):
        labels = story.nodes[name]["metadata"]["labels"]
        labels["cloud.google.com/scheduled-maintenance-time"] = str(int(story.time) + 1800)
    return story


def maintenance_begins() -> Story:
    """The time has come, and GKE says so on the nodes: both pods get the grace of their template to commit a step."""
    story = maintenance_is_announced()
    story.settle()
    story.later(1800)
    for name in ("pool-a-0", "pool-a-1"):
        story.nodes[name]["metadata"]["labels"]["cloud.google.com/active-node-maintenance"] = "ONGOING"
    return story


def drained() -> Story:
    """Both pods left with 75 and told their last committed step: attempt 2 is authorized and created at once."""
    story = running().shut_down("pool-a-0", "pool-a-1")
    story.settle()
    story.later(1.2)
    return story.leave(story.pod(0), 75, step=7).leave(story.pod(1), 75, step=7)


def survivor_of_a_lost_node() -> Story:
    """A node lost power. All that is seen is that the other pod left with 69: PeerLost for now, and nothing charged."""
    story = running()
    return story.leave(story.pod(0), 69, message="connection to process 1 was reset")


def lost_node_is_gone() -> Story:
    """Seconds later its Node is deleted. The verdict becomes NodeLost, the pod on it can no longer write: attempt 2."""
    story = survivor_of_a_lost_node()
    story.settle()
    story.later(4)
    story.nodes["pool-a-1"] = None
    return story


def old_pod_may_still_write() -> Story:
    """The node does not answer, and its Node object is still there: attempt 2 is authorized but not created."""
    story = survivor_of_a_lost_node()
    story.settle()
    story.later(4)
    story.nodes["pool-a-1"]["status"]["conditions"][0] |= {"status": "Unknown", "reason": "NodeStatusUnknown"}
    return story


def stage_ends() -> Story:
    """The trainer reports the boundary at step 10. Status records it first; then the gate lets the next stage begin."""
    story = running()
    boundary = {"stage": 0, "step": 10, "rule": "steps"}
    return story.report(step=10, phase="boundary", stage=WARM_UP, boundary=boundary, checkpoint={"step": 10})


def last_stage_ends() -> Story:
    """The last stage is recorded as done, and only then the trainer is told to finish."""
    story = stage_ends()
    story.settle()
    boundary = {"stage": 1, "step": 40, "rule": "accuracy atLeast 0.9"}
    return story.later(30).report(step=40, phase="boundary", stage=REASON, boundary=boundary, checkpoint={"step": 40})


def waits_for_approval() -> Story:
    """A guard ended the stage and asks for an approval. The end is written down, and the gate stays as it is."""
    story = running()
    rule = "guard train/entropy <= 0.05 over 20"
    boundary = {"stage": 0, "step": 10, "rule": rule, "needsApproval": True}
    return story.report(step=10, phase="boundary", stage=WARM_UP, boundary=boundary, checkpoint={"step": 10})


def approved_while_waiting() -> Story:
    """The approval comes while the attempt still waits at the gate: the next stage begins, the gate opens."""
    story = waits_for_approval()
    story.settle()
    story.later(20).job["spec"]["approvals"] = [{"stage": "warm-up"}]
    return story


def left_without_approval() -> Story:
    """After a minute at the shut gate both pods left with 75. Nothing is charged, and no attempt takes their place."""
    story = waits_for_approval()
    story.settle()
    told = {"step": 10, "boundary": story.progress["boundary"], "message": "the stage gate stayed shut for 60 s"}
    return story.later(60).leave(story.pod(0), 75, **told).leave(story.pod(1), 75, **told)


def approved_after_leaving() -> Story:
    """Hours later the approval comes: attempt 2 is made, and goes on where the stage ended."""
    story = left_without_approval()
    story.settle()
    story.later(7200).job["spec"]["approvals"] = [{"stage": "warm-up"}]
    return story


def completed() -> Story:
    """Both pods exited with 0 after the gate said to finish. The JobSet stays, so that logs can be read."""
    story = last_stage_ends()
    story.settle()
    story.later(1)
    return story.leave(story.pod(0), 0, step=40).leave(story.pod(1), 0, step=40)


def application_failure() -> Story:
    """The user's reward function raised. The failure budget pays, the JobSet stays for its log."""
    story = running()
    return story.leave(story.pod(1), 70, message="KeyError: 'answer' in rewards/mine.py line 12")


def budget_is_spent() -> Story:
    """failureLimit 0, one failure, and two minutes later no evidence that would excuse it: the job is Failed."""
    story = application_failure()
    story.job["spec"]["restart"] = {"failureLimit": 0}
    story.settle()
    story.leave(story.pod(0), 69).jobset_failed()
    story.settle()
    return story.later(121)


def stage_budget_is_spent() -> Story:
    """The trainer left because its stage has generated what it may. Nothing is charged, the chips are booked, and no
    attempt takes its place."""
    story = stage_ends()
    story.settle()
    story.job["spec"]["budgets"] = [{"stage": "reason", "generatedTokens": 5000, "chipHours": "2"}]
    stage = REASON | {"generatedTokens": 5100}
    told = {"reason": "BudgetSpent", "step": 18, "stage": stage, "message": "stage reason has generated 5100 tokens"}
    return story.later(600).leave(story.pod(0), 75, **told).leave(story.pod(1), 75, **told)


def waits_in_queue() -> Story:
    """The JobSet names a queue of Kueue, whose webhook suspended it: no pod is made before there is quota."""
    story = Story(jobSetTemplate={"labels": {QUEUE: "research"}})
    story.decide()
    return story.later(0.02)


def taken_back_by_queue() -> Story:
    """Kueue suspended the JobSet of a running attempt, for a workload of higher priority; the Job controller has
    deleted the pods. The JobSet goes at once, so that the queue cannot start it again."""
    story = waits_in_queue()
    story.settle()
    story.later(60).admit()
    story.settle()
    story.place()
    story.run()
    story.settle()
    story.later(12.5).report(step=6, targetStep=10, stage=WARM_UP, checkpoint={"step": 6})
    story.settle()
    return story.later(1).evict()


def suspended() -> Story:
    """spec.suspend became true: the gang gets its whole grace to commit one common step."""
    story = running()
    story.job["spec"]["suspend"] = True
    return story


def refused() -> Story:
    """A service account that the operator's values do not allow: nothing is created; the message says the way out."""
    return Story(podTemplate={"serviceAccountName": "cluster-admin"})


def applied_again() -> Story:
    """The job was deleted and applied again while its pods still run: the new one waits for them."""
    story = running()
    del story.job["status"]
    story.job["metadata"]["uid"] = "new-uid"
    story.progress = None
    story.jobsets.clear()
    return story


def status_lost() -> Story:
    """Somebody wiped the status of a running job: the attempt is taken up again, with an event."""
    story = running()
    del story.job["status"]
    return story


def workers_start() -> Story:
    """The trainer of a job with a fleet runs: both workers are authorized in status, then created, after all else."""
    fleet = {"workers": {"min": 1, "max": 2}, "placements": [{"name": "here", "cpu": {"hosts": 1}}]}
    stages = [{"name": "reason", "rl": {"dataset": "sums"}, "advance": {"steps": 30}}]
    story = Story(stages=stages, rollouts=fleet)
    story.settle()
    story.make_pods()
    story.place()
    story.run()
    return story


def worker_is_lost() -> Story:
    """The machine of a worker is gone: it is replaced alone, under the next number. The trainer's attempt goes on."""
    story = workers_start()
    story.settle()
    for jobset in story.jobsets[1:]:
        story.make_pods(jobset)
    story.place("workers")
    story.run()
    story.settle()
    story.later(60)
    story.nodes["workers-1"] = None
    return story


def left_for_want_of_workers() -> Story:
    """No worker ran for long, so the trainer has given its machines back. Nothing is charged, and no attempt starts
    before rollouts.workers.min workers run."""
    story = workers_start()
    story.settle()
    story.later(1800)
    for pod in (story.pod(0), story.pod(1)):
        story.leave(pod, 75, reason="Error")
        said = {"v": 1, "reason": "NoWorkers", "message": "0 of 1 workers were there for 1800 s"}
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"] = json.dumps(said)
    return story


ALL: dict[str, Callable[[], Story]] = {
    f.__name__.replace("_", "-"): f
    for f in (
        applied, jobset_seen, all_pods_run, spot_notice, one_node_of_two_goes, maintenance_is_announced,
        maintenance_begins, drained, survivor_of_a_lost_node,
        lost_node_is_gone, old_pod_may_still_write, stage_ends, last_stage_ends, waits_for_approval,
        approved_while_waiting, left_without_approval, approved_after_leaving, completed, application_failure,
        budget_is_spent, stage_budget_is_spent, waits_in_queue, taken_back_by_queue, suspended, refused, applied_again,
        status_lost, workers_start, worker_is_lost, left_for_want_of_workers,
    )
}  # fmt: skip


class Dumper(yaml.SafeDumper):
    """Block style, but small mappings in one line: conditions and references read like a table."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        node = super().represent_mapping(tag, mapping, flow_style)
        values = list(mapping.values())
        node.flow_style = (
            all(not isinstance(value, (dict, list)) for value in values)
            and len(values) > 1
            and sum(len(f"{k}: {v}, ") for k, v in mapping.items()) < 152
        )
        return node


def text(data: Any, comment: str) -> str:
    lines = [f"# {line.strip()}".rstrip() for line in comment.strip().splitlines()]
    return "\n".join(lines) + "\n" + yaml.dump(data, Dumper=Dumper, sort_keys=False, width=158, allow_unicode=True)


def seen_by_the_user(snapshot: Snapshot, plan: Plan) -> str:
    """What `kubectl get` and `kubectl describe` show once the plan is applied: columns, changed conditions, events."""
    before = snapshot.job.get("status") or {}
    after = plan.status or before
    columns = (
        ("phase", after.get("phase")),
        ("stage", (after.get("stage") or {}).get("name")),
        ("step", (after.get("progress") or {}).get("text")),
        ("attempt", (after.get("attempt") or {}).get("number")),
        ("preemptions", (after.get("counters") or {}).get("preemptions")),
    )
    lines = ["The user sees: " + ", ".join(f"{name} {value}" for name, value in columns if value is not None)]
    known = {c["type"]: (c["status"], c["reason"]) for c in before.get("conditions", ())}
    for c in after.get("conditions", ()):
        if known.get(c["type"]) != (c["status"], c["reason"]) and (known or c["status"] == "True"):
            words = f": {c['message']}" if c["message"] else ""
            lines.append(f"- {c['type']}={c['status']} ({c['reason']}){words}")
    lines += [f"- event {event.type} {event.reason}: {event.message}" for event in plan.events]
    return "\n".join(lines)


def plan_comment(case: str, snapshot: Snapshot) -> str:
    """What stands above a recorded plan."""
    return f"{(ALL[case].__doc__ or '').strip()}\n\n{seen_by_the_user(snapshot, decide(snapshot))}"


def plain(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot as its file has it: without what is empty."""
    data = {key: value for key, value in asdict(snapshot).items() if value not in (None, (), [], {})}
    data["values"] = {key: list(value) if isinstance(value, tuple) else value for key, value in data["values"].items()}
    return data


def main() -> None:
    shutil.rmtree(CASES, ignore_errors=True)
    for name, make in ALL.items():
        snapshot, comment = make().snapshot(), make.__doc__ or ""
        folder = CASES / name
        folder.mkdir(parents=True)
        (folder / "snapshot.yaml").write_text(text(plain(snapshot), comment), encoding="utf-8")
        plan = text(decide(snapshot).to_dict(), plan_comment(name, snapshot))
        (folder / "plan.yaml").write_text(plan, encoding="utf-8")


if __name__ == "__main__":
    main()
