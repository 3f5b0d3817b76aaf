"""Where every second went: one stacked bar for all attempts and one for each, with the figures below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ratchet_cli.report.attempts import PARTS, Attempt, Total
from ratchet_cli.report.html import Html, joined, seconds, share, table, tag
from ratchet_trainer.process.ledger import CATEGORIES, USEFUL

MEANING = {
    "init": "start of the process, imports, devices",
    "compile": "compiling programs or loading compiled ones",
    "restore": "reading the checkpoint",
    "replay": "steps that had been done before",
    "generate": "sampling responses",
    "await": "waiting for the workers that sample",
    "verify": "judging them",
    "update": "changing weights",
    "evaluate": "evaluations",
    "save": "writing checkpoints, as far as the step waited",
    "wait": "waiting at the end of a stage",
    "drain": "leaving after a notice",
    "other": "everything else",
}
MOST_BARS = 40


def bars(attempts: Sequence[Attempt], total: Total) -> Html:
    """The stacked bars; all attempts share one scale, the total has its own."""
    kept = [a for a in attempts if a.seconds]
    longest = max((a.wall for a in kept), default=1.0)
    lanes = [_lane("all", total.seconds, total.wall)]
    lanes += [_lane(f"{a.number}", a.seconds, longest, a.wall) for a in kept[-MOST_BARS:]] if len(kept) > 1 else []
    note = None
    if len(kept) > MOST_BARS:
        note = tag("p", f"the first {len(kept) - MOST_BARS} attempts are not drawn; the sum has them", class_="note")
    keys = [
        tag("span", tag("i", class_=f"key c-{name}"), name, class_="entry")
        for name in CATEGORIES
        if total.seconds.get(name)
    ]
    return tag("div", tag("p", joined(keys), class_="legend"), joined(lanes), note, class_="timeline")


def _lane(who: str, spent: Mapping[str, float], full: float, wall: float | None = None) -> Html:
    parts = [
        tag(
            "i",
            title=f"{name}: {seconds(spent[name])} ({share(spent[name] / (wall or full))})",
            class_=f"part c-{name}",
            style=f"width:{spent[name] / full:.3%}",
        )
        for name in (*USEFUL, *(c for c in CATEGORIES if c not in USEFUL))
        if spent.get(name)
    ]
    label = tag("span", who, tag("em", seconds(wall if wall is not None else full)), class_="who")
    return tag("div", label, tag("div", joined(parts), class_="track stacked"), class_="lane")


def figures(total: Total) -> Html:
    """The table of categories."""
    rows = [
        (
            tag("span", tag("i", class_=f"key c-{name}"), name),
            seconds(total.seconds[name]),
            share(total.seconds[name] / total.wall),
            "yes" if name in USEFUL else "–",
            MEANING.get(name, ""),
        )
        for name in CATEGORIES
        if total.seconds.get(name)
    ]
    return table(("category", "time", "share", "counts as goodput", "what it is"), rows, numbers=(1, 2))


def recoveries(attempts: Sequence[Attempt]) -> Html | None:
    """How long each attempt after the first took to its first new step, by parts. None where there was none."""
    recorded = [a for a in attempts if a.recovery]
    if recorded:
        by_part = [(a.number, *(_short(a.recovery.get(part)) for part in PARTS), _total(a)) for a in recorded]
        return table(("attempt", *PARTS, "total"), by_part, numbers=range(len(PARTS) + 2))
    later = [a for a in attempts[1:] if a.to_first_step]
    if not later:
        return None
    names = [name for name in CATEGORIES if any(a.to_first_step.get(name) for a in later)]
    heads = ("attempt", *names, "to the first new step")
    rows = [
        (a.number, *(_short(a.to_first_step.get(n)) for n in names), seconds(sum(a.to_first_step.values())))
        for a in later
    ]
    return table(heads, rows, numbers=range(len(heads)))


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _total(attempt: Attempt) -> str:
    parts = attempt.recovery
    return seconds(parts.get("total", sum(v for k, v in parts.items() if k != "total")))
