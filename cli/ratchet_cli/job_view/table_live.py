"""A table of jobs, live: `watch` without a name, and `top`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from ratchet_cli.job_view import live
from ratchet_cli.job_view.columns import Column, table
from ratchet_cli.job_view.rows import JobRow, Maker, cells, row
from ratchet_cli.kube import Kube, KubeError, jobs


def table_live(
    kube: Kube,
    layout: Sequence[tuple[Column, Maker]],
    all_namespaces: bool,
    deadline: float | None,
    interval: float,
    *,
    key: Callable[[JobRow], Any],
    head: Callable[[Sequence[JobRow]], str] | None = None,
) -> int:
    """Draws until q, Ctrl-C or the deadline; the exit code. Raises KubeError if the first question fails."""
    rows, trouble, timed_out = _rows(kube, all_namespaces, key), "", False

    def refresh() -> bool:
        nonlocal rows, trouble, timed_out
        try:
            rows, trouble = _rows(kube, all_namespaces, key), ""
        except KubeError as error:
            trouble = str(error)
        timed_out = deadline is not None and time.monotonic() >= deadline
        return timed_out

    def draw(console: Console) -> list[Text]:
        lines = table(*cells(layout, rows, namespaces=all_namespaces), console.width)
        above = [Text(head(rows), "bold", no_wrap=True, overflow="ellipsis")] if head is not None else []
        room = console.height - len(above) - 2
        shown = lines[: max(1, room)]
        more = f"   {len(lines) - len(shown)} more jobs below" if len(lines) > len(shown) else ""
        foot = f"no news: {trouble}" if trouble else f"q ends   {datetime.now():%H:%M:%S}{more}"
        return [*above, *shown, Text(foot, "dim", no_wrap=True, overflow="ellipsis")]

    live.run(Console(highlight=False, markup=False, emoji=False), draw, refresh, interval)
    return os.EX_TEMPFAIL if timed_out else os.EX_OK


def _rows(kube: Kube, all_namespaces: bool, key: Callable[[JobRow], Any]) -> list[JobRow]:
    now = datetime.now(UTC)
    return sorted((row(job, now) for job in jobs.every(kube, all_namespaces=all_namespaces)), key=key)
