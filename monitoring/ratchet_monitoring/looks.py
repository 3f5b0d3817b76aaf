"""How each kind of panel looks in Grafana.

Decides: a description on every panel, thresholds as dashed lines, colors by meaning, a legend only where it says more
than the title, bars from 0.
"""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from ratchet_monitoring.colors import BLUE, GREEN, GREY, PHASES, Colors
from ratchet_monitoring.panel import Panel

SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
KINDS: dict[str, Any] = {
    "lines": timeseries.Panel, "stacked": timeseries.Panel, "stat": stat.Panel, "bars": bargauge.Panel,
    "table": table.Panel,
}  # fmt: skip
OF_JOB = "var-datasource=${datasource}&var-namespace=${__data.fields.namespace}&var-job=${__data.fields.job}&${__url_time_range}"
COLUMNS = ("job_name", "job_namespace", "phase", "reason", "learning")


def panel_of(panel: Panel) -> Any:
    """The builder of a panel."""
    made = KINDS[panel.kind]().title(panel.title).description(panel.bad).datasource(SOURCE)
    made = made.span(panel.width).height(panel.height).unit(panel.unit)
    for index, query in enumerate(panel.queries):
        asked = prometheus.Dataquery().expr(query.expr).ref_id(chr(ord("A") + index)).datasource(SOURCE)
        asked = asked.range() if panel.over_time else asked.instant()
        if panel.kind == "table":
            asked = asked.format(PromQueryFormat.TABLE)
        elif query.legend:
            asked = asked.legend_format(query.legend)
        made = made.with_target(asked)
    low = 0.0 if panel.kind == "bars" else panel.low  # Grafana's bars begin at the least value that they show
    made = made if low is None else made.min(low)
    made = made if panel.high is None else made.max(panel.high)
    made = made if panel.decimals is None else made.decimals(panel.decimals)
    if panel.without_data:
        made = made.no_value(f"no data: {panel.without_data}")
    usual = BLUE if panel.kind == "bars" else GREEN
    steps = [model.Threshold(value=value, color=color) for value, color in panel.bands or ((None, usual),)]
    made = made.thresholds(dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps))
    return _colored(LOOKS[panel.kind](made, panel), panel.colors)


def _colored(made: Any, colors: Colors) -> Any:
    for name, color in colors:
        if name.startswith("/"):  # several series: each gets a shade of it
            made = made.override_by_regexp(name, [_value("color", {"mode": "shades", "fixedColor": color})])
        else:
            made = made.override_by_name(name, [_value("color", {"mode": "fixed", "fixedColor": color})])
    return made


def _value(name: str, value: object) -> model.DynamicConfigValue:
    return model.DynamicConfigValue(id_val=name, value=value)


def _lines(made: Any, panel: Panel) -> Any:
    several = len(panel.queries) > 1 or panel.queries[0].named
    legend = common.VizLegendOptions().show_legend(several).placement(looks.LegendPlacement.BOTTOM)
    made = (
        made.line_width(2).fill_opacity(0 if several else 10).show_points(looks.VisibilityMode.NEVER).span_nulls(False)
        .legend(legend.display_mode(looks.LegendDisplayMode.LIST))
        .tooltip(common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI))
    )  # fmt: skip
    if panel.steps:
        made = made.line_interpolation(looks.LineInterpolation.STEP_AFTER)
    if panel.soft is not None:
        made = made.axis_soft_min(panel.soft[0]).axis_soft_max(panel.soft[1])
    if panel.bands:
        made = made.thresholds_style(common.GraphThresholdsStyleConfig().mode(looks.GraphThresholdsStyleMode.DASHED))
    for name in panel.dashed:
        made = made.override_by_name(
            name,
            [
                _value("custom.lineStyle", {"fill": "dash", "dash": [10, 10]}),
                _value("color", {"mode": "fixed", "fixedColor": GREY}),
            ],
        )
    return made


def _stacked(made: Any, panel: Panel) -> Any:
    stacking = common.StackingConfig().mode(looks.StackingMode.NORMAL)
    return _lines(made, panel).stacking(stacking).fill_opacity(50).line_width(1)


def _stat(made: Any, panel: Panel) -> Any:
    named = bool(panel.queries[0].legend)
    made = made.text_mode(looks.BigValueTextMode.NAME if named else looks.BigValueTextMode.VALUE)
    graph = looks.BigValueGraphMode.AREA if panel.trend else looks.BigValueGraphMode.NONE
    made = made.color_mode(looks.BigValueColorMode.VALUE).graph_mode(graph)
    return made.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))


def _bars(made: Any, panel: Panel) -> Any:
    return (
        made.orientation(looks.VizOrientation.HORIZONTAL).display_mode(looks.BarGaugeDisplayMode.BASIC)
        .name_placement(looks.BarGaugeNamePlacement.LEFT).value_mode(looks.BarGaugeValueMode.TEXT)
        .sizing(looks.BarGaugeSizing.MANUAL).min_viz_height(16).max_viz_height(28).min_viz_width(8)
        .text(common.VizTextDisplayOptions().value_size(14))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )  # fmt: skip


def _table(made: Any, panel: Panel) -> Any:
    """One row a job: the answers of all queries side by side. A query without a legend gives columns, not a value."""
    letters = {f"Value #{chr(ord('A') + i)}": query for i, query in enumerate(panel.queries)}
    hidden = {"Time": True} | {f"Time {i}": True for i in range(1, len(panel.queries) + 1)}
    hidden |= {name: True for name, query in letters.items() if not query.legend}
    names = {name: query.legend for name, query in letters.items() if query.legend}
    names |= {"job_namespace": "namespace", "job_name": "job"}
    order = {name: index for index, name in enumerate((*COLUMNS, *letters))}
    made = made.with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    made = made.with_transformation(
        model.DataTransformerConfig(
            id_val="organize", options={"excludeByName": hidden, "renameByName": names, "indexByName": order}
        )
    )
    for query in panel.queries:
        if query.unit:
            made = made.override_by_name(query.legend, [_value("unit", query.unit)])
    mapped = [
        {"type": "value", "options": {name: {"color": color, "index": i} for i, (name, color) in enumerate(PHASES)}}
    ]
    made = made.override_by_name(
        "phase", [_value("mappings", mapped), _value("custom.cellOptions", {"type": "color-text"})]
    )
    links = [
        {"title": title, "url": f"/d/{uid}?{OF_JOB}"}
        for title, uid in (("Is it learning?", "ratchet-learning"), ("Is it fast?", "ratchet-speed"))
    ]
    return made.override_by_name("job", [_value("links", links)])


LOOKS = {"lines": _lines, "stacked": _stacked, "stat": _stat, "bars": _bars, "table": _table}
