"""The page: every section in order, from plain data to one HTML text.

Decides what is said where. A section whose source is missing says so in its place. Nothing is loaded from anywhere: a
content policy forbids it, and allows the one script of the page by its digest, so no text in it can become a program.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import yaml

from ratchet_cli.report import before_after, cost, curve_svg, seconds_view, timeline
from ratchet_cli.report.attempts import BAD, LOST, Attempt, Total, attempts_of, total_of
from ratchet_cli.report.curves import curves_of
from ratchet_cli.report.html import Html, joined, number, seconds, share, table, tag
from ratchet_cli.report.learned import Change, Verdict, evaluations, of_stage, verdict
from ratchet_cli.report.sources import CLUSTER, FOLDER, MANIFEST, Sources, spec_of
from ratchet_cli.report.stages import StageSpan, stages_of

LIMIT = 2_000_000
"""Bytes of a page, at most."""
POINTS = (360, 180, 90, 40)
"""Points of a curve, less from try to try until the page is small enough."""
LONGEST_MANIFEST = 100_000
MOST_EVENTS = 150


@dataclass(frozen=True)
class Facts:
    """What the sections are made of."""

    sources: Sources
    attempts: list[Attempt]
    total: Total
    stages: list[StageSpan]
    evaluated: list[Change]
    sampled: list[Change]
    verdict: Verdict
    learning: Mapping[str, Any] | None
    prices: Mapping[str, float]
    unit: str
    made: str
    versions: Mapping[str, str]

    @property
    def status(self) -> Mapping[str, Any]:
        return (self.sources.job or {}).get("status") or {}

    @property
    def last_step(self) -> int:
        steps = self.sources.files.steps
        reported = (self.status.get("progress") or {}).get("step") or 0
        return max(steps[-1][0] if steps else 0, reported)


def facts_of(
    sources: Sources, prices: Mapping[str, float], unit: str, versions: Mapping[str, str], now: datetime | None = None
) -> Facts:
    """Everything that follows from the sources."""
    status = (sources.job or {}).get("status") or {}
    spec, data = spec_of(sources), sources.files
    attempts = attempts_of(status, data)
    stages = stages_of(spec, status, data)
    newest = data.steps[-1][0] if data.steps else 0
    evaluated = evaluations(data.steps, spec)
    each = [of_stage(data.steps, s.name, s.begin, s.end if s.end is not None else newest) for s in stages]
    sampled = [change for change in each if change is not None]
    learning = next((c for c in status.get("conditions") or () if c["type"] == "Learning"), None) or _computed(data)
    return Facts(
        sources=sources,
        attempts=attempts,
        total=total_of(attempts, data),
        stages=stages,
        evaluated=evaluated,
        sampled=sampled,
        verdict=verdict(evaluated, sampled, learning),
        learning=learning,
        prices=prices,
        unit=unit,
        made=(now or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC"),
        versions=versions,
    )


def _computed(data: Any) -> Mapping[str, Any] | None:
    """The condition Learning of a run without a cluster, from the newest state's windows."""
    windows = (data.control.get("stage") or {}).get("windows") if isinstance(data.control, dict) else None
    if not windows:
        return None
    from ratchet_trainer.step.learning_signs import learning

    return learning(windows, None, str).plain()


def page(facts: Facts) -> str:
    """The whole page, small enough."""
    made = ""
    for most in POINTS:
        made = _page(facts, most)
        if len(made.encode()) < LIMIT:
            return made
    return made


def _page(facts: Facts, most: int) -> str:
    style, script = _resource("report.css"), _resource("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{facts.sources.name}: Ratchet report"),
        tag("style", Html(style)),
    )
    sections = (
        headline(facts),
        section("curves", "Curves", _curves(facts, most)),
        section("evaluations", "Evaluations", _evaluations(facts)),
        section("timeline", "Stages and attempts", _timeline(facts)),
        section("seconds", "Where every second went", _seconds(facts)),
        section("recovery", "Recovery", _recovery(facts)),
        section("cost", "Cost", _cost(facts)),
        section("samples", "Samples, before and after", _samples(facts)),
        section("events", "Conditions and events", _events(facts)),
        section("manifest", "Manifest", _manifest(facts)),
        section("versions", "Versions and sources", _versions(facts)),
    )
    body = tag("body", tag("main", joined(sections)), tag("script", Html(script)))
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def _resource(name: str) -> str:
    return files("ratchet_cli.report").joinpath(name).read_text(encoding="utf-8")


def section(anchor: str, title: str, *inside: object) -> Html:
    return tag("section", tag("h2", title), *inside, id=anchor)


def absent(words: str) -> Html:
    return tag("p", words, class_="absent")


def headline(facts: Facts) -> Html:
    sources, status = facts.sources, facts.status
    where = f"{sources.namespace}/{sources.name}" if sources.namespace else sources.name
    phase = status.get("phase")
    tiles = [
        ("step", number(facts.last_step)),
        ("attempts", number((status.get("counters") or {}).get("attempts") or len(facts.attempts))),
        ("goodput", share(facts.total.goodput)),
        ("steps made again", _steps_lost(facts)),
        ("processes ran", seconds(facts.total.wall) if facts.total.wall else "–"),
    ]
    if facts.total.clock is not None:
        tiles.append(("first start to last end", seconds(facts.total.clock)))
    for change in [c for c in facts.evaluated if c.what == "accuracy"][:1] or facts.sampled[-1:]:
        tiles.insert(0, (f"{change.name} accuracy", f"{change.before:.2f} → {change.after:.2f}"))
    return tag(
        "header",
        tag("p", "Ratchet report", class_="kicker"),
        tag("h1", where, tag("span", phase, class_=f"chip {_phase_kind(phase)}") if phase else None),
        tag("p", _what(facts), class_="what"),
        tag("p", facts.verdict.words, class_=f"verdict {facts.verdict.verdict}"),
        _learning(facts.learning),
        tag("dl", joined(tag("div", tag("dt", k), tag("dd", v)) for k, v in tiles), class_="tiles"),
        class_="headline",
    )


def _phase_kind(phase: str | None) -> str:
    return {"Completed": "good", "Failed": "bad"}.get(phase or "", "running")


def _learning(learning: Mapping[str, Any] | None) -> Html | None:
    if learning is None or learning.get("reason") == "NotApplicable":
        return None
    words = f"Learning is {learning['status']} ({learning['reason']}) of its last steps: {learning.get('message', '')}"
    return tag("p", words, class_="note")


def _steps_lost(facts: Facts) -> str:
    """The operator's count; from ledgers, whose last second a kill takes, a lower bound."""
    counted = (facts.status.get("counters") or {}).get("stepsLost")
    if counted is not None:
        return number(counted)
    abrupt = any(a.kind in (LOST, BAD) for a in facts.attempts[:-1])
    return f"{'at least ' if abrupt else ''}{number(facts.total.steps_replayed)}"


def _what(facts: Facts) -> str:
    spec = spec_of(facts.sources)
    if not spec:
        return "What was trained is not known: " + facts.sources.missing.get(MANIFEST, "there is no manifest")
    model = spec.get("model") or {}
    named = f"preset {model['preset']}" if model.get("preset") else str(model.get("path"))
    methods = [
        str(s["rl"].get("method") or "rl") if "rl" in s else "sft" if "sft" in s else "curate" for s in spec["stages"]
    ]
    data = ", ".join(d["name"] for d in spec.get("datasets") or ())
    return f"Model {named}; stages {', '.join(methods)}; data sets {data}; seed {spec.get('seed', 0)}"


def _curves(facts: Facts, most: int) -> Html:
    steps = facts.sources.files.steps
    if not steps:
        return absent(facts.sources.missing.get(FOLDER, "no step was committed yet, so there are no curves"))
    span = (steps[0][0], steps[-1][0])
    stages = [(s.end, "boundary", f"stage {s.name} ended at step {s.end}: {s.rule}") for s in facts.stages if s.end]
    ends = [
        (a.to_step, a.kind, f"attempt {a.number} ended after step {a.to_step}: {a.ended}")
        for a in facts.attempts[:-1]
        if a.to_step
    ]
    drawn = [
        curve_svg.figure(c, stages, ends[-100:], span, most) for c in curves_of(steps, facts.sources.files.timings)
    ]
    words = ["Only committed steps are here, each once, however often the run was stopped."]
    if any(s.end for s in facts.stages):
        words.append("Dashed lines are ends of stages.")
    if ends:
        words.append("Triangles are steps after which an attempt ended.")
    if facts.sources.files.unreadable_lines:
        words.append(f"{facts.sources.files.unreadable_lines} lines could not be read and are left out.")
    return tag("p", " ".join(words), class_="note") + tag("div", joined(drawn), class_="grid")


def _evaluations(facts: Facts) -> Html:
    if not facts.evaluated:
        why = "none: the manifest has no evaluations, or none was due yet"
        return absent(why if facts.sources.files.steps else facts.sources.missing.get(FOLDER, why))
    rows = [
        (
            c.name,
            c.what.replace("pass_at_", "pass@"),
            number(c.before),
            number(c.after),
            "–" if c.error is None else f"±{2 * c.error:.3f}",
            f"{c.steps[0]} to {c.steps[1]}",
        )
        for c in facts.evaluated
    ]
    heads = ("evaluation", "figure", "before", "after", "what chance makes", "steps")
    return table(heads, rows, numbers=(2, 3, 4))


def _timeline(facts: Facts) -> Html:
    if not facts.attempts and not facts.stages:
        return absent(facts.sources.missing.get(FOLDER, "nothing has begun yet"))
    notes = []
    if facts.sources.job is None:
        notes.append(
            "Ends are known by exit codes alone: " + facts.sources.missing.get(CLUSTER, "no cluster was asked")
        )
    elif len(facts.attempts) > len(facts.status.get("attempts") or ()) + 1:
        notes.append("Of attempts before the last twenty the operator keeps no verdict.")
    return joined(
        (
            timeline.timeline(facts.attempts, facts.stages),
            tag("p", " ".join(notes), class_="note") if notes else None,
            timeline.stage_table(facts.stages) if facts.stages else None,
            timeline.attempt_table(facts.attempts) if facts.attempts else None,
        )
    )


def _seconds(facts: Facts) -> Html:
    total = facts.total
    if not total.wall:
        return absent(facts.sources.missing.get(FOLDER, "no ledger was kept in the folder of checkpoints"))
    words = (
        f"Goodput {share(total.goodput)}: {seconds(total.useful)} of the {seconds(total.wall)} that processes ran went "
        "into sampling, judging, updates and evaluations that had not been done before."
    )
    if total.clock is not None:
        rest = f" Of the {seconds(total.clock)} from the first start to the last end, that is "
        words += f"{rest}{share(total.useful / total.clock)}."
    return tag("p", words) + seconds_view.bars(facts.attempts, total) + seconds_view.figures(total)


def _recovery(facts: Facts) -> Html:
    again = facts.total.steps_replayed
    words = f"Steps made again: {_steps_lost(facts)}"
    if facts.total.wall and facts.status.get("counters"):
        words += f" by the operator's count, at least {again} by the ledgers, which lack the last second of a kill"
    words += f"; tokens sampled again: {number(facts.total.tokens_replayed)}." if facts.total.wall else "."
    found = seconds_view.recoveries(facts.attempts)
    if found is None:
        return tag("p", words) + absent("No attempt had to recover from an end before it.")
    how = (
        "Seconds from the sign of an end to the end of the first new step, as the operator recorded them."
        if any(a.recovery for a in facts.attempts)
        else "Seconds from the start of a process to its first new step, from the ledgers; what came before that, a "
        "folder does not know."
    )
    return tag("p", words) + tag("p", how, class_="note") + found


def _cost(facts: Facts) -> Html:
    local = facts.sources.job is None and facts.sources.files.spec is not None
    found = cost.costs(facts.attempts, spec_of(facts.sources), facts.prices, local=local)
    if not found:
        return absent("no attempt left a trace that could be counted")
    money = any(c.price is not None for c in found)
    heads = ["capacity", "chips of an attempt", "attempts", "hours of one chip"]
    rows: list[list[object]] = [[c.capacity, c.chips, c.attempts, f"{c.hours:.4f}"] for c in found]
    if money:
        heads += ["price of an hour", "money"]
        for row, one in zip(rows, found, strict=True):
            row += [number(one.price), "–" if one.money is None else f"{one.money:,.2f} {facts.unit}".strip()]
    words = ["Time that the processes of attempts ran, times their chips; what a cloud bills counts idle nodes, too."]
    booked = [s.chip_seconds for s in facts.stages if s.chip_seconds is not None]
    if booked:
        words.append(f"The operator has booked {sum(booked) / 3600:.4f} hours, from when all pods of an attempt ran.")
    unused = sorted(set(facts.prices) - {c.capacity for c in found})
    if unused:
        words.append(f"No capacity here has the price that was given for {', '.join(unused)}.")
    if not facts.prices:
        words.append("No price was given (--price Spot=1.20), so there is no sum of money.")
    return table(heads, rows, numbers=range(2, len(heads))) + tag("p", " ".join(words), class_="note")


def _samples(facts: Facts) -> Html:
    data = facts.sources.files
    if not data.samples:
        why = "none: a run keeps samples after its first step of reinforcement learning (spec.samples)"
        missing = facts.sources.missing
        return absent(missing.get("samples") or missing.get(FOLDER, why))
    found = before_after.pairs(data.samples)
    if not found:
        return absent(f"samples of step {min(data.samples)} alone are there, so nothing can be compared yet")
    words = ["Early on the left, late on the right; of each prompt the best and the worst response are kept."]
    if data.replaced_bytes:
        words.append(f"{data.replaced_bytes} pieces that are no UTF-8 are shown as \N{REPLACEMENT CHARACTER}.")
    return tag("p", " ".join(words), class_="note") + before_after.side_by_side(found)


def _events(facts: Facts) -> Html:
    if facts.sources.job is None:
        return absent(facts.sources.missing.get(CLUSTER, "no cluster was asked"))
    conditions = [
        (c["type"], c["status"], c["reason"], c.get("message", ""), c.get("lastTransitionTime", ""))
        for c in facts.status.get("conditions") or ()
    ]
    parts = [table(("condition", "status", "reason", "message", "since"), conditions)]
    if why := facts.sources.missing.get("events"):
        parts.append(absent(why))
    elif not facts.sources.events:
        parts.append(absent("no events: Kubernetes keeps them for an hour"))
    else:
        rows = [
            (e.get("lastTimestamp"), e.get("type"), e.get("reason"), e.get("count", 1), e.get("message"))
            for e in facts.sources.events[-MOST_EVENTS:]
        ]
        parts.append(table(("last", "type", "reason", "times", "message"), rows, numbers=(3,)))
    return joined(parts)


def _manifest(facts: Facts) -> Html:
    manifest = facts.sources.manifest
    if manifest is None:
        return absent(facts.sources.missing.get(MANIFEST, "there is none"))
    said = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=100)
    cut = f"\n... {len(said) - LONGEST_MANIFEST:,} characters more" if len(said) > LONGEST_MANIFEST else ""
    return tag(
        "details",
        tag("summary", f"as it is in {facts.sources.manifest_from}"),
        tag("pre", said[:LONGEST_MANIFEST] + cut),
    )


def _versions(facts: Facts) -> Html:
    rows: list[Sequence[object]] = [(f"this page: {k}", v) for k, v in facts.versions.items()]
    identity = facts.sources.files.identity
    rows += [(f"newest step: {key}", _short(value)) for key, value in sorted(identity.items())]
    if image := (facts.status.get("resolved") or {}).get("image"):
        rows.append(("trainer image", image))
    if exact := facts.status.get("exactSince"):
        rows.append(("exact since", f"step {exact.get('step')}: {exact.get('reason')}"))
    rows.append(("made", facts.made))
    rows.append(("checkpoints", facts.sources.place or "–"))
    notes = [*facts.sources.missing.values(), *facts.sources.files.notes]
    return joined(
        (
            table(("what", "which"), rows),
            tag("ul", joined(tag("li", n) for n in notes), class_="note") if notes else None,
        )
    )


def _short(value: object) -> str:
    said = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6).strip()
    said = said.removesuffix("\n...").removesuffix("...").strip()
    return said if len(said) <= 400 else f"{said[:397]}..."
