"""One thing that stands in the way of a job, or may."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """What follows from a finding."""

    ERROR = "error"
    """It cannot work like this."""
    WARNING = "warning"
    """It may work: what was looked at does not tell."""


@dataclass(frozen=True)
class Finding:
    """What is wrong and how to mend it."""

    severity: Severity
    about: str
    """What it is about, for example: placement spot."""
    wrong: str
    mend: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.about}: {self.wrong}; {self.mend}"


def error(about: str, wrong: str, mend: str) -> Finding:
    return Finding(Severity.ERROR, about, wrong, mend)


def warning(about: str, wrong: str, mend: str) -> Finding:
    return Finding(Severity.WARNING, about, wrong, mend)
