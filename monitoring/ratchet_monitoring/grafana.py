"""Dashboards as Grafana reads them, by Grafana's own builders (grafana-foundation-sdk).

Decides what a dashboard has around its panels: one data source variable, what is chosen, what is marked on the curves.
How a panel looks is `looks`.
"""

from __future__ import annotations

import json
from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from ratchet_monitoring.looks import SOURCE, panel_of
from ratchet_monitoring.panel import Board
from ratchet_monitoring.selectors import BY_JOB, JOB


def _new(labels: str, taken: str, series: str) -> str:
    """Has a series at the one step before which it was not there, nor in the ten minutes before that: operators come
    and go, too."""
    earlier = f"last_over_time({series}[10m] offset $__interval)"
    return f"{taken.format(labels, series)} unless {taken.format(labels, earlier)}"


def _grown(counter: str) -> str:
    return f"(max by ({BY_JOB}) ({counter}{{{JOB}}}) - max by ({BY_JOB}) ({counter}{{{JOB}}} offset $__interval))"


ANNOTATIONS = (
    # name, color, PromQL, title, whether its value is the time in milliseconds; else it has a series when it happened.
    ("Attempts", "blue", _new(BY_JOB, 'count_values by ({0}) ("attempt", {1})', f"ratchet_attempt{{{JOB}}}"),
     "attempt {{attempt}}", False),
    ("Stages", "green", _new(f"{BY_JOB}, stage", "group by ({0}) ({1})", f"ratchet_info{{{JOB}}}"),
     "stage {{stage}}", False),
    # Verdicts are final minutes later, so the time of a loss is that of the first new step, less what recovering took.
    ("Losses", "red", f"(time() - {_grown('ratchet_recovery_seconds_total')} / ({_grown('ratchet_recoveries_total')} > 0)) * 1000",
     "loss", True),
)  # fmt: skip


def dashboard_json(board: Board) -> str:
    """The JSON that Grafana imports, with a line end."""
    built = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.what)
        .tags(["ratchet"])
        .time(board.time, "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(dashboard.DashboardLink("Ratchet").type(model.DashboardLinkType.DASHBOARDS).tags(["ratchet"])
              .as_dropdown(True).include_vars(True).keep_time(True))
    )  # fmt: skip
    built = built.with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    for variable in _variables(board):
        built = built.with_variable(variable)
    if board.of_job:
        for name, color, expr, *_ in ANNOTATIONS:
            built = built.annotation(
                dashboard.AnnotationQuery().name(name).datasource(SOURCE).enable(True).icon_color(color).expr(expr)
            )
    for row in board.rows:
        built = built.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            built = built.with_panel(panel_of(panel))
    plain = json.loads(json.dumps(built.build(), cls=JSONEncoder))
    for annotation in plain.get("annotations", {}).get("list", []):
        title, value_is_time = next((row[3:] for row in ANNOTATIONS if row[0] == annotation["name"]), ("", False))
        if title:  # entries that the builder does not know
            annotation |= {"titleFormat": title, "step": "15s", "useValueForTime": value_is_time}
    for number, panel in enumerate(plain["panels"], start=1):
        panel["id"] = number
    return json.dumps(plain, indent=1, sort_keys=True) + "\n"


def _variables(board: Board) -> list[Any]:
    def query(name: str, label: str, text: str, many: bool) -> Any:
        variable = (
            dashboard.QueryVariable(name).label(label).datasource(SOURCE).query(text)
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(model.VariableSort.ALPHABETICAL_ASC)
        )  # fmt: skip
        return variable.multi(True).include_all(True).all_value(".*") if many else variable

    found = []
    if board.of_job or any("$namespace" in q.expr for panel in board.panels for q in panel.queries):
        found.append(query("namespace", "Namespace", "label_values(ratchet_phase, job_namespace)", True))
    if board.of_job:
        text = 'label_values(ratchet_phase{job_namespace=~"$namespace"}, job_name)'
        found.append(query("job", "Job", text, False))
    found += [dashboard.TextBoxVariable(name).label(label).default_value(value) for name, label, value in board.texts]
    return found
