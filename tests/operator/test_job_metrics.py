"""What the operator's metrics say of jobs: read off status, so they survive a restart and go with the job."""

from __future__ import annotations

from typing import Any

import pytest
from plan_story import Story
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from ratchet_api.metrics import METRICS
from ratchet_api.status import HISTORY
from ratchet_operator import metrics
from ratchet_operator.decide import stamps
from ratchet_operator.decide.failure_budget import PROVISIONAL_SECONDS
from ratchet_operator.decide.observed_job import ObservedJob
from ratchet_operator.decide.phase_reason import phase_reason
from ratchet_operator.decide.plan_builder import PlanBuilder
from ratchet_operator.job_metrics import Jobs, Seen, samples

NOW = 1.8e9
ENDED = "2026-01-01T00:00:00Z"
Samples = dict[tuple[str, tuple[str, ...]], float]


def of(status: dict[str, Any], now: float = NOW) -> Samples:
    return {(name, labels): value for name, labels, value in samples(Seen(status), now)}


def record(number: int, verdict: str = "Preempted", recovery: str | None = "2.5", final: str = ENDED) -> dict[str, Any]:
    parts = {} if recovery is None else {"recovery": {"detect": "0.5", "total": recovery}}
    return {"number": number, "verdict": verdict, "finalTime": final, **parts}


def test_the_exposition_parses_as_openmetrics_and_has_only_registered_names():
    metrics.JOBS.say("team", "sums", Story().begin().job)
    try:
        body, content_type = metrics.text("application/openmetrics-text; version=1.0.0")
    finally:
        metrics.JOBS.forget("team", "sums")
    assert content_type.startswith("application/openmetrics-text")
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    known = {metric.family: metric for metric in METRICS}
    for name, family in families.items():
        if not name.startswith("process_"):
            assert family.documentation == known[name].help
            assert family.type == known[name].kind
    assert {s.labels["job_name"] for s in families["ratchet_phase"].samples} == {"sums"}


def test_a_first_bug_is_an_increase():
    body, _ = metrics.text()
    assert b'ratchet_reconcile_total{result="bug"} 0.0' in body


def test_the_series_go_with_the_job():
    jobs = Jobs()
    jobs.say("team", "sums", Story().begin().job)
    assert any(family.samples for family in jobs.collect())
    jobs.forget("team", "sums")
    assert not any(family.samples for family in jobs.collect())


def test_a_restarted_operator_counts_what_the_one_before_had_counted():
    """Case 16: more attempts ended than status lists; the count went back to those that it lists."""
    story = Story().begin()
    for number in range(1, HISTORY + 7):
        builder = PlanBuilder.begin(ObservedJob.read(story.snapshot()))
        builder.put_record(_typed(record(number, "Preempted" if number % 2 else "NodeLost")))
        story.job["status"] = builder.status.manifest()
    assert len(story.status["attempts"]) == HISTORY
    found = of(story.status)
    half = (HISTORY + 6) // 2
    assert found["ratchet_restarts_total", ("Preempted",)] == half
    assert found["ratchet_restarts_total", ("NodeLost",)] == half
    assert found["ratchet_recoveries_total", ()] == HISTORY + 6
    assert found["ratchet_recovery_seconds_total", ()] == 2.5 * (HISTORY + 6)


def test_a_verdict_counts_once_it_can_no_longer_change():
    status = {"attempts": [record(1, final=ENDED)]}
    ended = 1767225600
    assert ("ratchet_restarts_total", ("Preempted",)) not in of(status, ended + PROVISIONAL_SECONDS / 2)
    assert of(status, ended + PROVISIONAL_SECONDS + 1)["ratchet_restarts_total", ("Preempted",)] == 1


def test_chip_seconds_go_on_while_an_attempt_runs_and_stand_still_once_it_has_ended():
    story = Story().begin()
    running = story.job
    times = iter((NOW, NOW + 10, NOW + 20, NOW + 30))
    jobs = Jobs(now=lambda: next(times))
    jobs.say("team", "sums", running)
    first, second = (
        next(s.value for f in jobs.collect() for s in f.samples if s.name == "ratchet_chip_seconds_total")
        for _ in range(2)
    )
    held = next(s.value for f in jobs.collect() for s in f.samples if s.name == "ratchet_chips")
    assert held > 0
    assert second - first == pytest.approx(10 * held)
    ended = {**running, "status": running["status"] | {"attempts": [record(running["status"]["attempt"]["number"])]}}
    fresh = Jobs(now=lambda: next(times))
    fresh.say("team", "sums", ended)
    by_name = {s.name: s.value for f in fresh.collect() for s in f.samples}
    assert by_name["ratchet_chips"] == 0
    assert "ratchet_chip_seconds_total" not in by_name, "nothing was booked, nothing runs"


def test_a_counter_does_not_fall_when_what_was_booked_is_less_than_was_shown():
    story = Story().begin()
    jobs = Jobs(now=lambda: NOW)
    jobs.say("team", "sums", story.job)

    def shown() -> float:
        return next(s.value for f in jobs.collect() for s in f.samples if s.name == "ratchet_chip_seconds_total")

    before = shown()
    ended = story.job["status"] | {
        "attempts": [record(story.attempt["number"])],
        "counters": {"chipSeconds": {"Spot": 1}},
    }
    jobs.say("team", "sums", {**story.job, "status": ended})
    assert shown() == before > 1
    anew = story.job["metadata"] | {"creationTimestamp": "2026-02-01T00:00:00Z"}
    jobs.say("team", "sums", {**story.job, "metadata": anew, "status": ended})
    assert shown() == 1, "a job made anew under the same name is another one"


def test_what_an_attempt_took_is_booked_by_capacity():
    story = Story().begin()
    story.report(step=5)
    story.later(60)
    story.leave(story.pod(0), 75, step=5).leave(story.pod(1), 75, step=5)
    story.settle()
    booked = story.status["counters"]["chipSeconds"]
    assert sum(booked.values()) == story.status["stages"][-1]["chipSeconds"] > 0
    assert set(booked) <= {"Spot", "OnDemand", "Reserved", "FlexStart", "ComputeClass"}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, ("Pending", "")),
        (
            {"phase": "Running", "conditions": [
                {"type": "Running", "status": "True", "reason": "AllPodsRunning"},
                {"type": "Progressing", "status": "False", "reason": "Stalled"},
            ]},
            ("Running", "Stalled"),
        ),
        (
            {"phase": "Placing", "conditions": [
                {"type": "Placed", "status": "False", "reason": "WaitingForQuota"},
                {"type": "Running", "status": "False", "reason": "NotRunning"},
            ]},
            ("Placing", "WaitingForQuota"),
        ),
        (
            {"phase": "Pending", "conditions": [{"type": "Accepted", "status": "False", "reason": "Invalid"}]},
            ("Pending", "Invalid"),
        ),
    ],
)  # fmt: skip
def test_a_phase_comes_with_its_reason(status: dict[str, Any], expected: tuple[str, str]):
    assert phase_reason(status) == expected


def _typed(raw: dict[str, Any]) -> Any:
    from ratchet_api.status import AttemptRecord

    return AttemptRecord.model_validate(raw)


@pytest.mark.parametrize(
    "status",
    [
        {"conditions": [{"type": "Running", "status": "True"}]},
        {"progress": {"updatedAt": "yesterday"}},
        {"attempts": [{"number": 1, "finalTime": ENDED}]},
        {"attempts": [{"number": 1, "recovery": {"total": None}}]},
        {"conditions": None},
    ],
)
def test_a_status_that_nobody_understands_hides_no_other_job(status: dict[str, Any]):
    jobs = Jobs()
    jobs.say("team", "odd", {"metadata": {}, "spec": {}, "status": status})
    jobs.say("team", "sums", Story().begin().job)
    shown = {sample.labels["job_name"] for family in jobs.collect() for sample in family.samples}
    assert shown == {"sums"}


def test_a_fleet_has_series_of_its_own_and_its_chips_are_counted():
    here = {"name": "here", "cpu": {"hosts": 2}}
    story = Story(rollouts={"placements": [here]}).begin()
    began = "2026-01-02T03:04:05Z"
    story.job["status"]["stages"][-1]["startTime"] = began
    story.job["status"]["counters"]["chipSeconds"] = {"OnDemand": 5}
    runs = {"worker": 0, "placement": "here", "runningTime": began}
    story.job["status"]["rollouts"] = {
        "running": 1, "desired": 2, "restarts": 3, "waitingCalls": 4, "resultsPerSecond": "0.5",
        "workers": [runs, {**runs, "worker": 1, "endTime": began}],
    }  # fmt: skip
    jobs = Jobs(now=lambda: stamps.seconds(began) + 10)
    jobs.say("team", "sums", story.job)
    found = {
        (sample.name, tuple(v for k, v in sample.labels.items() if not k.startswith("job_"))): sample.value
        for family in jobs.collect()
        for sample in family.samples
    }
    assert found["ratchet_rollout_workers", ("running",)] == 1
    assert found["ratchet_rollout_workers", ("desired",)] == 2
    assert found["ratchet_rollout_restarts_total", ()] == 3
    assert found["ratchet_rollout_waiting_calls", ()] == 4
    assert found["ratchet_rollout_results_per_second", ()] == 0.5
    assert found["ratchet_chip_seconds_total", ("OnDemand",)] == 5 + 10 * 2
    assert not [name for name, _, _ in samples(Seen({}), NOW) if name.startswith("ratchet_rollout")]
