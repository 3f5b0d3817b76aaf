"""What a dashboard is, before Grafana's JSON: rows of panels, each with its queries and what bad looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ratchet_monitoring.colors import BLUE, GREEN, ORANGE, PLAIN, RED, YELLOW, Colors

__all__ = ["BLUE", "GREEN", "ORANGE", "PLAIN", "RED", "YELLOW", "Board", "Panel", "Query", "Row", "stat"]

Kind = Literal["lines", "stacked", "stat", "bars", "table"]


@dataclass(frozen=True)
class Query:
    """PromQL, and how its series are called: {{label}} stands for a label. absent: why a run may have none. unit: of a
    column of a table."""

    expr: str
    legend: str = ""
    absent: str = ""
    unit: str = ""

    @property
    def named(self) -> bool:
        """Whether its series are named by their labels, so that there may be several."""
        return "{{" in self.legend


@dataclass(frozen=True)
class Panel:
    """unit: one of Grafana's names of units. bands: colors from a value on, the first from the lowest. width: of 24.
    without_data: why a run may have no data for it, empty if it always has. `bad`: in words, what to look out for.

    colors: of series, by name. low, high: ends of the axis; soft: what the axis shows at least, so that noise is not
    drawn as large as what matters. steps: values hold until the next one. dashed: names of limits, drawn as such.
    trend: a number with its curve behind it.
    """

    title: str
    bad: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Kind = "lines"
    bands: tuple[tuple[float | None, str], ...] = ()
    width: int = 8
    height: int = 8
    low: float | None = None
    high: float | None = None
    decimals: int | None = None
    without_data: str = ""
    colors: Colors = ()
    soft: tuple[float, float] | None = None
    steps: bool = False
    dashed: tuple[str, ...] = ()
    trend: bool = False

    @property
    def over_time(self) -> bool:
        """Whether Prometheus is asked for curves, not for the numbers at the end."""
        return self.kind in ("lines", "stacked") or self.trend


@dataclass(frozen=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Board:
    """A dashboard. of_job: whether it looks at one job, chosen by variables, with its attempts, stages and losses as
    annotations. texts: further variables that are typed in, name -> (label, value)."""

    uid: str
    title: str
    what: str
    rows: tuple[Row, ...]
    of_job: bool = True
    texts: tuple[tuple[str, str, str], ...] = ()
    time: str = "now-3h"

    @property
    def panels(self) -> tuple[Panel, ...]:
        return tuple(panel for row in self.rows for panel in row.panels)


def stat(
    title: str, bad: str, expr: str, *, legend: str = "", unit: str = "short", width: int = 4, **more: object
) -> Panel:
    """One number."""
    return Panel(title, bad, (Query(expr, legend),), unit, "stat", width=width, height=4, **more)  # type: ignore[arg-type]
