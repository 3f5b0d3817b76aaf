"""`helm test` where an installation does not work, and what the notes warn of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from checking import check
from rendering import CHART, VALUE_SETS, helm

from ratchet_operator import installation_check

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def test_where_nothing_is_installed_the_check_says_what_is_missing(api_server, namespace):
    done = check(api_server, namespace)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[:2] == ["ok   RLTrainingJob is served", "ok   JobSet is served"]
    assert f"FAIL Lease {namespace}/ratchet-operator is held: there is no Lease ratchet-operator" in lines[2]
    assert "there is no pod of the operator" in lines[3]
    assert done.stderr == ""


def test_without_an_api_server_the_check_says_so_in_a_line(api_server, namespace, tmp_path):
    (tmp_path / "config").write_text(
        api_server.kubeconfig.read_text().replace(api_server.plane.server, "https://127.0.0.1:9")
    )
    done = check(api_server, namespace, KUBECONFIG=str(tmp_path / "config"))
    assert (done.returncode, done.stderr) == (1, "")
    (line,) = done.stdout.splitlines()
    assert line.startswith("FAIL the API server answers: GET ")
    done = check(api_server, namespace, KUBECONFIG=str(tmp_path / "none"), HOME=str(tmp_path))
    assert (done.returncode, done.stderr) == (1, "")
    assert "set KUBECONFIG" in done.stdout


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"holderIdentity": "a", "renewTime": NOW - timedelta(seconds=5), "leaseDurationSeconds": 15}, None),
        ({"holderIdentity": "a", "renewTime": NOW - timedelta(seconds=20), "leaseDurationSeconds": 15}, "for 20 s"),
        ({"holderIdentity": "", "renewTime": NOW, "leaseDurationSeconds": 15}, "nobody holds"),
        ({}, "nobody holds"),
    ],
)
def test_a_lease_is_held_by_somebody_who_renews_it(spec, words):
    given = {key: value.isoformat() if isinstance(value, datetime) else value for key, value in spec.items()}
    found = installation_check.lease_problem({"spec": given}, NOW)
    assert found is None if words is None else words in found


def test_replicas_that_are_not_well_are_named():
    said = installation_check.pods_problem([{}, {}], {"a": "ok", "b": "no heartbeat for 40 s"})
    assert said == "not healthy: b: no heartbeat for 40 s"
    assert installation_check.pods_problem([{}], {"a": "ok"}) is None


def notes(*flags: str) -> str:
    done = helm("install", "r", CHART, "--namespace", "system", "--dry-run=client", *flags)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("NOTES:")[1]


def test_the_notes_name_the_next_two_commands_and_what_the_cluster_lacks():
    said = notes()
    assert "kubectl apply -f job.yaml" in said
    assert "kubectl get rlj -w" in said
    assert "helm test r --namespace system" in said
    assert "WARNING: this cluster has no JobSet" in said
    assert "WARNING: this cluster has no Prometheus operator" in said
    assert said.count("WARNING") == 2


def test_the_notes_warn_of_what_the_values_leave_open():
    assert "no NetworkPolicy protects trainers" in notes("--set", "networkPolicy.enabled=true")
    assert "no NetworkPolicy" not in notes("--values", str(VALUE_SETS["namespaced"]))
    assert "deletes every RLTrainingJob" in notes("--set", "crds.keep=false")
    forced = notes("--values", str(VALUE_SETS["monitoring"]))
    assert "Prometheus operator" not in forced
