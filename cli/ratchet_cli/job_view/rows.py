"""Jobs as rows of a table: `status` without a name, and `top`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ratchet_cli.job_view import cost, read_job, styles, waiting
from ratchet_cli.job_view.columns import Cell, Column
from ratchet_cli.job_view.words import seconds_between, short, span
from ratchet_cli.kube.parts import at, moment, number, text, whole

Object = dict[str, Any]


HOLDING = ("Running", "Recovering")
"""Phases of jobs whose pods hold chips, or will at once hold them again."""


@dataclass(frozen=True)
class JobRow:
    """One job, in one line; schema: `ratchet_cli/schemas/job-list.json`."""

    namespace: str
    name: str
    phase: str
    stage: str | None
    stage_number: int | None
    stages: int
    step: int | None
    target_step: int | None
    reward: float | None
    accuracy: float | None
    learning: str
    tokens_per_second: float | None
    seconds_left: float | None
    attempts: int | None
    preemptions: int | None
    failures: int | None
    steps_lost: int | None
    placement: str | None
    chips: int | None
    goodput: float | None
    level: str | None
    reason: str | None
    message: str | None
    age_seconds: float | None

    @property
    def chips_used(self) -> int:
        """Chips that its pods hold now."""
        return self.chips or 0


def row(job: Object, now: datetime) -> JobRow:
    """The row of a job."""
    status = at(job, "status")
    progress, counters = at(status, "progress"), at(status, "counters")
    place, phase = read_job.place(job), read_job.phase(job)
    waits = waiting.waits(job, (), now, "ratchet")
    first = waits[0] if waits else None
    return JobRow(
        namespace=text(job, "metadata", "namespace") or "?",
        name=text(job, "metadata", "name") or "?",
        phase=phase,
        stage=text(status, "stage", "name"),
        stage_number=None if (index := read_job.stage_index(job)) is None else index + 1,
        stages=len(at(job, "spec", "stages") or ()) if isinstance(at(job, "spec", "stages"), list) else 0,
        step=whole(progress, "step"),
        target_step=whole(progress, "targetStep"),
        reward=number(progress, "reward"),
        accuracy=number(progress, "accuracy"),
        learning=read_job.known_status(text(read_job.conditions(job).get("Learning"), "status")),
        tokens_per_second=number(progress, "tokensPerSecond") if phase == "Running" else None,
        seconds_left=read_job.seconds_left(job, now),
        attempts=whole(counters, "attempts"),
        preemptions=whole(counters, "preemptions"),
        failures=whole(counters, "failures"),
        steps_lost=whole(counters, "stepsLost"),
        placement=text(status, "attempt", "placement"),
        chips=place.chips if place is not None and phase in HOLDING else None,
        goodput=cost.goodput(job, now),
        level=first.level if first else None,
        reason=first.reason if first else None,
        message=(first.message or None) if first else None,
        age_seconds=seconds_between(moment(job, "metadata", "creationTimestamp"), now),
    )


Maker = Callable[[JobRow], Cell]


def _stage(row: JobRow) -> Cell:
    return Cell(f"{row.stage_number}/{row.stages} {row.stage or ''}".rstrip() if row.stage_number else "-")


def _step(row: JobRow) -> Cell:
    return Cell("-" if row.step is None else f"{row.step}/{row.target_step}" if row.target_step else str(row.step))


def _plain(value: object) -> Cell:
    return Cell("-" if value is None else str(value))


def _share(value: float | None) -> Cell:
    return Cell("-" if value is None else f"{100 * value:.0f}%")


def _why(row: JobRow) -> Cell:
    if row.reason is None:
        return Cell("")
    return Cell(row.reason, styles.LEVELS[row.level or "note"])


def _learning(row: JobRow) -> Cell:
    shown = {"True": "yes", "False": "NO"}.get(row.learning, "-")
    return Cell(shown, styles.LEARNING.get(row.learning, ""))


STATUS: tuple[tuple[Column, Maker], ...] = (
    (Column("NAMESPACE", 95), lambda r: Cell(r.namespace)),
    (Column("NAME", 100, shrinks=True, least=12), lambda r: Cell(r.name, "bold")),
    (Column("PHASE", 99), lambda r: Cell(r.phase, styles.phase(r.phase))),
    (Column("STAGE", 70), _stage),
    (Column("STEP", 90, right=True), _step),
    (Column("REWARD", 40, right=True), lambda r: Cell(short(r.reward))),
    (Column("ACCURACY", 60, right=True), lambda r: Cell(short(r.accuracy))),
    (Column("LEARNS", 65), _learning),
    (Column("TOKENS/S", 45, right=True), lambda r: Cell(short(r.tokens_per_second))),
    (Column("LEFT", 55, right=True), lambda r: Cell("-" if r.seconds_left is None else span(r.seconds_left))),
    (Column("CHIPS", 35, right=True), lambda r: _plain(r.chips)),
    (Column("PREEMPTED", 30, right=True), lambda r: _plain(r.preemptions)),
    (Column("AGE", 50, right=True), lambda r: Cell(span(r.age_seconds))),
    (Column("WHY", 80, shrinks=True, least=10), _why),
)

TOP: tuple[tuple[Column, Maker], ...] = (
    (Column("NAMESPACE", 95), lambda r: Cell(r.namespace)),
    (Column("NAME", 100, shrinks=True, least=12), lambda r: Cell(r.name, "bold")),
    (Column("CHIPS", 98, right=True), lambda r: Cell(str(r.chips_used))),
    (Column("TOKENS/S", 97, right=True), lambda r: Cell(short(r.tokens_per_second))),
    (Column("GOODPUT", 96, right=True), lambda r: _share(r.goodput)),
    (Column("RESTARTS", 85, right=True), lambda r: _plain(_restarts(r))),
    (Column("STEPS LOST", 60, right=True), lambda r: _plain(r.steps_lost)),
    (Column("PHASE", 90), lambda r: Cell(r.phase, styles.phase(r.phase))),
    (Column("STEP", 70, right=True), _step),
    (Column("PLACEMENT", 50), lambda r: _plain(r.placement)),
    (Column("AGE", 55, right=True), lambda r: Cell(span(r.age_seconds))),
)


def _restarts(row: JobRow) -> int | None:
    return None if row.attempts is None else max(0, row.attempts - 1)


SORTS: dict[str, Callable[[JobRow], float]] = {
    "chips": lambda r: -r.chips_used,
    "tokens": lambda r: -(r.tokens_per_second or 0.0),
    "goodput": lambda r: r.goodput if r.goodput is not None else 2.0,
    "restarts": lambda r: -(_restarts(r) or 0),
    "age": lambda r: -(r.age_seconds or 0.0),
}
"""What `top` sorts by, best or worst first: most chips, most tokens, least goodput, most restarts, oldest."""


def cells(
    layout: Sequence[tuple[Column, Maker]], rows: Sequence[JobRow], *, namespaces: bool
) -> tuple[list[Column], list[list[Cell]]]:
    """Columns and cells of a layout; the namespace only where there may be several."""
    chosen = [(column, make) for column, make in layout if namespaces or column.title != "NAMESPACE"]
    return [column for column, _ in chosen], [[make(row) for _, make in chosen] for row in rows]
