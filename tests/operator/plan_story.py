"""A job's world as plain data, for the tables of the pure core: what happens to it, and what a Plan makes of it.

`apply` does to the data what the API server would do (uids, resourceVersions, deletion grace); JobSet, Job and kubelet
appear only as far as a test says so (`place`, `run`, `leave`). The real plane has tests of its own.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import yaml

from ratchet_operator.decide import decide, stamps, strangers
from ratchet_operator.plan import Plan
from ratchet_operator.snapshot import Snapshot, Values

MANIFEST = """
apiVersion: ratchet.dev/v1alpha1
kind: RLTrainingJob
metadata: {name: sums, namespace: team, uid: job-uid, generation: 1, resourceVersion: "1"}
spec:
  model: {preset: tiny}
  datasets:
  - {name: sums, reasoningGym: {task: chain_sum}}
  stages:
  - {name: warm-up, sft: {dataset: sums}, advance: {steps: 10}}
  - {name: reason, rl: {dataset: sums}, advance: {steps: 30}}
  checkpoint: {directory: /checkpoints/sums, claimName: checkpoints}
  placements:
  - {name: spot, accelerator: tpu-v6e-slice, topology: 2x4, chipsPerNode: 4, capacity: Spot}
"""


def job(**spec: Any) -> dict[str, Any]:
    """The example's job; keyword arguments replace parts of its spec."""
    manifest = yaml.safe_load(MANIFEST)
    manifest["spec"].update(spec)
    return manifest


QUEUE = "kueue.x-k8s.io/queue-name"


class Story:
    """One job and everything around it. Time stands still until `later` is called."""

    def __init__(self, manifest: dict[str, Any] | None = None, **spec: Any) -> None:
        self.job = manifest or job(**spec)
        self.jobsets: list[dict[str, Any]] = []
        self.pods: list[dict[str, Any]] = []
        self.nodes: dict[str, dict[str, Any] | None] = {}
        self.configmaps: set[str] = set()
        self.progress: dict[str, Any] | None = None
        self.silent_since: str | None = None
        self.refused: str | None = None
        self.troubles: tuple[str, ...] = ()
        self.directory_owner: str | None = None
        self.instead: tuple[str, str] | None = None
        self.conflicts: list[str] = []
        self.told: tuple[str, ...] = ()
        self.values = Values(image="trainer:1")
        self.flush_due = True
        self.time = stamps.seconds("2026-01-02T03:04:05Z")
        self.events: list[str] = []
        self.plans: list[Plan] = []
        self._uids = 0

    # --- looking ----------------------------------------------------------------------------------------------------

    @property
    def now(self) -> str:
        return stamps.stamp(self.time)

    @property
    def status(self) -> dict[str, Any]:
        return self.job.get("status", {})

    @property
    def attempt(self) -> dict[str, Any]:
        return self.status.get("attempt", {})

    @property
    def counters(self) -> dict[str, Any]:
        return self.status["counters"]

    def record(self, number: int) -> dict[str, Any]:
        return next(r for r in self.status["attempts"] if r["number"] == number)

    def condition(self, kind: str) -> dict[str, Any]:
        return next(c for c in self.status["conditions"] if c["type"] == kind)

    def pod(self, index: int, attempt: int | None = None) -> dict[str, Any]:
        number = str(attempt or self.attempt["number"])
        return next(
            p
            for p in self.pods
            if p["metadata"]["labels"].get("ratchet.dev/attempt") == number
            and p["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] == str(index)
        )

    def gate(self) -> dict[str, Any]:
        return json.loads(self.pod(0)["metadata"]["annotations"]["ratchet.dev/word"])

    def snapshot(self) -> Snapshot:
        bound = {p["spec"]["nodeName"] for p in self.pods if "nodeName" in p["spec"]}
        return Snapshot(
            now=self.now,
            job=copy.deepcopy(self.job),
            jobsets=copy.deepcopy(self.jobsets),
            pods=copy.deepcopy(self.pods),
            nodes={name: copy.deepcopy(node) for name, node in self.nodes.items() if name in bound},
            progress=copy.deepcopy(self.progress),
            silent_since=self.silent_since,
            refused=self.refused,
            troubles=self.troubles,
            directory_owner=self.directory_owner,
            instead=self.instead,
            fence=1,
            flush_due=self.flush_due,
            conflicts=tuple(self.conflicts),
            told=self.told,
            values=self.values,
        )

    # --- the operator -----------------------------------------------------------------------------------------------

    def decide(self) -> Plan:
        """One pass: decide and apply."""
        plan = decide(self.snapshot())
        self.apply(plan)
        return plan

    def settle(self, passes: int = 6) -> list[Plan]:
        """Passes until there is nothing to do."""
        done = []
        for _ in range(passes):
            plan = self.decide()
            if plan.empty:
                return done
            done.append(plan)
        raise AssertionError(f"still busy after {passes} passes: {done[-1].to_dict()}")

    def apply(self, plan: Plan, acts: int | None = None) -> None:
        """Applies a plan; with `acts` only that many of its writes, as a crash would."""
        writes: list[Any] = []
        if plan.status is not None and plan.status_first:
            writes.append(lambda: self._write_status(plan))
        writes += [lambda body=body: self._create(body) for body in plan.create]
        writes += [lambda it=it: self._delete(it) for it in plan.delete]
        writes += [lambda it=it: self._patch(it) for it in plan.patch]
        if plan.status is not None and not plan.status_first:
            writes.append(lambda: self._write_status(plan))
        writes += [lambda body=body: self._create(body) for body in plan.create_last]
        for write in writes if acts is None else writes[:acts]:
            write()
        self.events += [event.reason for event in plan.events]
        self.told = strangers.uids(self.pods, self.jobsets)
        self.plans.append(plan)

    def _write_status(self, plan: Plan) -> None:
        self.job["status"] = copy.deepcopy(plan.status)
        self.job["metadata"]["resourceVersion"] = self._uid()

    def _create(self, body: dict[str, Any]) -> None:
        body = copy.deepcopy(body)
        body["metadata"]["uid"] = self._uid()
        if body["kind"] == "JobSet":
            assert all(j["metadata"]["name"] != body["metadata"]["name"] for j in self.jobsets), "created twice"
            if QUEUE in body["metadata"]["labels"]:
                body["spec"]["suspend"] = True  # what Kueue's webhook does
            self.jobsets.append(body)
        else:
            self.configmaps.add(body["metadata"]["name"])

    def _delete(self, it: Any) -> None:
        if it.kind == "JobSet":
            self.jobsets = [j for j in self.jobsets if j["metadata"]["uid"] != it.uid]
        elif it.kind == "ConfigMap":
            self.configmaps.discard(it.name)
        for pod in self.pods:
            if pod["metadata"]["uid"] == it.uid:
                grace = 30 if it.grace_seconds is None else it.grace_seconds
                pod["metadata"]["deletionTimestamp"] = stamps.whole(stamps.after(self.now, grace))
                pod["metadata"]["deletionGracePeriodSeconds"] = grace
                if "nodeName" not in pod["spec"]:
                    self.pods = [p for p in self.pods if p is not pod]

    def _patch(self, it: Any) -> None:
        pod = next(p for p in self.pods if p["metadata"]["uid"] == it.uid)
        assert pod["metadata"]["resourceVersion"] == it.resource_version
        pod["metadata"].setdefault("annotations", {}).update(it.body["metadata"]["annotations"])
        pod["metadata"]["resourceVersion"] = self._uid()

    def _uid(self) -> str:
        self._uids += 1
        return str(1000 + self._uids)

    # --- the world --------------------------------------------------------------------------------------------------

    def later(self, seconds: float) -> Story:
        self.time += seconds
        return self

    def make_pods(self, jobset: dict[str, Any] | None = None) -> None:
        """What JobSet and Job controller do: the pods of a JobSet, the newest one by default, not yet bound."""
        jobset = jobset or self.jobsets[-1]
        (replicated,) = jobset["spec"]["replicatedJobs"]
        template = replicated["template"]["spec"]["template"]
        name, namespace = jobset["metadata"]["name"], jobset["metadata"]["namespace"]
        for job_index in range(replicated["replicas"]):
            for index in range(replicated["template"]["spec"]["completions"]):
                labels = {
                    **template["metadata"]["labels"],
                    "jobset.sigs.k8s.io/jobset-uid": jobset["metadata"]["uid"],
                    "jobset.sigs.k8s.io/job-index": str(job_index),
                    "batch.kubernetes.io/job-completion-index": str(index),
                }
                pod_name = f"{name}-s-{job_index}-{index}"
                uid = self._uid()
                meta = {"name": pod_name, "namespace": namespace, "uid": uid, "resourceVersion": uid, "labels": labels}
                meta["ownerReferences"] = [{"kind": "Job", "name": pod_name, "uid": f"{uid}-job", "controller": True}]
                self.pods.append({"metadata": meta, "spec": {}, "status": {"phase": "Pending"}})

    def admit(self) -> Story:
        """What Kueue does once there is quota: the newest JobSet may start, and its pods are made."""
        self.jobsets[-1]["spec"]["suspend"] = False
        self.make_pods()
        return self

    def evict(self) -> Story:
        """What Kueue does when it wants its quota back; the Job controller deletes the pods."""
        self.jobsets[-1]["spec"]["suspend"] = True
        for pod in self.pods:
            own = pod["metadata"]["labels"]["jobset.sigs.k8s.io/jobset-uid"] == self.jobsets[-1]["metadata"]["uid"]
            if own and "deletionTimestamp" not in pod["metadata"]:
                deletion = stamps.whole(stamps.after(self.now, 30))
                pod["metadata"] |= {"deletionTimestamp": deletion, "deletionGracePeriodSeconds": 30}
        return self

    def place(self, pool: str = "pool-a") -> None:
        """What the scheduler does: unbound pods get nodes of a pool, in order."""
        free = iter(range(10_000))
        for pod in self.pods:
            if "nodeName" not in pod["spec"] and pod["status"]["phase"] == "Pending":
                name = f"{pool}-{next(free)}"
                pod["spec"]["nodeName"] = name
                self.nodes[name] = node(name, created=stamps.whole(stamps.after(self.now, -3600)))
                bound = {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamps.whole(self.now)}
                pod["status"]["conditions"] = [bound]

    def run(self) -> None:
        """What kubelets do: bound pods run."""
        for pod in self.pods:
            if "nodeName" in pod["spec"] and pod["status"]["phase"] == "Pending":
                pod["status"]["phase"] = "Running"
                pod["status"]["conditions"].append({"type": "Ready", "status": "True"})
                pod["status"]["containerStatuses"] = [
                    {"name": "trainer", "state": {"running": {}}, "imageID": "trainer@sha256:" + "a" * 64}
                ]
                pod["metadata"]["resourceVersion"] = self._uid()

    def begin(self) -> Story:
        """From nothing to a running attempt."""
        self.settle()
        return self.up()

    def up(self, pool: str = "pool-a") -> Story:
        """From a created JobSet to a running attempt."""
        self.make_pods()
        self.place(pool)
        self.run()
        self.settle()
        return self

    def report(self, **answer: Any) -> Story:
        """What the leader answers to /progress."""
        identity = {
            "v": 1,
            "jobUID": "job-uid",
            "attempt": self.attempt["number"],
            "jobSetUID": self.attempt["jobSetUID"],
        }
        common = {
            "phase": "update",
            "stage": None,
            "boundary": None,
            "draining": False,
            "parts": {},
            "checkpoint": None,
        }
        if answer.get("checkpoint"):
            answer["checkpoint"] = {"path": f"steps/{answer['checkpoint']['step']}", **answer["checkpoint"]}
        self.progress = {**identity, **common, "revision": self._uid(), **answer, "receivedAt": self.now}
        return self

    def leave(self, pod: dict[str, Any], code: int, reason: str = "Error", **message: Any) -> Story:
        """A pod's trainer exits."""
        text = json.dumps({"v": 1, **message}) if message else ""
        ended = {"exitCode": code, "reason": reason, "message": text, "finishedAt": stamps.whole(self.now)}
        pod["status"]["containerStatuses"] = [{"name": "trainer", "state": {"terminated": ended}}]
        pod["status"]["phase"] = "Failed" if code else "Succeeded"
        pod["metadata"]["resourceVersion"] = self._uid()
        return self

    def gone(self) -> Story:
        """Ended pods whose deletion was asked for disappear, and so do all pods of JobSets that are gone."""
        there = {j["metadata"]["uid"] for j in self.jobsets}
        self.pods = [
            p
            for p in self.pods
            if not (
                p["status"]["phase"] in ("Succeeded", "Failed")
                and (
                    "deletionTimestamp" in p["metadata"]
                    or p["metadata"]["labels"]["jobset.sigs.k8s.io/jobset-uid"] not in there
                )
            )
        ]
        return self

    def shut_down(self, *names: str) -> Story:
        """The notice of a spot preemption on nodes."""
        for name in names:
            self.nodes[name]["status"]["conditions"] = [
                {
                    "type": "Ready",
                    "status": "False",
                    "reason": "KubeletNotReady",
                    "message": "node is shutting down",
                    "lastTransitionTime": stamps.whole(self.now),
                }
            ]
        return self

    def jobset_failed(self) -> Story:
        self.jobsets[-1]["status"] = {"conditions": [{"type": "Failed", "status": "True", "message": "jobset failed"}]}
        return self


def node(name: str, created: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": created}
    meta = {"name": name, "uid": f"{name}-{created}", "creationTimestamp": created, "labels": {}}
    return {"metadata": meta, "spec": {}, "status": {"conditions": [ready]}}
