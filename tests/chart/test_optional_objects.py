"""What is made only where the cluster or a value asks for it: monitors, alerts, dashboards, policies, the test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from rendering import CHART, Raw, of_kind, render, template

from ratchet_api import protocol

PROMETHEUS = "monitoring.coreos.com/v1"
GOOGLE = "monitoring.googleapis.com/v1"
DASHBOARD = '{"title": "Fleet", "legendFormat": "{{job_name}}", "text": "{{ .Values.nothing }}"}\n'
RULES = """# Alerts.
groups:
- name: ratchet
  rules:
  - alert: RatchetOperatorDown
    expr: absent(ratchet_leader == 1)
    for: 5m
    annotations:
      summary: 'nobody leads {{ $labels.job_name }}, {{ printf "%.0f" $value }} lost'
"""
SWITCHES = {
    # kind -> (value that switches it, API version that `auto` asks for)
    "ServiceMonitor": ("metrics.serviceMonitor.enabled", PROMETHEUS),
    "PodMonitor": ("metrics.podMonitor.enabled", PROMETHEUS),
    "PrometheusRule": ("metrics.prometheusRule.enabled", PROMETHEUS),
    "ConfigMap": ("dashboards.enabled", PROMETHEUS),
    "ClusterPodMonitoring": ("metrics.podMonitoring.enabled", GOOGLE),
}


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the chart with a dashboard and a rule of our own: what is in the files is not the chart's matter."""
    copy = tmp_path_factory.mktemp("chart") / "ratchet"
    shutil.copytree(CHART, copy)
    shutil.rmtree(copy / "files/dashboards", ignore_errors=True)
    (copy / "files/dashboards").mkdir()
    (copy / "files/dashboards/fleet.json").write_text(DASHBOARD)
    (copy / "files/rules.yaml").write_text(RULES)
    return copy


def kinds(documents: list[Raw]) -> set[str]:
    return {document["kind"] for document in documents} & SWITCHES.keys()


@pytest.mark.parametrize("kind", SWITCHES)
def test_auto_follows_the_cluster_true_forces_and_false_forbids(chart, kind):
    value, version = SWITCHES[kind]
    asked = ("--api-versions", version)
    assert kind not in kinds(render(f"{value}=auto", chart=chart))
    assert kind in kinds(render(f"{value}=auto", chart=chart, flags=asked))
    assert kind in kinds(render(f"{value}=true", chart=chart))
    assert kind not in kinds(render(f"{value}=false", chart=chart, flags=asked))


def test_google_is_told_of_nothing_unless_asked():
    assert kinds(render(flags=("--api-versions", GOOGLE))) == set()


def test_dashboards_and_rules_arrive_as_they_are_braces_included(chart):
    documents = render("dashboards.enabled=true", "metrics.prometheusRule.enabled=true", chart=chart)
    (dashboard,) = of_kind(documents, "ConfigMap")
    assert dashboard["data"] == {"ratchet-fleet.json": DASHBOARD}
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboard["metadata"]["annotations"] == {"grafana_folder": "Ratchet"}
    (rule,) = of_kind(documents, "PrometheusRule")
    assert rule["spec"] == yaml.safe_load(RULES)


def test_the_sidecar_may_look_for_other_marks(chart):
    (it,) = of_kind(
        render(
            "dashboards.enabled=true", "dashboards.namespace=monitoring", "dashboards.label=board",
            "dashboards.labelValue=yes", "dashboards.folderAnnotation=place", "dashboards.folder=Training", chart=chart,
        ),
        "ConfigMap",
    )  # fmt: skip
    assert (it["metadata"]["namespace"], it["metadata"]["labels"]["board"]) == ("monitoring", "yes")
    assert it["metadata"]["annotations"] == {"place": "Training"}


def test_without_files_there_are_neither_dashboards_nor_rules(chart, tmp_path):
    bare = tmp_path / "ratchet"
    shutil.copytree(chart, bare)
    shutil.rmtree(bare / "files/dashboards")
    (bare / "files/rules.yaml").unlink()
    settings = ("dashboards.enabled=true", "metrics.prometheusRule.enabled=true")
    assert kinds(render(*settings, chart=bare)) == set()


def test_rules_without_groups_are_refused_by_the_name_of_the_file(chart, tmp_path):
    broken = tmp_path / "ratchet"
    shutil.copytree(chart, broken)
    (broken / "files/rules.yaml").write_text("- name: no mapping\n")
    done = template("--set", "metrics.prometheusRule.enabled=true", chart=broken)
    assert done.returncode != 0
    assert "files/rules.yaml has no list `groups`" in done.stderr


def test_the_real_dashboards_and_rules_are_what_the_chart_delivers():
    documents = render("dashboards.enabled=true", "metrics.prometheusRule.enabled=true")
    found = {name: text for it in of_kind(documents, "ConfigMap") for name, text in it["data"].items()}
    files = sorted((CHART / "files").glob("dashboards/*.json"))
    assert found == {f"ratchet-{path.name}": path.read_text() for path in files}
    rules = CHART / "files/rules.yaml"
    assert len(of_kind(documents, "PrometheusRule")) == rules.exists()
    for it in of_kind(documents, "PrometheusRule"):
        assert it["spec"] == yaml.safe_load(rules.read_text())


def test_the_pod_monitor_follows_the_watched_namespaces():
    def where(*settings: str) -> Raw:
        (it,) = of_kind(render("metrics.podMonitor.enabled=true", *settings), "PodMonitor")
        return it["spec"]["namespaceSelector"]

    assert where() == {"any": True}
    assert where("watchNamespaces={a,b}") == {"matchNames": ["a", "b"]}


def test_google_sees_trainers_of_each_watched_namespace_else_of_all():
    def made(*settings: str) -> list[tuple[str, str]]:
        documents = render("metrics.podMonitoring.enabled=true", *settings)
        google = [it for it in documents if it["apiVersion"] == GOOGLE]
        return sorted((it["kind"], it["metadata"].get("namespace", "")) for it in google)

    assert made() == [("ClusterPodMonitoring", ""), ("PodMonitoring", "system")]
    assert made("watchNamespaces={a,b}") == [("PodMonitoring", name) for name in ("a", "b", "system")]


def policies(*settings: str) -> dict[tuple[str, str], Raw]:
    found = of_kind(render("networkPolicy.enabled=true", *settings), "NetworkPolicy")
    return {(it["metadata"]["namespace"], it["metadata"]["name"]): it["spec"] for it in found}


def test_network_policies_are_made_only_when_asked_for():
    assert of_kind(render(), "NetworkPolicy") == []
    assert policies().keys() == {("system", "r-ratchet"), ("system", "r-ratchet-test")}
    names = {("a", "r-ratchet-trainers"), ("b", "r-ratchet-trainers")}
    assert names <= policies("watchNamespaces={a,b}").keys()
    assert ("c", "r-ratchet-trainers") in policies("networkPolicy.trainers.namespaces={c}")


def test_progress_is_for_the_operator_alone_and_trainers_reach_one_another_elsewhere():
    spec = policies("watchNamespaces={a}")["a", "r-ratchet-trainers"]

    def senders(port: int) -> list[Raw]:
        return [
            peer
            for rule in spec["ingress"]
            if any(it["port"] <= port <= it.get("endPort", it["port"]) for it in rule["ports"])
            for peer in rule["from"]
        ]

    trainer = {"matchExpressions": [{"key": protocol.LABEL_JOB, "operator": "Exists"}]}
    assert spec["podSelector"] == trainer
    (operator,) = senders(protocol.PORT)
    assert operator["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "system"}
    assert operator["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] == "r"
    for port in (protocol.COORDINATOR_PORT, protocol.COORDINATOR_PORT + 1, 8080, 8471, 40000):
        assert senders(port) == [{"podSelector": trainer}]
    (monitoring,) = senders(protocol.PORT + 1)
    assert monitoring["namespaceSelector"]["matchExpressions"][0]["values"] == ["monitoring", "gmp-system"]


def test_the_operator_reaches_dns_the_api_server_and_trainers_and_nothing_else():
    spec = policies("watchNamespaces={a}", "networkPolicy.operator.apiServerCIDRs={10.0.0.1/32}")["system", "r-ratchet"]
    dns, server, trainers = spec["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert server["to"] == [{"ipBlock": {"cidr": "10.0.0.1/32"}}]
    assert trainers["ports"] == [{"protocol": "TCP", "port": protocol.PORT}]
    (peer,) = trainers["to"]
    assert peer["namespaceSelector"]["matchExpressions"][0]["values"] == ["a"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert [port["port"] for rule in spec["ingress"] for port in rule["ports"]] == ["metrics"]


def test_the_test_pod_can_be_left_out():
    assert of_kind(render("tests.enabled=false"), "Pod") == []
    assert [it["metadata"]["annotations"]["helm.sh/hook"] for it in of_kind(render(), "Pod")] == ["test"]
