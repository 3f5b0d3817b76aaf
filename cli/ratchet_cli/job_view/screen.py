"""One job on one screen.

Decides what stands where, and in which words. A line that a reader can do without is left out.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from ratchet_cli.job_view import styles
from ratchet_cli.job_view.block_chart import sparkline, worth_drawing
from ratchet_cli.job_view.document import JobView, PodView, StageView
from ratchet_cli.job_view.read_pods import is_leader
from ratchet_cli.job_view.terminal import UNLIMITED, Glyphs
from ratchet_cli.job_view.words import bar, count, short, span

LABEL = 10
NODES = 8
RECOVERIES = 3
OVER = ("Completed", "Failed")
SPARK = 40


def lines(view: JobView, console: Console, glyphs: Glyphs, *, curves: bool = True, brief: bool = False) -> list[Text]:
    """The screen as lines that fit the console. Without `curves` there are no sparklines: they are drawn elsewhere.
    `brief`: for a small window, long texts are cut and the past is left out."""
    width = console.width
    found = list(_wrapped(_title(view, glyphs), console, width))
    before = ""
    for label, content in _sections(view, glyphs, width, curves):
        if brief:
            if label in ("events", "next"):
                continue
            content.truncate(2 * max(20, width - LABEL), overflow="ellipsis")
        for i, line in enumerate(_wrapped(content, console, max(20, width - LABEL))):
            shown = label if i == 0 and label != before else ""
            found.append(Text.assemble((f"{shown:<{LABEL}}", styles.LABEL), line))
        before = label
    for line in found:
        line.rstrip()
    return found


def _wrapped(text: Text, console: Console, width: int) -> Iterator[Text]:
    if width >= UNLIMITED - LABEL:
        yield text
    else:
        yield from text.wrap(console, width, overflow="fold")


def _title(view: JobView, glyphs: Glyphs) -> Text:
    title = Text.assemble((view.name, "bold"), "  ", (view.phase, styles.phase(view.phase)))
    if view.suspend and view.phase != "Suspended":
        title.append(" (being suspended)", "blue")
    stage = _current(view)
    if stage is not None and view.stage is not None:
        title.append(f" {glyphs.dot} stage {view.stage + 1} of {len(view.stages)}: {stage.name}")
    return title.append(f" {glyphs.dot} namespace {view.namespace} {glyphs.dot} {span(view.age_seconds)} old", "dim")


def _current(view: JobView) -> StageView | None:
    return view.stages[view.stage] if view.stage is not None and view.stage < len(view.stages) else None


def _sections(view: JobView, glyphs: Glyphs, width: int, curves: bool) -> Iterator[tuple[str, Text]]:
    yield from (("waiting", text) for text in _waiting(view))
    if view.stages:
        yield "stages", _stages(view, glyphs)
    yield from (("step", text) for text in _step(view, glyphs, width))
    yield from (("attempt", text) for text in _attempt(view))
    yield from (("where", text) for text in _where(view, glyphs))
    if (speed := _speed(view, glyphs)) is not None:
        yield "speed", speed
    yield from (("learning", text) for text in _learning(view, glyphs, width, curves))
    if view.checkpoint is not None:
        saved = Text(f"step {view.checkpoint.step}, {span(view.checkpoint.age_seconds)} ago")
        yield "saved", saved.append(f"  {view.checkpoint.path}", "dim") if view.checkpoint.path else saved
    yield from (("recovery", text) for text in _cost(view, glyphs))
    for event in view.events:
        times = f" x{event.count}" if event.count > 1 else ""
        style = "yellow" if event.type == "Warning" else ""
        about = "" if event.about.endswith(f"/{view.name}") else f"{event.about.partition('/')[2]}: "
        text = Text.assemble((f"{span(event.age_seconds):>6} ", "dim"), (f"{event.reason}{times} ", style))
        yield "events", text.append(about).append(event.message)
    yield from (("not read", Text(line, "yellow")) for line in view.unread)
    for step in view.next:
        yield "next", Text.assemble((step.command, "bold"), (f"   {step.why}", "dim"))


def _waiting(view: JobView) -> Iterator[Text]:
    for wait in view.waits:
        if wait.condition == "Learning":
            continue  # said with the rewards
        text = Text.assemble((wait.reason, styles.LEVELS[wait.level]))
        if wait.age_seconds is not None and wait.reason not in ("New",):
            text.append(f" for {span(wait.age_seconds)}", "dim")
        yield text.append(f": {wait.message}" if wait.message else "")
        if wait.advice and wait.advice not in wait.message:
            yield Text.assemble(("  do: ", "bold"), wait.advice)


def _stages(view: JobView, glyphs: Glyphs) -> Text:
    text = Text()
    for i, stage in enumerate(view.stages):
        if i:
            text.append(f" {glyphs.arrow} ", "dim")
        if stage.state == "done":
            text.append(f"{glyphs.yes} {stage.name}", "green").append(f" at {stage.end_step}", "dim")
            if stage.needs_approval and not stage.approved:
                text.append(" (needs approval)", "bold magenta")
        elif stage.state == "current":
            text.append(f"{stage.name} ({stage.kind})", "bold")
        else:
            text.append(stage.name, "dim")
    return text


def _step(view: JobView, glyphs: Glyphs, width: int) -> Iterator[Text]:
    progress = view.progress
    if progress is None or progress.step is None:
        return
    target = f"/{progress.target_step}" if progress.target_step is not None else ""
    text = Text.assemble((f"{progress.step}{target}", "bold"))
    if progress.share is not None:
        room = 12 if width < 60 else 30
        text.append(f"  {bar(progress.share, room, plain=glyphs.plain)}", "green")
        text.append(f" {100 * progress.share:.0f} %")
    if progress.doing:
        text.append(f"  {progress.doing}", "cyan")
    if progress.source == "status" and progress.said_seconds_ago and progress.said_seconds_ago > 30 and progress.doing:
        text.append(f"  said {span(progress.said_seconds_ago)} ago", "dim")
    yield text


def _attempt(view: JobView) -> Iterator[Text]:
    attempt = view.attempt
    if attempt is None or view.phase in OVER:
        return
    if attempt.verdict and not attempt.pods_ready:
        evidence = f": {attempt.evidence}" if attempt.evidence else ""
        yield Text.assemble((f"{attempt.number}", "bold"), f" ended as {attempt.verdict}{evidence}")
        return
    text = Text.assemble((f"{attempt.number}", "bold"))
    if attempt.placement:
        text.append(f" on placement {attempt.placement}")
    if attempt.pods_total:
        whole = attempt.pods_ready == attempt.pods_total
        text.append(f", {attempt.pods_ready or 0}/{attempt.pods_total} pods ready", "" if whole else "yellow")
    text.append(f", for {span(attempt.age_seconds)}", "dim")
    yield text
    if attempt.verdict:
        evidence = f" ({attempt.evidence})" if attempt.evidence else ""
        yield Text.assemble(("ending: ", "yellow"), attempt.verdict, evidence)


def _where(view: JobView, glyphs: Glyphs) -> Iterator[Text]:
    place = view.place
    if place is None:
        return
    parts = [f"{place.accelerator or 'CPU'} {place.topology or ''}".strip()]
    if place.capacity:
        parts.append(place.capacity)
    if place.chips:
        parts.append(count(place.slices, "slice"))
    if place.hosts is not None:
        parts.append(count(place.hosts, "host"))
    if place.chips:
        parts.append(count(place.chips, "chip"))
    yield Text(f" {glyphs.dot} ".join(parts))
    if view.phase in OVER:
        return
    if nodes := [_node(pod) for pod in view.pods if pod.node]:
        more = f" and {len(nodes) - NODES} more" if len(nodes) > NODES else ""
        yield Text("nodes " + ", ".join(nodes[:NODES]) + more, "dim")
    bad = [pod for pod in view.pods if not pod.ready or pod.ending]
    for pod in bad[:NODES]:
        state = "ending" if pod.ending else pod.phase
        yield Text.assemble((f"{pod.name} {state}", "yellow"), f": {pod.problem}" if pod.problem else "")
    if len(bad) > NODES:
        yield Text(f"and {len(bad) - NODES} more pods that are not ready", "yellow")


def _node(pod: PodView) -> str:
    return f"{pod.node} (leader)" if is_leader(pod) else f"{pod.node}"


def _speed(view: JobView, glyphs: Glyphs) -> Text | None:
    progress, parts = view.progress, []
    if progress is None:
        return None
    if progress.tokens_per_second is not None:
        parts.append(f"{short(progress.tokens_per_second)} tokens/s")
    if progress.steps_per_second is not None:
        rate = progress.steps_per_second
        parts.append(f"{short(rate)} steps/s" if rate >= 0.1 else f"{short(1 / rate)} s a step")
    if progress.seconds_left is not None:
        parts.append(f"done in {span(progress.seconds_left)} at the latest")
    return Text(f" {glyphs.dot} ".join(parts)) if parts else None


def _learning(view: JobView, glyphs: Glyphs, width: int, curves: bool) -> Iterator[Text]:
    learning = view.learning
    mark = {"True": glyphs.yes, "False": glyphs.no}.get(learning.status, "?")
    text = Text.assemble((f"{mark} {learning.reason or 'not known'}", styles.LEARNING.get(learning.status, "")))
    if learning.reward is not None:
        text.append(f"  reward {short(learning.reward)}")
    if learning.accuracy is not None:
        text.append(f"  accuracy {short(learning.accuracy)}")
    yield text
    if learning.message and learning.status != "True":
        yield Text(learning.message, "" if learning.status == "False" else "dim")
    for wait in view.waits:
        if wait.condition == "Learning" and wait.advice and learning.status == "False":
            yield Text.assemble(("  do: ", "bold"), wait.advice)
    if curves:
        for name, points in worth_drawing(learning.curves or {}):
            ends = f" {short(points[0][1])} {glyphs.arrow} {short(points[-1][1])}"
            drawn = sparkline(points, max(5, min(SPARK, width - LABEL - 9 - len(ends))), glyphs)
            yield Text.assemble(f"{name:<9}", (drawn, "cyan"), ends)


def _cost(view: JobView, glyphs: Glyphs) -> Iterator[Text]:
    cost = view.cost
    if not cost.attempts or (cost.attempts == 1 and view.phase not in OVER):
        return
    parts = [count(cost.preemptions or 0, "preemption"), count(cost.failures or 0, "failure")]
    parts.append(f"{count(cost.steps_lost or 0, 'step')} lost")
    if cost.mean_recovery_seconds is not None:
        parts.append(f"back in {cost.mean_recovery_seconds:.1f} s on average")
    if cost.goodput is not None:
        parts.append(f"goodput {100 * cost.goodput:.0f} %")
    yield Text(f" {glyphs.dot} ".join(parts))
    for ended in cost.recoveries[-RECOVERIES:]:
        text = Text.assemble((f"attempt {ended.attempt} ", "dim"), ended.verdict)
        text.append(f" {span(ended.age_seconds)} ago", "dim")
        if ended.seconds is not None:
            text.append(f", back in {ended.seconds:.1f} s")
        if ended.steps_lost:
            text.append(f", {count(ended.steps_lost, 'step')} lost", "yellow")
        yield text.append(f"  {ended.evidence}", "dim") if ended.evidence else text
