"""The page that lists what a job's status can say: conditions with their reasons, verdicts with their charges.

Made from the tables that the operator works with; `make generate` writes it to docs/conditions.md.
"""

from __future__ import annotations

from ratchet_operator.decide.conditions import REASONS
from ratchet_operator.decide.verdict import TABLE


def reference_page() -> str:
    """The page as Markdown."""
    lines = [
        "# Conditions, reasons and verdicts",
        "",
        "Made from the operator's tables by `make generate`; do not edit.",
        "",
        "## Conditions",
        "",
        "All are present from the first reconcile. The message says the rest in words, and what to do.",
        "What leads to the reasons of `Learning`, and what helps: [watching.md](watching.md).",
        "",
        "| condition | reason | meaning |",
        "|---|---|---|",
    ]
    for kind, reasons in REASONS.items():
        lines += [f"| {kind} | {reason} | {meaning} |" for reason, meaning in reasons.items()]
    lines += [
        "",
        "## Verdicts",
        "",
        "Why an attempt ended (`status.attempts[].verdict`), strongest first. From the second one in a row without a",
        "new step, `PeerLost` costs a failure.",
        "",
        "| verdict | charged to | notice | ends the job |",
        "|---|---|---|---|",
    ]
    lines += [f"| {v} | {row.charge} | {row.notice} | {row.way_out or ''} |" for v, row in TABLE.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(reference_page(), end="")
