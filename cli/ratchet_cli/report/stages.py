"""The stages of a run: from which step to which, why each ended, and when.

From `status.stages` where there is a job, else from the commits that ended stages and the spec's order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ratchet_cli.report.attempts import Attempt, unix
from ratchet_cli.report.folder_files import FolderFiles


@dataclass(frozen=True)
class StageSpan:
    """A stage that began."""

    name: str
    what: str
    """Method, or kind of stage."""
    begin: int
    """Step whose weights it began from."""
    end: int | None
    """Its last step; None while it runs."""
    rule: str = ""
    start: float | None = None
    finish: float | None = None
    chip_seconds: int | None = None


def stages_of(spec: Mapping[str, Any], status: Mapping[str, Any], files: FolderFiles) -> list[StageSpan]:
    """In order."""
    said = list(spec.get("stages") or ())
    if records := status.get("stages"):
        return [
            StageSpan(
                record["name"],
                _what(said, int(record.get("index", i))),
                int(record.get("startStep", 0)),
                record.get("endStep"),
                str(record.get("rule") or ""),
                unix(record.get("startTime")),
                unix(record.get("endTime")),
                record.get("chipSeconds"),
            )
            for i, record in enumerate(records)
        ]
    ends: dict[int, Mapping[str, Any]] = {}
    for commit in files.commits:
        if isinstance(boundary := commit.get("boundary"), Mapping):
            ends[int(boundary["stage"])] = boundary
    newest = files.steps[-1][0] if files.steps else 0
    found, begin = [], 0
    for i in range(max([*ends, -1]) + 2):
        boundary = ends.get(i)
        if boundary is None and newest <= begin:
            break
        name = said[i]["name"] if i < len(said) else f"stage {i + 1}"
        end = int(boundary["step"]) if boundary else None
        found.append(StageSpan(name, _what(said, i), begin, end, str(boundary["rule"]) if boundary else ""))
        begin = end if end is not None else newest
    return found


def _what(stages: Sequence[Mapping[str, Any]], index: int) -> str:
    if index >= len(stages):
        return ""
    stage = stages[index]
    if "rl" in stage:
        return str(stage["rl"].get("method") or "rl")
    return next((kind for kind in ("sft", "curate") if kind in stage), "")


def time_of_step(step: int, attempts: Sequence[Attempt], offsets: Mapping[int, float]) -> float | None:
    """When a step was first done, on the scale of `offsets` (attempt -> where it begins)."""
    for attempt in attempts:
        if attempt.number in offsets:
            for done, at in attempt.marks:
                if done >= step:
                    return offsets[attempt.number] + at
    return None
