"""One line of what `ratchet doctor` found: well, or what is wrong and what mends it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ratchet_operator.checks.finding import Finding, Severity

OK = "ok"


@dataclass(frozen=True)
class Check:
    """`state` is ok, warning or error. `mend` is a command, or a sentence where none does it."""

    area: str
    state: str
    about: str
    said: str
    mend: str = ""

    def plain(self) -> dict[str, str]:
        """As `--json` has it."""
        found = {"area": self.area, "state": self.state, "about": self.about, "said": self.said}
        return found | ({"mend": self.mend} if self.mend else {})


def ok(area: str, about: str, said: str) -> Check:
    return Check(area, OK, about, said)


def error(area: str, about: str, said: str, mend: str) -> Check:
    return Check(area, Severity.ERROR.value, about, said, mend)


def warning(area: str, about: str, said: str, mend: str) -> Check:
    return Check(area, Severity.WARNING.value, about, said, mend)


def checks_of(area: str, findings: Iterable[Finding], about: str, well: str) -> list[Check]:
    """Findings as checks; where there is none, one line that says that all is well."""
    found = [Check(area, f.severity.value, f.about, f.wrong, f.mend) for f in findings]
    return found or [ok(area, about, well)]
