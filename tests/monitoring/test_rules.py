"""The rules, judged by the real promtool: each alert fires on its example, and stays quiet on the other."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ratchet_cluster.build import PROMETHEUS, ensure_binaries
from ratchet_monitoring import alerts
from ratchet_monitoring.alerts import ALERTS, RUNBOOKS

ROOT = Path(__file__).parents[2]
RULES = ROOT / "helm/ratchet/files/rules.yaml"
FOLDER = ROOT / "docs/runbooks"
PARTS = ("## Meaning", "## Impact", "## Diagnosis", "## Mitigation")


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = ensure_binaries(recipe=PROMETHEUS) / "promtool"
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=120)


def written(folder: Path, rules: Path) -> Path:
    path = folder / "test.yaml"
    path.write_text(yaml.safe_dump(alerts.rule_tests(str(rules))))
    return path


def test_promtool_finds_nothing_wrong_in_the_rules():
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_on_its_example_and_stays_quiet_on_the_other(tmp_path: Path):
    done = promtool("test", "rules", written(tmp_path, RULES))
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_alert_that_never_fires_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    broken = (replace(ALERTS[0], expr="ratchet_leader > 9"), *ALERTS[1:])
    monkeypatch.setattr(alerts, "ALERTS", broken)
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump(alerts.rule_groups()))
    done = promtool("test", "rules", written(tmp_path, rules))
    assert done.returncode != 0
    assert ALERTS[0].name in done.stdout + done.stderr


def test_every_alert_has_a_runbook_and_every_runbook_an_alert():
    assert {path.stem for path in FOLDER.glob("*.md")} == {alert.name for alert in ALERTS}
    for alert in ALERTS:
        text = (FOLDER / f"{alert.name}.md").read_text()
        assert text.startswith(f"# {alert.name}\n")
        places = [text.index(part) for part in PARTS]
        assert places == sorted(places)
    rules = yaml.safe_load(RULES.read_text())
    found = [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    assert {rule["annotations"]["runbook_url"] for rule in found} == {f"{RUNBOOKS}/{a.name}.md" for a in ALERTS}
    assert {rule["labels"]["severity"] for rule in found} <= {"critical", "warning", "info"}
