"""The alert and recording rules, each beside series on which it must fire and on which it must stay quiet.

Decides what is worth waking somebody. `promtool test rules` is run on the examples; each alert has a runbook in
docs/runbooks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ratchet_monitoring.selectors import BY_JOB, USEFUL

RUNBOOKS = "https://github.com/ratchet-rl/ratchet/blob/main/docs/runbooks"
IDENTITY = 'job_namespace="team",job_name="sums"'
Series = tuple[tuple[str, str], ...]
"""Series and values as promtool writes them, one value a minute."""


@dataclass(frozen=True)
class Alert:
    """summary and description may use {{ $labels.x }} and {{ $value }}. `at`: minutes at which the examples are looked
    at."""

    name: str
    expr: str
    minutes: int
    severity: str
    summary: str
    description: str
    fires: Series
    quiet: Series
    at: int = 60


RECORDING: dict[str, str] = {
    # Seconds of useful work of process 0 in a second of wall time: while nothing runs nothing is added, so what
    # preemptions cost is in it.
    "ratchet:goodput:ratio_rate30m": f"sum by ({BY_JOB}) (rate(ratchet_phase_seconds_total{{{USEFUL}}}[30m]))",
    "ratchet:recovery_seconds:mean_1d": (
        f"sum by ({BY_JOB}) (increase(ratchet_recovery_seconds_total[1d])) / "
        f"sum by ({BY_JOB}) (increase(ratchet_recoveries_total[1d]) > 0)"
    ),
}


def _job(name: str, labels: str = "") -> str:
    return f"{name}{{{IDENTITY}{',' + labels if labels else ''}}}"


def _phase(phase: str, values: str, reason: str = "AllPodsRunning") -> tuple[str, str]:
    return _job("ratchet_phase", f'phase="{phase}",reason="{reason}"'), values


IS_RUNNING = _phase("Running", "1x120")
WHICH = "{{ $labels.job_namespace }}/{{ $labels.job_name }}"

ALERTS: tuple[Alert, ...] = (
    Alert(
        "RatchetOperatorDown", "absent(ratchet_leader == 1)", 5, "critical",
        "No Ratchet operator works.",
        "No replica holds the Lease, or none can be scraped. Jobs that run go on; no preempted job is recovered.",
        fires=(("ratchet_leader", "0x120"),), quiet=(("ratchet_leader", "1x120"),),
    ),
    Alert(
        "RatchetOperatorBug", 'increase(ratchet_reconcile_total{result="bug"}[15m]) > 0', 0, "warning",
        "The Ratchet operator failed on a job by a fault of its own.",
        "A pass over a job ended in an exception; the job is tried again later. The operator's log has the traceback.",
        fires=(('ratchet_reconcile_total{result="bug"}', "0x50 1x69"),),
        quiet=(('ratchet_reconcile_total{result="done"}', "0+5x120"),),
    ),
    Alert(
        "RatchetOperatorMissesEvents", "increase(ratchet_resync_found_total[1h]) > 0", 0, "warning",
        "Watches of the Ratchet operator lose events.",
        "The periodic list found changes that no watch event had told of, so recoveries may start minutes late.",
        fires=(("ratchet_resync_found_total", "0x50 3x69"),), quiet=(("ratchet_resync_found_total", "3x120"),),
    ),
    Alert(
        "RatchetCRDOutdated", "increase(ratchet_status_pruned_total[1h]) > 0", 0, "critical",
        "The CRD is older than the Ratchet operator.",
        "The API server drops fields of status that the operator writes; it leaves such jobs alone until the CRD is new.",
        fires=(("ratchet_status_pruned_total", "0x50 2x69"),), quiet=(("ratchet_status_pruned_total", "2x120"),),
    ),
    Alert(
        "RatchetAPIErrors",
        'sum(rate(ratchet_api_requests_total{code=~"none|429|5.."}[10m])) / sum(rate(ratchet_api_requests_total[10m]))'
        " > 0.1",
        10, "warning",
        "The API server refuses or does not answer {{ $value | humanizePercentage }} of the operator's requests.",
        "Recoveries are slow while this lasts; trainers go on.",
        fires=(
            ('ratchet_api_requests_total{method="GET",code="200"}', "0+10x120"),
            ('ratchet_api_requests_total{method="GET",code="none"}', "0+5x120"),
        ),
        quiet=(
            ('ratchet_api_requests_total{method="GET",code="200"}', "0+100x120"),
            ('ratchet_api_requests_total{method="GET",code="500"}', "0+1x120"),
        ),
    ),
    Alert(
        "RatchetJobFailed", 'ratchet_phase{phase="Failed"} == 1', 0, "warning",
        f"Job {WHICH} failed: {{{{ $labels.reason }}}}.",
        "Ratchet starts no further attempt. The condition Failed says why and what to do.",
        fires=(_phase("Failed", "1x120", "FailureLimitExceeded"),), quiet=(IS_RUNNING,),
    ),
    Alert(
        "RatchetJobPending", 'ratchet_phase{phase=~"Pending|Placing|Recovering"} == 1', 30, "warning",
        f"Job {WHICH} has waited half an hour for its pods: {{{{ $labels.reason }}}}.",
        "There is no capacity, a quota is used up, or the placement asks for nodes that do not exist.",
        fires=(_phase("Placing", "1x120", "WaitingForPods"),),
        quiet=(_phase("Placing", "1x20 stale", "WaitingForPods"), IS_RUNNING),
    ),
    Alert(
        "RatchetJobNotProgressing",
        'ratchet_phase{phase="Running"} == 1 and on (job_namespace, job_name) '
        "(time() - ratchet_last_step_timestamp_seconds > 1800)",
        5, "warning",
        f"Job {WHICH} runs and has made no step for half an hour.",
        "Its steps are that slow, it compiles, or it hangs; a hang is ended after restart.patienceSeconds.",
        fires=(IS_RUNNING, (_job("ratchet_last_step_timestamp_seconds"), "0x120")),
        quiet=(IS_RUNNING, (_job("ratchet_last_step_timestamp_seconds"), "0+60x120")),
    ),
    Alert(
        "RatchetJobRestartLoop",
        "sum by (job_namespace, job_name) (increase(ratchet_restarts_total[1h])) > 5 unless on (job_namespace, job_name)"
        " delta(ratchet_checkpoint_step[1h]) > 0",
        0, "warning",
        f"Attempts of job {WHICH} end again and again, and no checkpoint is new.",
        "More than five attempts ended within an hour without a step that was kept.",
        fires=(
            (_job("ratchet_restarts_total", 'cause="Preempted"'), "0+0.2x120"),
            (_job("ratchet_checkpoint_step"), "40x120"),
        ),
        quiet=(
            (_job("ratchet_restarts_total", 'cause="Preempted"'), "0+0.2x120"),
            (_job("ratchet_checkpoint_step"), "40+1x120"),
        ),
    ),
    Alert(
        "RatchetJobNotLearning", 'ratchet_condition{type="Learning",status="False",reason!="AllSolved"} == 1',
        15, "warning",
        f"Job {WHICH} runs but does not learn: {{{{ $labels.reason }}}}.",
        "Chips are spent on steps that teach the model nothing. The condition Learning quotes what was seen.",
        fires=((_job("ratchet_condition", 'type="Learning",status="False",reason="NoInformativeGroups"'), "1x120"),),
        quiet=((_job("ratchet_condition", 'type="Learning",status="True",reason="Learning"'), "1x120"),),
    ),
    Alert(
        "RatchetJobDrifts", "ratchet_kl_mean > 1", 10, "warning",
        f"The policy of job {WHICH} is {{{{ $value | humanize }}}} nats a token away from its reference.",
        "At such a distance a policy has mostly left its language; reward may be earned by a fault of the verifier.",
        fires=((_job("ratchet_kl_mean"), "2x120"),), quiet=((_job("ratchet_kl_mean"), "0.02x120"),),
    ),
    Alert(
        "RatchetVerifierFails", "ratchet_verifier_failures_ratio > 0.05", 10, "warning",
        f"The verifier of job {WHICH} fails on {{{{ $value | humanizePercentage }}}} of the responses.",
        "Responses whose verifier crashes or runs out of time earn nothing, right ones too.",
        fires=((_job("ratchet_verifier_failures_ratio"), "0.3x120"),),
        quiet=((_job("ratchet_verifier_failures_ratio"), "0.01x120"),),
    ),
    Alert(
        "RatchetGoodputLow",
        "ratchet:goodput:ratio_rate30m < 0.5 and on (job_namespace, job_name) "
        'min_over_time(ratchet_phase{phase="Running"}[30m]) == 1',
        15, "info",
        f"Only {{{{ $value | humanizePercentage }}}} of the time of job {WHICH} is useful work.",
        "The rest goes into starts, saves, waits or repeated steps; the dashboard of speed says which.",
        fires=(IS_RUNNING, (_job("ratchet_phase_seconds_total", 'phase="generate"'), "0+6x120"),
               (_job("ratchet_phase_seconds_total", 'phase="wait"'), "0+54x120")),
        quiet=(IS_RUNNING, (_job("ratchet_phase_seconds_total", 'phase="generate"'), "0+54x120")),
    ),
    Alert(
        "RatchetCheckpointStale",
        'ratchet_phase{phase="Running"} == 1 and on (job_namespace, job_name) '
        "(time() - ratchet_last_checkpoint_timestamp_seconds > 3600)",
        5, "warning",
        f"Job {WHICH} runs and has saved nothing for an hour.",
        "A loss without notice now costs all steps since then.",
        fires=(IS_RUNNING, (_job("ratchet_last_checkpoint_timestamp_seconds"), "0x120")),
        quiet=(IS_RUNNING, (_job("ratchet_last_checkpoint_timestamp_seconds"), "0+60x120")),
        at=90,
    ),
    Alert(
        "RatchetRecoverySlow", "ratchet:recovery_seconds:mean_1d > 600", 5, "info",
        f"A recovery of job {WHICH} takes {{{{ $value | humanizeDuration }}}} on average.",
        "From the first sign of a loss to the end of the first new step; the dashboard of speed shows the parts.",
        fires=((_job("ratchet_recovery_seconds_total"), "0+100x120"), (_job("ratchet_recoveries_total"), "0+0.1x120")),
        quiet=((_job("ratchet_recovery_seconds_total"), "0+1x120"), (_job("ratchet_recoveries_total"), "0+0.1x120")),
    ),
    Alert(
        "RatchetApprovalMissing", 'ratchet_phase{phase="AwaitingApproval"} == 1', 60, "info",
        f"Job {WHICH} has waited an hour for an approval.",
        "The stage has ended; what comes next needs `ratchet approve`. No capacity is held meanwhile.",
        fires=(_phase("AwaitingApproval", "1x120", "StageEnded"),), quiet=(IS_RUNNING,), at=90,
    ),
    Alert(
        "RatchetNoWorkers",
        'ratchet_condition{type="RolloutsAvailable",status="False",reason=~"TooFew|WorkersFail"} == 1', 15, "warning",
        f"Too few workers sample for job {WHICH}: {{{{ $labels.reason }}}}.",
        "The trainer waits with its machines, and gives them back after rollouts.waitSeconds. The condition"
        " RolloutsAvailable says what the workers wait for, or how they fail.",
        fires=((_job("ratchet_condition", 'type="RolloutsAvailable",status="False",reason="TooFew"'), "1x120"),),
        quiet=((_job("ratchet_condition", 'type="RolloutsAvailable",status="False",reason="ScaledToZero"'), "1x120"),),
    ),
    Alert(
        "RatchetRolloutsTooOld", "ratchet_rollout_importance_capped_ratio > 0.2", 10, "warning",
        f"{{{{ $value | humanizePercentage }}}} of the tokens that job {WHICH} trains on are too old.",
        "The importance weight of so many tokens reaches its cap: the weights that sampled them are far from those that"
        " learn, and what is learned from them is bent.",
        fires=((_job("ratchet_rollout_importance_capped_ratio"), "0.5x120"),),
        quiet=((_job("ratchet_rollout_importance_capped_ratio"), "0.02x120"),),
    ),
    Alert(
        "RatchetTrainerWaits",
        f'sum by ({BY_JOB}) (rate(ratchet_phase_seconds_total{{phase="await"}}[30m])) / '
        f"sum by ({BY_JOB}) (rate(ratchet_phase_seconds_total[30m])) > 0.5",
        15, "info",
        f"The trainer of job {WHICH} spends {{{{ $value | humanizePercentage }}}} of its time waiting for rollouts.",
        "Workers are too few or too slow for it: its chips are paid for and idle.",
        fires=((_job("ratchet_phase_seconds_total", 'phase="await"'), "0+45x120"),
               (_job("ratchet_phase_seconds_total", 'phase="update"'), "0+15x120")),
        quiet=((_job("ratchet_phase_seconds_total", 'phase="await"'), "0+10x120"),
               (_job("ratchet_phase_seconds_total", 'phase="update"'), "0+50x120")),
    ),
    Alert(
        "RatchetTrainerNotScraped",
        'ratchet_phase{phase="Running"} == 1 unless on (job_namespace, job_name) ratchet_steps_total', 15, "info",
        f"Nothing is scraped from the trainer of job {WHICH}.",
        "Without it there are no curves and no alerts on learning: is the PodMonitor there, and may Prometheus reach"
        " port 8491?",
        fires=(IS_RUNNING,), quiet=(IS_RUNNING, (_job("ratchet_steps_total"), "0+1x120")),
    ),
)  # fmt: skip


def rule_groups() -> dict[str, Any]:
    """The rules as Prometheus reads them, `{groups: [...]}`."""
    recording = [{"record": name, "expr": expr} for name, expr in RECORDING.items()]
    alerts = [
        {
            "alert": alert.name,
            "expr": alert.expr,
            **({"for": f"{alert.minutes}m"} if alert.minutes else {}),
            "labels": {"severity": alert.severity},
            "annotations": {
                "summary": alert.summary,
                "description": alert.description,
                "runbook_url": f"{RUNBOOKS}/{alert.name}.md",
            },
        }
        for alert in ALERTS
    ]
    return {"groups": [{"name": "ratchet.recording", "rules": recording}, {"name": "ratchet.alerts", "rules": alerts}]}


def rule_tests(rules: str) -> dict[str, Any]:
    """Input of `promtool test rules`: each alert fires on its one example, and does not on the other. `rules`: path of
    the rules, as seen from the test file."""
    return {
        "rule_files": [rules],
        "evaluation_interval": "1m",
        "tests": [
            {
                "name": f"{alert.name} {'fires' if fires else 'stays quiet'}",
                "interval": "1m",
                "input_series": [
                    {"series": series, "values": values} for series, values in (alert.fires if fires else alert.quiet)
                ],
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{alert.name}",alertstate="firing"}}) or vector(0)',
                        "eval_time": f"{alert.at}m",
                        "exp_samples": [{"labels": "{}", "value": float(fires)}],
                    }
                ],
            }
            for alert in ALERTS
            for fires in (True, False)
        ],
    }
