"""Asks Prometheus what every panel asks, as Grafana would with its variables filled in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ratchet_monitoring.panel import Board, Panel, Query

Series = list[dict[str, Any]]


@dataclass(frozen=True)
class Window:
    """What is looked at: times in seconds since 1970, and the job. step: seconds between two values of a curve; rates
    are taken over four of them, as Grafana does."""

    start: float
    end: float
    step: float
    namespace: str = ".*"
    job: str = ".*"

    def filled(self, expr: str, texts: tuple[tuple[str, str, str], ...] = ()) -> str:
        """PromQL with the variables of a dashboard replaced."""
        values = {
            "$__rate_interval": f"{round(4 * self.step)}s",
            "$__range": f"{round(self.end - self.start)}s",
            "$__interval": f"{round(self.step)}s",
            "$namespace": self.namespace,
            **{f"${name}": value for name, _, value in texts},
            "$job": self.job,
        }
        for name, value in values.items():
            expr = expr.replace(name, value)
        return expr


@dataclass(frozen=True)
class Answer:
    """What Prometheus says to one query of a panel: curves, or with one value each the numbers at the end."""

    panel: Panel
    query: Query
    series: Series


def answers(
    board: Board,
    window: Window,
    query: Callable[[str, float], Series],
    query_range: Callable[[str, float, float, float], Series],
) -> Iterator[Answer]:
    """The answer to each query of each panel of a dashboard."""
    for panel in board.panels:
        for asked in panel.queries:
            expr = window.filled(asked.expr, board.texts)
            if panel.over_time:
                found = query_range(expr, window.start, window.end, window.step)
            else:
                found = query(expr, window.end)
            yield Answer(panel, asked, found)


def legend(query: Query, labels: dict[str, str]) -> str:
    """How a series is called."""
    text = query.legend
    for name, value in labels.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    return text or ", ".join(f"{k}={v}" for k, v in labels.items() if k != "__name__")
