"""What holds whatever happens: random lives of a job, with crashes between any two writes."""

from __future__ import annotations

import jsonschema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plan_story import QUEUE, Story, node

from ratchet_api.crd import crd
from ratchet_api.status import Status
from ratchet_operator.decide import decide, stamps
from ratchet_operator.decide.conditions import REASONS
from ratchet_operator.job_metrics import Held, Seen, samples

LADDER = [
    {"name": "spot", "accelerator": "tpu-v6e-slice", "topology": "2x4", "chipsPerNode": 4, "capacity": "Spot"},
    {"name": "on-demand", "accelerator": "tpu-v6e-slice", "topology": "2x4", "chipsPerNode": 4, "waitSeconds": 60},
]
BUDGETS = (
    [],
    [{"stage": "warm-up", "chipHours": "0.2"}],
    [{"stage": "reason", "generatedTokens": 300}, {"stage": "warm-up", "chipHours": "0.1", "onExceeded": "Fail"}],
    [{"stage": "reason", "generatedTokens": 200, "chipHours": "0.1", "onExceeded": "Fail"}],
)
CODES = (0, 1, 64, 69, 70, 73, 74, 75, 77, 134, 137, 143)


ADMITTED = jsonschema.Draft202012Validator(
    crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
)
"""The schema that the API server holds a status to."""


class World(Story):
    """A Story whose happenings are drawn at random; each is possible on a real cluster."""

    def __init__(self) -> None:
        super().__init__(placements=LADDER, restart={"failureLimit": 3})
        self.step = 0
        self.committed = 0
        self.pool = 0

    def happen(self, what: str, index: int, code: int) -> None:
        pods = [p for p in self.pods if p["status"]["phase"] in ("Pending", "Running")]
        pod = pods[index % len(pods)] if pods else None
        match what:
            case "schedule" if self._may_start_pods():
                self.make_pods()
            case "queue":
                labels = {} if self.job["spec"].get("jobSetTemplate", {}).get("labels") else {QUEUE: "research"}
                self.job["spec"]["jobSetTemplate"] = {"labels": labels}
            case "admit" if self.jobsets:
                self.jobsets[-1]["spec"]["suspend"] = False
            case "evict" if self.jobsets:
                self.evict()
            case "place":
                self.pool += 1
                self.place(f"pool-{self.pool}")
            case "run":
                self.run()
            case "train" if self._speaks():
                self.step += 1
                self.committed = max(self.committed, self.step - index % 2)
                self.say()
            case "boundary" if self._speaks():
                self.committed = self.step
                stage = self.status["stage"]
                boundary = {
                    "stage": stage["index"],
                    "step": self.step,
                    "rule": "steps",
                    "needsApproval": index % 2 == 1,
                }
                self.say(phase="boundary", boundary=boundary)
            case "approve" if "stage" in self.status:
                approvals = {a["stage"] for a in self.job["spec"].get("approvals", ())} ^ {self.status["stage"]["name"]}
                self.job["spec"]["approvals"] = [{"stage": name} for name in sorted(approvals)]
            case "budget":
                self.job["spec"]["budgets"] = BUDGETS[index]
            case "exit" if pod is not None and pod["status"]["phase"] == "Running":
                self.leave(pod, code, **({"step": self.step, "stage": self.stage} if code == 75 else {}))
                self.committed = self.step if code == 75 else self.committed
            case "notice" if pod is not None and self.nodes.get(pod["spec"].get("nodeName")):
                self.shut_down(pod["spec"]["nodeName"])
            case "node gone" if pod is not None and "nodeName" in pod["spec"]:
                self.nodes[pod["spec"]["nodeName"]] = None
            case "node silent" if pod is not None and self.nodes.get(pod["spec"].get("nodeName")):
                self.nodes[pod["spec"]["nodeName"]]["status"]["conditions"][0]["status"] = "Unknown"
            case "node back" if pod is not None and self.nodes.get(pod["spec"].get("nodeName")):
                self.nodes[pod["spec"]["nodeName"]] = node(pod["spec"]["nodeName"])
            case "delete pod" if pod is not None:
                pod["metadata"] |= {
                    "deletionTimestamp": stamps.whole(stamps.after(self.now, 30)),
                    "deletionGracePeriodSeconds": 30,
                }
            case "delete JobSet":
                self.jobsets.clear()
            case "collect":
                self.gone()
            case "jobset fails" if self.jobsets:
                self.jobset_failed()
            case "suspend":
                self.job["spec"]["suspend"] = not self.job["spec"].get("suspend", False)
            case "wait":
                self.later(40)

    def say(self, **more) -> None:
        told = {"stage": self.stage, "checkpoint": {"step": self.committed}, "parts": {"restore": 0.1}}
        self.report(step=self.step, **told, **more)

    @property
    def stage(self) -> dict:
        """What the trainer says of the stage: 100 tokens a step."""
        stage = self.status["stage"]
        return stage | {"generatedTokens": 100 * (self.step - stage["startStep"])}

    def _speaks(self) -> bool:
        attempt = self.attempt
        return "runningTime" in attempt and "endedTime" not in attempt and not self.status.get("finishedTime")

    def _may_start_pods(self) -> bool:
        if not self.jobsets or self.jobsets[-1]["spec"].get("suspend"):
            return False
        return not any(self._of(p) == self._uid_of() for p in self.pods)

    def _uid_of(self) -> str:
        return self.jobsets[-1]["metadata"]["uid"]

    @staticmethod
    def _of(pod) -> str:
        return pod["metadata"]["labels"]["jobset.sigs.k8s.io/jobset-uid"]


HAPPENINGS = st.sampled_from(
    ("schedule", "place", "run") * 2
    + ("train", "train", "boundary", "exit", "notice", "wait", "collect", "suspend", "approve", "budget")
    + ("queue", "admit", "evict")
    + ("node gone", "node silent", "node back", "delete pod", "delete JobSet", "jobset fails")
)
MOMENTS = st.lists(
    st.tuples(HAPPENINGS, st.integers(0, 3), st.sampled_from(CODES), st.none() | st.integers(0, 5)), max_size=40
)


def position(status) -> tuple:
    stage = status.get("stage", {})
    return stage.get("index", 0), status.get("progress", {}).get("step", 0), status.get("checkpoint", {}).get("step", 0)


def chip_seconds(status) -> list[int]:
    return [stage.get("chipSeconds", 0) for stage in status.get("stages", ())]


def counted(status, now: float) -> dict[tuple, float]:
    """The counters that the operator would export of the job."""
    seen = samples(Seen(status, held=Held("spot", capacity="Spot", chips=8)), now)
    return {(name, labels): value for name, labels, value in seen if name.endswith("_total")}


def phase_of(plan, before) -> str:
    return (plan.status or before)["phase"]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(MOMENTS)
def test_every_life_keeps_the_promises(moments):
    world = World()
    known: set[str] = set()
    totals: dict[tuple, float] = {}
    for what, index, code, crash in moments:
        world.happen(what, index, code)
        world.later(0.1)
        before = world.status
        plan = decide(world.snapshot())
        assert plan == decide(world.snapshot()), "deterministic"
        if before.get("finishedTime"):
            assert plan.empty, "the end is the end"
        live = [p for p in world.pods if p["status"]["phase"] in ("Pending", "Running") and "nodeName" in p["spec"]]
        for body in plan.create:
            if body["kind"] == "JobSet":
                assert phase_of(plan, before) not in ("AwaitingApproval", "Suspended"), "no capacity is asked for"
                written = plan.status if plan.status_first else before
                assert written["attempt"]["jobSet"] == body["metadata"]["name"], "authorized before it is made"
                assert body["metadata"]["name"] not in known, "no attempt that was once known is made again"
                for pod in live:
                    there = world.nodes.get(pod["spec"]["nodeName"])
                    assert there is None, f"{pod['metadata']['name']} may still write"
        world.apply(plan, acts=crash)
        after = world.status
        if "jobSetUID" in after.get("attempt", {}):
            known.add(after["attempt"]["jobSet"])
        if plan.status is not None:
            Status.model_validate(plan.status)
            ADMITTED.validate(plan.status)
            for c in plan.status["conditions"]:
                assert c["reason"] in REASONS[c["type"]]
        assert after.get("attempt", {}).get("number", 0) >= before.get("attempt", {}).get("number", 0)
        assert all(a >= b for a, b in zip(position(after), position(before), strict=True)), "never backwards"
        assert all(a >= b for a, b in zip(chip_seconds(after), chip_seconds(before), strict=False)), "never unspent"
        assert all(value >= 0 for value in after.get("counters", {}).values() if isinstance(value, int))
        totals, earlier = counted(after, world.time), totals
        assert all(totals.get(key, 0) >= value for key, value in earlier.items()), "no counter ever falls"
        for r in after.get("attempts", []):
            assert r["verdict"] != "QueueEvicted" or (r["chargedTo"] == "preemptions" and "recovery" not in r)
        records = [r["number"] for r in after.get("attempts", [])]
        assert records == sorted(set(records))
    world.settle(8)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(MOMENTS)
def test_passes_come_to_rest(moments):
    """After anything at all, a few passes without news end in an empty plan; and the empty plan stays empty."""
    world = World()
    for what, index, code, crash in moments:
        world.happen(what, index, code)
        world.apply(decide(world.snapshot()), acts=crash)
    world.settle(8)
    assert world.decide().empty
