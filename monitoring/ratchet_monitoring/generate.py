"""Writes dashboards and rules into the chart: `python -m ratchet_monitoring.generate`."""

from __future__ import annotations

from pathlib import Path

import yaml

from ratchet_monitoring.alerts import rule_groups

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "helm/ratchet/files"


def generated() -> dict[Path, str]:
    """File -> what it has to hold."""
    from ratchet_monitoring.boards import BOARDS
    from ratchet_monitoring.grafana import dashboard_json

    head = "# Made by `make generate` from monitoring/ratchet_monitoring/alerts.py; do not edit.\n"
    rules = head + yaml.safe_dump(rule_groups(), sort_keys=False, width=1000)
    boards = {FILES / f"dashboards/{name}.json": dashboard_json(board) for name, board in BOARDS.items()}
    return {FILES / "rules.yaml": rules, **boards}


if __name__ == "__main__":
    for path, text in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
