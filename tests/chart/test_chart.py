"""The chart, judged by the real helm: what it renders, what it refuses, what it may do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from ratchet_api.crd import crd
from ratchet_cluster.build import ensure_binaries

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/ratchet"


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ensure_binaries() / "helm", *arguments], capture_output=True, text=True)


def render(*settings: str) -> list[dict]:
    flags = [part for setting in settings for part in ("--set", setting)]
    done = helm("template", "r", str(CHART), "--namespace", "system", "--kube-version", "1.36.3", *flags)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def of_kind(documents: list[dict], kind: str) -> list[dict]:
    return [document for document in documents if document["kind"] == kind]


def test_lint_finds_nothing():
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout


def test_the_crd_is_the_one_made_from_the_types():
    (found,) = of_kind(render(), "CustomResourceDefinition")
    assert found["spec"] == crd()["spec"]
    assert found["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert of_kind(render("crds.install=false"), "CustomResourceDefinition") == []


def test_the_operator_runs_restricted_and_off_spot_nodes():
    (deployment,) = of_kind(render(), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert {"key": "cloud.google.com/gke-spot", "operator": "DoesNotExist"} in term["matchExpressions"]


def test_no_rule_has_a_wildcard_nor_touches_secrets():
    rules = [rule for role in of_kind(render(), "ClusterRole") + of_kind(render(), "Role") for rule in role["rules"]]
    assert rules
    for rule in rules:
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
        assert not {"secrets", "pods/exec", "serviceaccounts/token"} & set(rule["resources"])


def test_watching_two_namespaces_gives_rights_in_those_alone():
    documents = render("watchNamespaces={a,b}")
    jobs = [r for r in of_kind(documents, "Role") if any("pods" in rule["resources"] for rule in r["rules"])]
    assert {role["metadata"]["namespace"] for role in jobs} == {"a", "b"}
    cluster_wide = [rule for role in of_kind(documents, "ClusterRole") for rule in role["rules"]]
    assert not [rule for rule in cluster_wide if "pods" in rule["resources"]]
    (deployment,) = of_kind(documents, "Deployment")
    env = {e["name"]: e.get("value") for e in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["RATCHET_WATCH_NAMESPACES"] == "a,b"


def test_the_operator_is_told_what_jobs_may_have():
    (deployment,) = of_kind(render("trainer.localDirectory=/mnt/ssd0", "trainer.serviceAccounts={a,b}"), "Deployment")
    env = {e["name"]: e.get("value") for e in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert (env["RATCHET_LOCAL_DIRECTORY"], env["RATCHET_SERVICE_ACCOUNTS"]) == ("/mnt/ssd0", "a,b")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("replicas=2", "replicas"),
        ("replicaCount=two", "replicaCount"),
        ("metrics.port=80", "metrics"),
        ("image.tga=x", "tga"),
        ("trainer.localDirectory=ssd0", "localDirectory"),
    ],
)
def test_a_wrong_value_is_refused_by_name(setting, words):
    done = helm("template", "r", str(CHART), "--kube-version", "1.36.3", "--set", setting)
    assert done.returncode != 0
    assert words in done.stderr


def test_an_old_kubernetes_is_refused():
    done = helm("template", "r", str(CHART), "--kube-version", "1.32.0")
    assert done.returncode != 0
    assert "1.33" in done.stderr
