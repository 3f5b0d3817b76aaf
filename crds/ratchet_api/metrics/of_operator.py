"""Metrics that the operator exports: what is said of jobs is read off their statuses when Prometheus asks, so it is
there while no trainer runs, survives a restart of the operator, and goes when the job goes."""

from __future__ import annotations

from ratchet_api.metrics.metric import Kind, Metric


def _job(name: str, kind: Kind, group: str, help: str, *labels: str, only: str = "") -> Metric:
    return Metric(name, kind, group, help, labels=labels, owner="operator", only=only)


def _own(name: str, kind: Kind, help: str, *labels: str, buckets: tuple[float, ...] = (), only: str = "") -> Metric:
    return Metric(
        name, kind, "operator", help, labels=labels, owner="operator", of_job=False, buckets=buckets, only=only
    )


QUICK_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)

OPERATOR: tuple[Metric, ...] = (
    _job(
        "ratchet_phase", "gauge", "job",
        "1 for the phase that the job is in, with the reason of the condition that says why.", "phase", "reason",
    ),
    _job("ratchet_info", "gauge", "job", "What the job is now: stage, method and placement; always 1.",
         "stage", "method", "placement"),
    _job("ratchet_condition", "gauge", "job", "1 for the status and the reason that a condition has now.",
         "type", "status", "reason"),
    _job("ratchet_step", "gauge", "job", "Last finished step, as status knows it."),
    _job("ratchet_target_steps", "gauge", "job", "Step at which the present stage ends at the latest."),
    _job("ratchet_start_timestamp_seconds", "gauge", "job", "When the job was created."),
    _job("ratchet_last_step_timestamp_seconds", "gauge", "job", "When progress was last written to status."),
    _job("ratchet_attempt", "gauge", "job", "Number of the attempt."),
    _job("ratchet_pods", "gauge", "job", "Pods of the attempt: those that are ready, and all that it has.", "state"),
    _job("ratchet_chips", "gauge", "job",
         "TPU chips that the running attempt holds (hosts, where it runs on CPUs); 0 while none runs.",
         "accelerator", "topology", "capacity", "placement"),
    _job("ratchet_chip_seconds_total", "counter", "job",
         "Chip seconds taken by the job's attempts, by capacity: what it costs. Booked as for spec.budgets.",
         "capacity"),
    _job("ratchet_checkpoint_step", "gauge", "recovery", "Newest committed step."),
    _job("ratchet_last_checkpoint_timestamp_seconds", "gauge", "recovery", "When the newest checkpoint was reported."),
    _job("ratchet_steps_lost_total", "counter", "recovery", "Steps that had to be executed again."),
    _job("ratchet_restarts_total", "counter", "recovery",
         "Attempts that ended, by verdict, once it is final.", "cause"),
    _job("ratchet_recoveries_total", "counter", "recovery", "Recoveries: losses after which a new step was made."),
    _job("ratchet_recovery_seconds_total", "counter", "recovery",
         "Seconds of all recoveries, each from the first sign of the loss to the end of the first new step."),
    _job("ratchet_recovery_duration_seconds", "gauge", "recovery",
         "Parts of the last recovery: detect, drain, fence, place, start, restore, compile, step.", "part"),
    _job("ratchet_rollout_workers", "gauge", "fleet",
         "Workers of the rollout fleet: those that run, and those that there should be now.", "state"),
    _job("ratchet_rollout_restarts_total", "counter", "fleet", "Workers that ended and were to be replaced."),
    _job("ratchet_rollout_waiting_calls", "gauge", "fleet",
         "Calls that have no result yet, as the trainer last said."),
    _job("ratchet_rollout_results_per_second", "gauge", "fleet",
         "Results that come in a second, as the trainer last said."),
    _own("ratchet_reconcile_total", "counter",
         "Passes over a job, by result: done, conflict (somebody wrote in between), refused, unreachable, fenced, bug.",
         "result"),
    _own("ratchet_reconcile_duration_seconds", "histogram", "Time that one pass over a job took.",
         buckets=QUICK_SECONDS),
    _own("ratchet_queue_depth", "gauge", "Jobs that wait for a pass."),
    _own("ratchet_api_requests_total", "counter",
         "Requests to the API server (without watches), by method and HTTP code; code none: no answer.",
         "method", "code"),
    _own("ratchet_api_request_duration_seconds", "histogram", "Time until the API server answered, without watches.",
         "method", buckets=QUICK_SECONDS),
    _own("ratchet_watch_last_event_timestamp_seconds", "gauge",
         "When the last watch event of a resource came, by this machine's clock.", "resource"),
    _own("ratchet_resync_found_total", "counter",
         "Jobs in which the periodic list found a change that no watch event had told of."),
    _own("ratchet_status_pruned_total", "counter",
         "Status writes that came back without a field that was sent: the CRD is older than the operator."),
    _own("ratchet_events_dropped_total", "counter", "Events on jobs that could not be written or were too many."),
    _own("ratchet_progress_answers_total", "counter",
         "Answers of trainers' /progress, by result: new, same, mismatch (of another attempt), invalid, failed.",
         "result"),
    _own("ratchet_progress_followed", "gauge", "Trainers whose /progress is being polled."),
    _own("ratchet_leader", "gauge", "1 while this replica holds the Lease, else 0."),
    _own("ratchet_lease_transitions", "gauge",
         "How often the Lease has changed hands, as the holder knows it: the operator's fencing number."),
    _own("ratchet_clock_jumps_total", "counter",
         "Jumps of the API server's clock of more than 5 s; none starts an action."),
    _own("ratchet_build_info", "gauge", "Version of the operator; always 1.", "version"),
)  # fmt: skip
