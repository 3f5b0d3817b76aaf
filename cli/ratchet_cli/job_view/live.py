"""The live screen: one job with curves, or all jobs, redrawn when something is new and when the window changes."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from ratchet_cli.job_view import block_chart, screen
from ratchet_cli.job_view.document import JobView
from ratchet_cli.job_view.keys import keys
from ratchet_cli.job_view.terminal import Glyphs
from ratchet_cli.signals import handled

FRAME_SECONDS = 0.25
CHART_WIDTH = 38
CHART_HEIGHT = 6
ROOM = 9
"""Lines that a chart and what is around it want."""

Draw = Callable[[Console], Sequence[Text]]


class Frame:
    """What is drawn: made anew for the width and height that the terminal has at that moment."""

    def __init__(self, draw: Draw):
        self.draw = draw

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = list(self.draw(console))
        room = options.height or console.height
        if len(lines) > room:
            lines = [
                *lines[: room - 1],
                Text(f"... {len(lines) - room + 1} more lines; a taller window shows them", "dim"),
            ]
        yield from lines


def run(console: Console, draw: Draw, refresh: Callable[[], bool], interval: float) -> None:
    """Draws until q, Ctrl-C, or until `refresh`, called every `interval` seconds by a thread, says that it is over.

    A cluster that is slow to answer holds neither keys nor a resize up. Raises what `refresh` raises.
    """
    asker = _Asker(refresh, interval)
    frame, size = Frame(draw), console.size
    with keys() as typed, _on_screen(frame, console) as live:
        asker.start()
        try:
            while not asker.over.is_set():
                if typed.quit(FRAME_SECONDS):
                    return
                if asker.news.is_set() or console.size != size:
                    asker.news.clear()
                    size = console.size
                    live.refresh()
        finally:
            asker.stop.set()
    if asker.error is not None:
        raise asker.error


@contextlib.contextmanager
def _on_screen(frame: Frame, console: Console) -> Iterator[Live]:
    """The terminal's other screen, with a first drawing on it. Whenever Ctrl-C comes, the terminal is given back: rich
    does not do that for one that comes while it starts."""
    live = Live(frame, console=console, screen=True, auto_refresh=False)
    try:
        with _interrupts_later():
            live.start(refresh=True)
        yield live
    finally:
        with _interrupts_later():
            live.stop()


@contextlib.contextmanager
def _interrupts_later() -> Iterator[None]:
    """Ctrl-C is heard at the end. A mask would not do: another thread may be the one that the signal goes to."""
    came: list[int] = []
    with handled(lambda number, _: came.append(number), signal.SIGINT):
        yield
    if came:
        raise KeyboardInterrupt


class _Asker(threading.Thread):
    def __init__(self, refresh: Callable[[], bool], interval: float):
        super().__init__(daemon=True)
        self._refresh, self._interval = refresh, interval
        self.news, self.over, self.stop = threading.Event(), threading.Event(), threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stop.wait(self._interval):
                over = self._refresh()
                self.news.set()
                if over:
                    break
        except BaseException as error:  # it is raised where the screen is
            self.error = error
        self.over.set()


def job(view: JobView, console: Console, glyphs: Glyphs, foot: str) -> list[Text]:
    """One job and its curves, as they fit beside one another."""
    width, height = console.width, console.height
    view = replace(view, next=())
    head = screen.lines(view, console, glyphs, curves=False)
    drawn = block_chart.worth_drawing(view.learning.curves or {})
    if len(head) > height - (ROOM if drawn else 2):
        view = replace(view, cost=replace(view.cost, recoveries=()))
        head = screen.lines(view, console, glyphs, curves=False, brief=True)
    beside = max(1, min(len(drawn), width // CHART_WIDTH)) if drawn else 1
    lines: list[Text] = []
    room = height - len(head) - 2
    for i in range(0, len(drawn), beside):
        if room < 5:
            break
        tall = min(CHART_HEIGHT, room - 3)
        row = _beside(drawn[i : i + beside], width // beside, tall, glyphs)
        lines += row
        room -= len(row)
    return [*head, *lines, Text(foot, "dim", no_wrap=True, overflow="ellipsis")]


def _beside(charts: Sequence[tuple[str, block_chart.Points]], width: int, height: int, glyphs: Glyphs) -> list[Text]:
    blocks = []
    for name, points in charts:
        title = f"{'':>{block_chart.LABEL}} {name}"
        blocks.append([title, *block_chart.chart(points, width - 2, height, glyphs)])
    tallest = max(len(block) for block in blocks)
    lines = []
    for i in range(tallest):
        line = Text(no_wrap=True)
        for block in blocks:
            part = block[i] if i < len(block) else ""
            line.append(f"{part:<{width}}", "bold" if i == 0 else "cyan" if i <= height else "dim")
        line.rstrip()
        lines.append(line)
    return lines
