"""Pieces of PromQL that several panels and rules share."""

from __future__ import annotations

JOB = 'job_namespace=~"$namespace",job_name=~"$job"'
"""The job that is looked at: the variables of the dashboards."""
BY_JOB = "job_namespace, job_name"
USEFUL = 'phase=~"generate|verify|update|evaluate"'
"""Categories of the ledger that a run is for."""
RUNNING = 'ratchet_phase{phase="Running"}'


def of_job(metric: str, *matchers: str, by: str = "") -> str:
    """The present value for the job, whichever pod of the operator or of the trainer says it."""
    labels = ", ".join(part for part in (BY_JOB, by) if part)
    return f"max by ({labels}) ({metric}{{{','.join((JOB, *matchers))}}})"


def last_of_job(metric: str) -> str:
    """The last value for the job in the time that is looked at, also when its trainer has ended."""
    return f"max by ({BY_JOB}) (last_over_time({metric}{{{JOB}}}[$__range]))"


def rate_of_job(metric: str, *matchers: str, by: str = "", window: str = "$__rate_interval") -> str:
    """What the counter grows by in a second, all pods together."""
    labels = ", ".join(part for part in (BY_JOB, by) if part)
    return f"sum by ({labels}) (rate({metric}{{{','.join((JOB, *matchers))}}}[{window}]))"


def gained(series: str, by: str) -> str:
    """What counters grew by in the time that is looked at. Unlike `increase` it counts the first value of a series that
    began in that time, which for an attempt that ended is the event itself."""
    last = f"last_over_time({series}[$__range])"
    return f"sum by ({by}) (({last} - {series} offset $__range) or {last})"


def quantile(q: float, metric: str, *matchers: str, by: str = "", window: str = "$__rate_interval") -> str:
    """A quantile of a histogram."""
    labels = ", ".join(part for part in ("le", by) if part)
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{{{','.join(matchers)}}}[{window}])))"
