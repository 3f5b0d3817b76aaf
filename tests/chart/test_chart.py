"""What the chart makes: the operator, its rights, its names."""

from __future__ import annotations

import pytest
import yaml
from rendering import CHART, DEFINITION, VALUE_SETS, helm, of_kind, operator_pod, render

from ratchet_api.crd import crd

ROLES = ("Role", "ClusterRole")


def environment(documents) -> dict[str, str | None]:
    (container,) = operator_pod(documents)["spec"]["containers"]
    return {variable["name"]: variable.get("value") for variable in container["env"]}


def rules(documents, kinds=ROLES) -> list[dict]:
    return [rule for kind in kinds for role in of_kind(documents, kind) for rule in role["rules"]]


def test_the_crd_is_the_one_made_from_the_types():
    (found,) = of_kind(render(), DEFINITION)
    assert found["spec"] == crd()["spec"]
    assert found["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert of_kind(render("crds.install=false"), DEFINITION) == []
    (found,) = of_kind(render("crds.keep=false"), DEFINITION)
    assert "annotations" not in found["metadata"]


def test_the_operator_runs_restricted_and_off_spot_nodes():
    pod = operator_pod(render())["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert {"key": "cloud.google.com/gke-spot", "operator": "DoesNotExist"} in term["matchExpressions"]


@pytest.mark.parametrize("name", VALUE_SETS)
def test_no_rule_has_a_wildcard_nor_touches_secrets(name):
    for rule in rules(render(values=VALUE_SETS[name])):
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
        assert not {"secrets", "pods/exec", "serviceaccounts/token"} & set(rule["resources"])


def test_watching_two_namespaces_gives_rights_in_those_alone():
    documents = render("watchNamespaces={a,b}")
    jobs = [r for r in of_kind(documents, "Role") if any("jobsets" in rule["resources"] for rule in r["rules"])]
    assert {role["metadata"]["namespace"] for role in jobs} == {"a", "b"}
    assert not [rule for rule in rules(documents, ["ClusterRole"]) if "pods" in rule["resources"]]
    assert environment(documents)["RATCHET_WATCH_NAMESPACES"] == "a,b"


def test_the_namespaced_values_make_nothing_outside_of_namespaces():
    documents = render(values=VALUE_SETS["namespaced"])
    assert {it["metadata"]["namespace"] for it in documents} == {"system", "team-a", "team-b"}


def test_the_operator_is_told_what_jobs_may_have():
    env = environment(render("trainer.localDirectory=/mnt/ssd0", "trainer.serviceAccounts={a,b}"))
    assert (env["RATCHET_LOCAL_DIRECTORY"], env["RATCHET_SERVICE_ACCOUNTS"]) == ("/mnt/ssd0", "a,b")


def test_the_operator_is_told_as_whom_trainers_run():
    env = environment(render())
    assert (env["RATCHET_RUN_AS_USER"], env["RATCHET_RUN_AS_GROUP"]) == ("10001", "10001")
    assert (env["RATCHET_ALLOW_ROOT"], env["RATCHET_READ_ONLY_ROOT"]) == ("false", "true")
    env = environment(render("trainer.runAsUser=1000730000", "trainer.allowRoot=true"))
    assert (env["RATCHET_RUN_AS_USER"], env["RATCHET_ALLOW_ROOT"]) == ("1000730000", "true"), "no exponent"


def test_an_image_is_named_by_tag_by_digest_or_by_the_version():
    digest = "sha256:" + "0" * 64

    def image(*settings: str) -> str:
        return operator_pod(render(*settings))["spec"]["containers"][0]["image"]

    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert image("image.repository=r/o") == f"r/o:{version}"
    assert image("image.repository=r/o", "image.tag=v2") == "r/o:v2"
    assert image("image.repository=r/o", "image.tag=v2", f"image.digest={digest}") == f"r/o:v2@{digest}"


def test_the_priority_class_is_the_one_given_else_the_charts_own_else_none():
    def chosen(*settings: str) -> str | None:
        return operator_pod(render(*settings))["spec"].get("priorityClassName")

    assert chosen() is None
    assert chosen("priorityClass.create=true") == "r-ratchet"
    assert chosen("priorityClass.create=true", "priorityClassName=ours") == "ours"


def test_workers_get_the_priority_class_given_else_the_charts_own_else_none():
    def chosen(*settings: str) -> str:
        (container,) = operator_pod(render(*settings))["spec"]["containers"]
        return next(e["value"] for e in container["env"] if e["name"] == "RATCHET_WORKER_PRIORITY_CLASS")

    assert chosen() == ""
    assert chosen("rollouts.priorityClass.create=true") == "r-ratchet-workers"
    assert chosen("rollouts.priorityClass.create=true", "rollouts.priorityClassName=ours") == "ours"
    made = [d for d in render("rollouts.priorityClass.create=true") if d["kind"] == "PriorityClass"]
    assert [(d["metadata"]["name"], d["value"]) for d in made] == [("r-ratchet-workers", -100)]


@pytest.mark.parametrize("name", VALUE_SETS)
def test_every_object_has_the_labels_that_kubernetes_recommends(name):
    wanted = {f"app.kubernetes.io/{key}" for key in ("name", "instance", "component", "part-of", "version")}
    for document in render(values=VALUE_SETS[name]):
        labels = document["metadata"]["labels"]
        assert wanted | {"app.kubernetes.io/managed-by", "helm.sh/chart"} <= labels.keys()
        assert document["metadata"]["name"]


def test_nothing_else_has_the_labels_that_select_the_operators_pods():
    """A Service or a disruption budget that took the pod of `helm test` for a replica would send nobody anywhere."""
    documents = render(values=VALUE_SETS["full"])
    (deployment,) = of_kind(documents, "Deployment")
    selector = deployment["spec"]["selector"]["matchLabels"].items()
    (test_pod,) = of_kind(documents, "Pod")
    assert not selector <= test_pod["metadata"]["labels"].items()
    assert selector <= deployment["spec"]["template"]["metadata"]["labels"].items()
    for kind in ("Service", "PodDisruptionBudget"):
        for it in of_kind(documents, kind):
            found = it["spec"]["selector"].get("matchLabels", it["spec"]["selector"])
            assert found.items() == selector


def test_an_old_kubernetes_is_refused():
    done = helm("template", "r", CHART, "--kube-version", "1.32.0")
    assert done.returncode != 0
    assert "1.33" in done.stderr
