"""The dashboards: what Grafana needs, what a reader needs, and that every name in them is exported by somebody."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ratchet_api.metrics import METRICS
from ratchet_monitoring.alerts import ALERTS, RECORDING
from ratchet_monitoring.boards import BOARDS
from ratchet_monitoring.generate import generated
from ratchet_monitoring.panel import Board, Panel

NAMES = {name for metric in METRICS for name in metric.series} | set(RECORDING)
COUNTERS = {metric.name for metric in METRICS if metric.kind == "counter"}
HISTOGRAMS = {name for metric in METRICS if metric.kind == "histogram" for name in metric.series}
OF_PROMETHEUS = {"process_resident_memory_bytes"}
PANELS = [pytest.param(panel, id=f"{name}: {panel.title}") for name, board in BOARDS.items() for panel in board.panels]


def boards() -> list[tuple[str, dict[str, Any]]]:
    return [(path.stem, json.loads(text)) for path, text in generated().items() if path.suffix == ".json"]


def test_the_chart_has_what_the_tables_say():
    for path, text in generated().items():
        assert Path(path).read_text() == text, "run: make generate"


@pytest.mark.parametrize("panel", PANELS)
def test_every_panel_says_what_bad_looks_like(panel: Panel):
    assert len(panel.bad) > 20
    assert panel.bad.endswith(".")
    assert panel.queries


@pytest.mark.parametrize("panel", PANELS)
def test_every_name_in_a_query_is_exported(panel: Panel):
    for query in panel.queries:
        found = set(re.findall(r"\b(?:ratchet|process)[_:][a-z0-9_:]+", query.expr))
        assert found, query.expr
        assert found <= NAMES | OF_PROMETHEUS, found - NAMES


@pytest.mark.parametrize("panel", PANELS)
def test_rates_are_taken_of_counters_alone(panel: Panel):
    for query in panel.queries:
        for name in re.findall(r"\b(?:rate|increase)\((\w+)", query.expr):
            assert name in COUNTERS | HISTOGRAMS, name


@pytest.mark.parametrize(("name", "board"), [pytest.param(n, b, id=n) for n, b in BOARDS.items()])
def test_grafana_gets_what_it_needs(name: str, board: Board):
    found = dict(boards())[name]
    assert found["uid"] == board.uid
    assert found["schemaVersion"] >= 39
    panels = [panel for panel in found["panels"] if panel["type"] != "row"]
    assert len(panels) == len(board.panels)
    ids = [panel["id"] for panel in found["panels"]]
    assert len(ids) == len(set(ids))
    for panel in panels:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["gridPos"]["w"] <= 24
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
    variables = [variable["name"] for variable in found["templating"]["list"]]
    used = set(re.findall(r"\$([a-zA-Z_]\w*)", " ".join(q.expr for p in board.panels for q in p.queries)))
    assert used - {"__rate_interval", "__range"} <= set(variables)
    if board.of_job:
        marks = {annotation["name"]: annotation for annotation in found["annotations"]["list"]}
        assert set(marks) >= {"Attempts", "Stages", "Losses"}
        assert all(marks[name]["expr"] for name in ("Attempts", "Stages", "Losses"))


def test_panels_do_not_lie_on_one_another():
    for _, board in boards():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            taken |= cells


def test_every_metric_is_looked_at_somewhere():
    texts = [query.expr for board in BOARDS.values() for panel in board.panels for query in panel.queries]
    everything = " ".join([*texts, *(alert.expr for alert in ALERTS), *RECORDING.values()])
    unseen = {metric.name for metric in METRICS if not re.search(rf"\b{metric.name}(_bucket)?\b", everything)}
    assert unseen <= NOT_SHOWN, unseen - NOT_SHOWN


NOT_SHOWN = {
    "ratchet_start_timestamp_seconds",  # for queries of one's own
    "ratchet_steps_total",  # curves are over time, and ratchet_step has the number
    "ratchet_updates_skipped_total",
}
