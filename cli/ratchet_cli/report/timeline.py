"""The timeline: stages above, one bar for each attempt below, and how each ended.

Bars stand where the clock had them. Where times are not known (a copied folder, a bucket) attempts are set one after
the other, by the seconds that their processes ran, and the page says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from ratchet_cli.report.attempts import Attempt
from ratchet_cli.report.html import Html, joined, seconds, table, tag
from ratchet_cli.report.stages import StageSpan, time_of_step

MOST_BARS = 60
MOST_ROWS = 200


def timeline(attempts: Sequence[Attempt], stages: Sequence[StageSpan]) -> Html:
    """Bars and their scale."""
    if not attempts:
        return tag("p", "no attempt left a trace", class_="absent")
    clock = all(a.start is not None for a in attempts)
    offsets = _offsets(attempts, clock)
    length = max(offsets[a.number] + max(_length(a, clock), 0.0) for a in attempts) or 1.0
    bars = []
    for attempt in attempts[-MOST_BARS:]:
        left, width = offsets[attempt.number] / length, _length(attempt, clock) / length
        words = (
            f"attempt {attempt.number}: {attempt.ended}; steps {_steps(attempt)}, {seconds(_length(attempt, clock))}"
        )
        bar = tag("i", title=words, class_=f"bar {attempt.kind}", style=f"left:{left:.2%};width:max({width:.2%},3px)")
        bars.append(
            tag(
                "div",
                tag("span", f"{attempt.number}", tag("em", attempt.ended), class_="who"),
                tag("div", bar, class_="track"),
                class_="lane",
            )
        )
    said = [] if clock else ["times of the attempts are not known here, so they stand one after the other"]
    if len(attempts) > MOST_BARS:
        said.append(f"the first {len(attempts) - MOST_BARS} of {len(attempts)} attempts are not drawn")
    scale = tag("div", tag("span", "0"), tag("span", seconds(length / 2)), tag("span", seconds(length)), class_="scale")
    return tag(
        "div",
        _stage_lane(attempts, stages, offsets, length),
        joined(bars),
        tag("div", tag("span", class_="who"), scale, class_="lane"),
        tag("p", "; ".join(said), class_="note") if said else None,
        class_="timeline",
    )


def _offsets(attempts: Sequence[Attempt], clock: bool) -> dict[int, float]:
    """Where each attempt begins, in seconds from the first."""
    if clock:
        first = min(a.start for a in attempts if a.start is not None)
        return {a.number: a.start - first for a in attempts if a.start is not None}
    found, at = {}, 0.0
    for attempt in attempts:
        found[attempt.number] = at
        at += attempt.wall
    return found


def _length(attempt: Attempt, clock: bool) -> float:
    if clock and attempt.end is not None and attempt.start is not None:
        return attempt.end - attempt.start
    return attempt.wall


def _stage_lane(
    attempts: Sequence[Attempt], stages: Sequence[StageSpan], offsets: dict[int, float], length: float
) -> Html | None:
    clock = min((a.start for a in attempts if a.start is not None), default=0.0)
    parts, begin = [], 0.0
    for i, stage in enumerate(stages):
        finish = None
        if stage.finish is not None and all(a.start is not None for a in attempts):
            finish = stage.finish - clock
        elif stage.end is not None:
            finish = time_of_step(stage.end, attempts, offsets)
        end = min(length, finish if finish is not None else length)
        words = f"stage {stage.name} ({stage.what}), steps {stage.begin} to {stage.end or 'now'}; {stage.rule}"
        style = f"left:{begin / length:.2%};width:{max(0.0, end - begin) / length:.2%}"
        parts.append(tag("i", stage.name, title=words, class_=f"stage n{i % 2}", style=style))
        begin = end
    who = tag("span", "stages", class_="who")
    return tag("div", who, tag("div", joined(parts), class_="track"), class_="lane") if parts else None


def _steps(attempt: Attempt) -> str:
    if attempt.to_step is None:
        return "none"
    return f"{attempt.from_step if attempt.from_step is not None else '?'} to {attempt.to_step}"


def attempt_table(attempts: Sequence[Attempt]) -> Html:
    """One row for each attempt, the latest if there are very many."""
    rows = [
        (
            a.number,
            tag("span", a.ended, class_=f"chip {a.kind}"),
            a.notice or "–",
            a.charged_to or "–",
            a.placement or "–",
            _steps(a),
            a.steps_lost if a.steps_lost is not None else "–",
            seconds(a.wall),
            a.evidence or "–",
        )
        for a in attempts[-MOST_ROWS:]
    ]
    heads = ("attempt", "end", "notice", "charged to", "placement", "steps", "steps lost", "ran", "evidence")
    # A folder alone knows neither notice nor charge nor placement: columns of dashes would only make it too wide.
    kept = [i for i in range(len(heads)) if i < 2 or any(row[i] != "–" for row in rows)]
    numbers = [place for place, i in enumerate(kept) if i in (0, 6, 7)]
    return table([heads[i] for i in kept], [[row[i] for i in kept] for row in rows], numbers=numbers)


def stage_table(stages: Sequence[StageSpan]) -> Html:
    rows = [
        (
            s.name,
            s.what or "–",
            f"{s.begin} to {s.end if s.end is not None else 'now'}",
            (s.end - s.begin) if s.end is not None else "–",
            s.rule or ("under way" if s.end is None else "–"),
        )
        for s in stages
    ]
    return table(("stage", "kind", "steps", "made", "why it ended"), rows, numbers=(3,))
