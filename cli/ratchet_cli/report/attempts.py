"""The attempts of a run: when each ran, how it ended, where its seconds went.

Put together from what the operator recorded (`status.attempts`), from the ledgers and from the claims in the journal.
Without a cluster an end is known by its exit code alone, and is said as such: no verdict is made up.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ratchet_api.protocol import Exit
from ratchet_cli.report.folder_files import FolderFiles
from ratchet_trainer.process.ledger import CATEGORIES, USEFUL

Raw = Mapping[str, Any]

GOOD, ASKED, LOST, BAD, RUNNING, UNKNOWN = "good", "asked", "lost", "bad", "running", "unknown"
"""Kinds of ends: done; told to go; capacity was taken without a word; failed; none yet; not known."""
OF_VERDICT = {
    "Completed": GOOD,
    **dict.fromkeys(("Preempted", "Maintenance", "Evicted", "QueueEvicted", "Deleted", "Drained"), ASKED),
    **dict.fromkeys(("NodeLost", "AdmissionRejected", "PeerLost", "Fenced", "Unschedulable"), LOST),
}
"""Every other verdict is a failure."""
OF_EXIT = {
    Exit.DONE: (GOOD, "done"),
    Exit.DRAINED: (ASKED, "told to go"),
    Exit.PEER_LOST: (LOST, "a peer was lost"),
    Exit.FENCED: (LOST, "a newer attempt owns the checkpoints"),
}
SILENT = ("ended abruptly", "no exit code was written: it was killed, or its machine went")
STARTS = ("init", "restore", "compile", "replay")
"""Categories of the ledger that a restart adds, before the first new step."""
PARTS = ("detect", "drain", "fence", "place", "start", "restore", "compile", "step")
"""Parts of a recovery as the operator records them, in order."""


@dataclass(frozen=True)
class Attempt:
    """One attempt; None is what nobody has recorded. Times are Unix seconds."""

    number: int
    kind: str
    ended: str
    """How it ended, in one word or a few."""
    evidence: str = ""
    charged_to: str | None = None
    notice: str | None = None
    placement: str | None = None
    start: float | None = None
    end: float | None = None
    of_files: bool = False
    """Whether start and end are times of files."""
    from_step: int | None = None
    to_step: int | None = None
    steps_lost: int | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    """By category of the ledger; empty where there is none."""
    to_first_step: dict[str, float] = field(default_factory=dict)
    """The same up to its first new step."""
    recovery: dict[str, float] = field(default_factory=dict)
    """Parts of the recovery that ended in this attempt, and `total`, as the operator recorded them."""
    marks: tuple[tuple[int, float], ...] = ()
    """Steps and the seconds since the process began at which they were done."""

    @property
    def wall(self) -> float:
        """Seconds that its process ran, by its ledger; else by the clock."""
        if self.seconds:
            return sum(self.seconds.values())
        return 0.0 if self.start is None or self.end is None else self.end - self.start


def attempts_of(status: Raw, files: FolderFiles) -> list[Attempt]:
    """All attempts that left a trace, in order."""
    records = {record["number"]: record for record in status.get("attempts") or ()}
    present = status.get("attempt") or {}
    books = {int(tag[1:].split("-")[0]): tag for tag in files.ledger}
    claimed = {int(claim["attempt"]) for claim in files.claims if str(claim.get("attempt", "")).isdigit()}
    numbers = sorted({*records, *books, *claimed, *([present["number"]] if present.get("number") else [])})
    found: list[Attempt] = []
    for number in numbers:
        lines = files.ledger.get(books.get(number, ""), [])
        written = files.written.get(books.get(number, ""))
        before = records.get(number - 1) or {}
        last = number == numbers[-1]
        found.append(_attempt(number, records.get(number), present, lines, written, before, last=last))
    return _without_impossible_times(_with_steps_lost(found))


def _attempt(
    number: int,
    record: Raw | None,
    present: Raw,
    lines: Sequence[Raw],
    written: float | None,
    before: Raw,
    *,
    last: bool,
) -> Attempt:
    spent = {name: sum(line.get(name, 0.0) for line in lines) for name in CATEGORIES}
    wall = sum(spent.values())
    kind, ended, evidence = _end(record, present.get("number") == number, lines, last)
    of = record or (present if present.get("number") == number else {})
    end = unix(of.get("finalTime") or of.get("endTime") or of.get("endedTime"))
    start = unix(of.get("startTime"))
    of_files = start is None and written is not None and bool(lines)
    if of_files and written is not None:
        start, end = written - float(lines[-1].get("at", wall)), written
    return Attempt(
        number=number,
        kind=kind,
        ended=ended,
        evidence=evidence,
        charged_to=of.get("chargedTo"),
        notice=of.get("notice"),
        placement=of.get("placement"),
        start=start,
        end=end,
        of_files=of_files,
        from_step=lines[0].get("from") if lines else of.get("startStep"),
        to_step=lines[-1]["step"] if lines else of.get("endStep"),
        steps_lost=of.get("stepsLost"),
        seconds={name: value for name, value in spent.items() if value} if wall else {},
        to_first_step=_to_first_step(lines),
        recovery={part: float(value) for part, value in (before.get("recovery") or {}).items() if value},
        marks=tuple((line["step"], float(line.get("at", 0.0))) for line in lines),
    )


def _end(record: Raw | None, is_present: bool, lines: Sequence[Raw], last: bool) -> tuple[str, str, str]:
    """Kind, words and evidence."""
    if record is not None:
        verdict = str(record["verdict"])
        return OF_VERDICT.get(verdict, BAD), verdict, str(record.get("evidence") or "")
    if is_present:
        return RUNNING, "running or being started", ""
    if not lines:
        return UNKNOWN, "not recorded", ""
    code = lines[-1].get("exit")
    if code is None:
        return (UNKNOWN, "no end yet", "no exit code was written: it runs, or was killed") if last else (LOST, *SILENT)
    name = next((one.name.replace("_", " ").lower() for one in Exit if one == code), "unknown")
    kind, words = OF_EXIT.get(code, (BAD, name))
    return kind, words, f"exit code {code}"


def _to_first_step(lines: Sequence[Raw]) -> dict[str, float]:
    """Seconds by category up to the first line that has a new step."""
    found: dict[str, float] = {}
    for line in lines:
        for name in CATEGORIES:
            if line.get(name):
                found[name] = found.get(name, 0.0) + line[name]
        if line.get("steps"):
            return found
    return {}


def _with_steps_lost(attempts: list[Attempt]) -> list[Attempt]:
    """Steps that an attempt had done and the next one did not go on from, where the operator has not counted them."""
    found = list(attempts)
    for i, (one, after) in enumerate(itertools.pairwise(attempts)):
        if one.steps_lost is None and one.to_step is not None and after.from_step is not None:
            found[i] = replace(one, steps_lost=max(0, one.to_step - after.from_step))
    return found


def _without_impossible_times(attempts: list[Attempt]) -> list[Attempt]:
    """Times read from a folder are those of its files, and a copied folder has others: where attempts overlap, or all
    end at once, none of them is believed."""
    spans = [(a.start, a.end) for a in attempts if a.of_files and a.start is not None and a.end is not None]
    if all(start >= end - 1.0 for (_, end), (start, _) in itertools.pairwise(spans)):
        return attempts
    return [replace(a, start=None, end=None) if a.of_files else a for a in attempts]


def unix(stamp: object) -> float | None:
    """Unix seconds of a Kubernetes time."""
    try:
        return datetime.fromisoformat(str(stamp).replace("Z", "+00:00")).timestamp() if stamp else None
    except ValueError:
        return None


@dataclass(frozen=True)
class Total:
    """Where the seconds of all attempts went."""

    seconds: dict[str, float]
    steps_replayed: int
    """At least so many: a killed process does not write down its last second."""
    tokens_replayed: int
    clock: float | None
    """From the first start to the last end; None where times are not known."""

    @property
    def wall(self) -> float:
        return sum(self.seconds.values())

    @property
    def useful(self) -> float:
        return sum(self.seconds.get(name, 0.0) for name in USEFUL)

    @property
    def goodput(self) -> float | None:
        """Share of the processes' seconds that were useful and not done before."""
        return self.useful / self.wall if self.wall else None


def total_of(attempts: Sequence[Attempt], files: FolderFiles) -> Total:
    lines = [line for of_attempt in files.ledger.values() for line in of_attempt]
    seconds = {name: sum(a.seconds.get(name, 0.0) for a in attempts) for name in CATEGORIES}
    starts = [a.start for a in attempts if a.start is not None]
    ends = [a.end for a in attempts if a.end is not None]
    return Total(
        seconds={name: value for name, value in seconds.items() if value},
        steps_replayed=max(
            sum(int(line.get("replayedSteps", 0)) for line in lines), sum(a.steps_lost or 0 for a in attempts)
        ),
        tokens_replayed=sum(int(line.get("replayedTokens", 0)) for line in lines),
        clock=max(ends) - min(starts) if starts and ends and max(ends) > min(starts) else None,
    )
