"""Samples before and after, side by side: the same item where both ends of the run kept it.

Decides which rollouts are set beside each other. Every text goes through the escaping of `html`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ratchet_cli.report.html import Html, joined, number, tag
from ratchet_cli.sample_view import DISPOSITION, FINISH, STATUS

PAIRS = 6
LONGEST = 1500
"""Characters of a text that are shown."""

Sample = Mapping[str, Any]


def pairs(samples: Mapping[int, Sequence[Sample]], most: int = PAIRS) -> list[tuple[Sample, Sample]]:
    """(early, late) rollouts: first those of the same item, then in the order in which they stand. Of the early ones
    those of the first steps that are there, of the late ones those of the last."""
    read = [step for step in sorted(samples) if samples[step]]
    if len(read) < 2:
        return []
    middle = (len(read) + 1) // 2
    early = [s for step in read[:middle] for s in samples[step]]
    late = [s for step in reversed(read[middle:]) for s in samples[step]]
    found: list[tuple[Sample, Sample]] = []
    used: set[int] = set()
    for after in late:
        before = next((s for s in early if id(s) not in used and _same(s, after)), None)
        if before is not None and id(after) not in used and len(found) < most:
            found.append((before, after))
            used |= {id(before), id(after)}
    first = [s for s in early if id(s) not in used and s.get("step") == read[0]]
    last = [s for s in late if id(s) not in used and s.get("step") == read[-1]]
    return found + list(zip(first, last, strict=False))[: most - len(found)]


def _same(one: Sample, other: Sample) -> bool:
    return one.get("place") == other.get("place") and one.get("prompt") == other.get("prompt")


def side_by_side(found: Sequence[tuple[Sample, Sample]]) -> Html:
    """The pairs as the page shows them."""
    return joined(tag("div", _card(before), _card(after), class_="pair") for before, after in found)


def _card(sample: Sample) -> Html:
    right = sample.get("accuracy") == 1.0
    status = STATUS.get(str(sample.get("status")))
    word = status or ("right" if right else "wrong")
    parts = sample.get("parts")
    rewards = ", ".join(f"{k} {_figure(v)}" for k, v in parts.items()) if isinstance(parts, Mapping) else ""
    ended = FINISH.get(str(sample.get("finish")), str(sample.get("finish")))
    disposition = str(sample.get("disposition"))
    rows = [
        ("prompt", _cut(sample.get("prompt"))),
        ("response", _cut(sample.get("response")) or "(empty)"),
        ("read as", "(nothing)" if sample.get("extracted") is None else _cut(sample.get("extracted"))),
        ("expected", _cut(sample.get("expected"))),
    ]
    texts = [tag("dt", name) + tag("dd", tag("pre", text)) for name, text in rows]
    small = f"reward {_figure(sample.get('reward'))} ({rewards}); ended by {ended} after {sample.get('tokens')} tokens"
    return tag(
        "article",
        tag(
            "header",
            tag("span", word, class_=f"chip {'good' if right else 'bad'}"),
            f" step {sample.get('step')}, stage {sample.get('stage')}, {sample.get('place')}",
        ),
        tag("dl", joined(Html(t) for t in texts)),
        tag("footer", small, f"; {DISPOSITION.get(disposition, disposition)}"),
    )


def _figure(value: object) -> str:
    return number(float(value)) if isinstance(value, (int, float)) else "–"


def _cut(value: object) -> str:
    said = "" if value is None else str(value)
    if len(said) <= LONGEST:
        return said
    return f"{said[: LONGEST * 2 // 3]}\n... {len(said) - LONGEST:,} characters ...\n{said[-LONGEST // 3 :]}"
