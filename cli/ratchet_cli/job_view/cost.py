"""What disturbances have cost a job: counters, recoveries, and the share of time that was not lost to them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ratchet_cli.job_view.document import CostView, Recovery
from ratchet_cli.job_view.read_job import steps_per_second
from ratchet_cli.job_view.words import seconds_between
from ratchet_cli.kube.parts import at, each, moment, number, text, whole

Object = dict[str, Any]


def cost(job: Object, now: datetime) -> CostView:
    """Counters, the last attempts that ended (newest last), and goodput."""
    counters = at(job, "status", "counters")
    ended = tuple(_recovery(record, now) for record in each(job, "status", "attempts"))
    took = [r.seconds for r in ended if r.seconds is not None]
    return CostView(
        attempts=whole(counters, "attempts"),
        preemptions=whole(counters, "preemptions"),
        failures=whole(counters, "failures"),
        steps_lost=whole(counters, "stepsLost"),
        mean_recovery_seconds=sum(took) / len(took) if took else None,
        goodput=goodput(job, now),
        recoveries=ended,
    )


def _recovery(record: Object, now: datetime) -> Recovery:
    return Recovery(
        attempt=whole(record, "number") or 0,
        verdict=text(record, "verdict") or "?",
        evidence=text(record, "evidence"),
        charged_to=text(record, "chargedTo"),
        steps_lost=whole(record, "stepsLost"),
        seconds=number(record, "recovery", "total"),
        age_seconds=seconds_between(moment(record, "endTime"), now),
    )


def goodput(job: Object, now: datetime) -> float | None:
    """Estimate of the share of time that went into steps that were kept.

    Lost is what status records: recoveries (sign of loss to the next new step; without one, end of an attempt to the
    start of the next), and steps made twice at the present speed. The time is that since the start of the oldest
    attempt that status keeps. None before anything ran. The trainer's ledger, beside the checkpoints, knows more.
    """
    records = list(each(job, "status", "attempts"))
    here = at(job, "status", "attempt")
    since = moment(records[0], "startTime") if records else moment(here, "runningTime")
    until = moment(job, "status", "finishedTime") or now
    total = seconds_between(since, until)
    if not total:
        return None
    again = (whole(here, "number") or 0) > (whole(records[-1], "number") or 0) if records else False
    last = moment(here, "runningTime") if again else None
    starts = [*(moment(record, "startTime") for record in records[1:]), last or until][: len(records)]
    lost, seconds_a_step = 0.0, 1 / speed if (speed := steps_per_second(job)) else 0.0
    for record, following in zip(records, starts, strict=True):
        took = number(record, "recovery", "total")
        gap = seconds_between(moment(record, "endTime"), following) or 0.0
        if took is None and text(record, "chargedTo") in (None, "nothing"):
            total -= gap  # it was suspended, or waited for an approval: nobody's loss
        else:
            lost += gap if took is None else took
        lost += (whole(record, "stepsLost") or 0) * seconds_a_step
    return min(1.0, max(0.0, 1 - lost / total)) if total > 0 else None
