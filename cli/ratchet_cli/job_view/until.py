"""What a script waits for: a condition, with a status or a reason if it says one, or a phase.

Completed            the condition Completed is True
Learning=False       the condition has that status
Placed=WaitingForQuota   or that reason
phase=Running        the phase
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ratchet_cli.job_view.read_job import conditions, phase
from ratchet_cli.kube.parts import text, whole

Object = dict[str, Any]
END = ("Completed", "Failed")


@dataclass(frozen=True)
class Until:
    """`kind` of a condition, or `phase`; `value`: a status, a reason, or a phase."""

    kind: str
    value: str

    def __str__(self) -> str:
        return self.kind if self.value == "True" else f"{self.kind}={self.value}"

    def met(self, job: Object) -> bool:
        """Whether it is so, in a status that speaks of the present spec."""
        generation, observed = whole(job, "metadata", "generation"), whole(job, "status", "observedGeneration")
        if generation is not None and observed is not None and observed < generation:
            return False
        if self.kind == "phase":
            return phase(job).lower() == self.value.lower()
        for kind, condition in conditions(job).items():
            if kind.lower() == self.kind.lower():
                said = (text(condition, "status") or "", text(condition, "reason") or "")
                return self.value.lower() in (part.lower() for part in said)
        return False


def parse(wanted: str) -> Until:
    """`Completed`, `Learning=False`, `condition=Completed`, `phase=Running`. Raises ValueError, also for a word that no
    job ever says: it would be waited for in vain."""
    from ratchet_api.status import PHASES
    from ratchet_operator.decide.conditions import REASONS

    kind, equals, value = wanted.strip().partition("=")
    if kind == "condition":  # as kubectl wait --for has it
        kind, equals, value = value.partition("=")
    if not kind or (equals and not value) or (kind.lower() == "phase" and not equals):
        raise ValueError(f"{wanted!r}: say a condition such as Completed or Learning=False, or phase=Running")
    _known("phase or condition", kind, ["phase", *REASONS])
    if kind.lower() == "phase":
        _known("phase", value, PHASES)
    elif equals:
        reasons = next(found for name, found in REASONS.items() if name.lower() == kind.lower())
        _known(f"status or reason of {kind}", value, ["True", "False", "Unknown", *reasons])
    return Until(kind, value or "True")


def _known(what: str, word: str, known: Sequence[str]) -> None:
    lower = {name.lower(): name for name in known}
    if word.lower() not in lower:
        close = difflib.get_close_matches(word.lower(), lower, n=1)
        meant = f"did you mean {lower[close[0]]}?" if close else f"there are {', '.join(known)}"
        raise ValueError(f"{word}: no job has such a {what}; {meant}")


def cannot_come(until: Until, job: Object) -> bool:
    """Whether the job is over and will not change any more."""
    return phase(job) in END and not until.met(job)
