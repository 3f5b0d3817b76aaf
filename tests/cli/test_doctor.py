"""`ratchet doctor`: each finding both ways, most of them on a real API server."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from ratchet_api.crd import crd
from ratchet_api.job import RLTrainingJob
from ratchet_cli.doctor.check import Check
from ratchet_cli.doctor.command import lines
from ratchet_cli.main import main
from ratchet_cluster.build import ensure_binaries
from ratchet_operator.checks import installation, objects, queues, rights, running

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def doctor(*arguments: str, **environment: str) -> tuple[int, str, dict[str, Any]]:
    """Exit code, output on one line, and what `--json` has."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "found.json")
        asked = ["doctor", "--json", str(out), *arguments]
        done = CliRunner().invoke(main, asked, env={"COLUMNS": "200", **environment})
        found = json.loads(out.read_text()) if out.exists() else {}
    return done.exit_code, " ".join(done.output.split()), found


def about(found: dict[str, Any], name: str) -> list[dict[str, str]]:
    return [check for check in found["checks"] if check["about"].startswith(name)]


def kubeconfig(api_server: Any, tmp_path: Path, **change: Any) -> str:
    """The cluster's kubeconfig with another server or other credentials."""
    said = json.loads(api_server.kubectl("config", "view", "--raw", "-o", "json"))
    if "server" in change:
        said["clusters"][0]["cluster"]["server"] = change["server"]
    if "token" in change:
        said["users"][0]["user"] = {"token": change["token"]}
    (tmp_path / "kubeconfig").write_text(json.dumps(said))
    return str(tmp_path / "kubeconfig")


@pytest.fixture
def nobody(api_server, namespace, tmp_path) -> str:
    """A kubeconfig of a service account without any right."""
    api_server.kubectl("create", "serviceaccount", "nobody", "-n", namespace)
    token = api_server.kubectl("create", "token", "nobody", "-n", namespace).strip()
    return kubeconfig(api_server, tmp_path, token=token)


def test_this_machine_has_what_the_demo_needs():
    code, said, found = doctor("--local")
    assert code == 0, said
    assert about(found, "jax")[0]["state"] == "ok"
    assert {check["area"] for check in found["checks"]} == {"this machine"}


def test_without_kubectl_the_way_to_one_is_said(tmp_path):
    code, _, found = doctor(PATH=str(tmp_path))
    assert code == 1
    (kubectl,) = about(found, "kubectl")
    assert kubectl["state"] == "error"
    assert "ratchet cluster env" in kubectl["mend"]
    (go,) = about(found, "local control plane")
    assert go["state"] == "warning", "who asks about a cluster needs no Go"
    assert "Go" in go["mend"]
    code, _, found = doctor("--local", PATH=str(tmp_path))
    assert about(found, "git")[0]["state"] == "warning"


def test_no_kubeconfig_a_wrong_context_and_a_dead_server(api_server, tmp_path):
    env = dict(api_server.env())
    _, said, found = doctor(**env | {"KUBECONFIG": str(tmp_path / "none")})
    assert "the kubeconfig names no current context" in said
    assert found["errors"] == 1
    code, said, _ = doctor("--context", "nope", **env)
    assert code == 1
    assert "has no context nope; there is" in said
    _, said, _ = doctor(**env | {"KUBECONFIG": kubeconfig(api_server, tmp_path, server="https://127.0.0.1:1")})
    assert "no API server answers" in said
    _, said, _ = doctor(**env | {"KUBECONFIG": kubeconfig(api_server, tmp_path, token="expired")})
    assert "the API server does not know you" in said
    assert "get-credentials" in said


def test_a_cluster_with_the_kinds_and_without_an_operator(api_server, namespace):
    code, _, found = doctor("-n", namespace, **api_server.env())
    assert about(found, "context")[0]["state"] == "ok"
    assert [c["state"] for c in about(found, "kind")] == ["ok", "ok"]
    assert about(found, "you")[0]["state"] == "ok"
    assert about(found, "operator")[0]["state"] == "error"
    assert about(found, "operator")[0]["mend"].startswith("helm install ratchet")
    assert code == 1


def test_an_operator_with_a_fresh_lease_is_at_work(api_server, namespace):
    def lease(renewed: datetime) -> None:
        spec = {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": f"{renewed:%Y-%m-%dT%H:%M:%S.000000Z}"}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "ratchet-operator"}}
        api_server.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(body | {"spec": spec}))

    lease(datetime.now(UTC) + timedelta(minutes=3))  # a slow machine must not make it old
    assert about(doctor("-n", namespace, **api_server.env())[2], "operator")[0]["state"] == "ok"
    lease(datetime.now(UTC) - timedelta(hours=1))
    assert about(doctor("-n", namespace, **api_server.env())[2], "operator")[0]["state"] == "error"


def test_who_may_do_nothing_is_told_what_is_missing_and_what_gives_it(api_server, namespace, nobody):
    env = dict(api_server.env()) | {"KUBECONFIG": nobody}
    code, _, found = doctor("-n", namespace, **env)
    assert code == 1
    needed, *lost = about(found, "you")
    assert needed["state"] == "error"
    assert "may not get rltrainingjobs.ratchet.dev, list rltrainingjobs.ratchet.dev" in needed["said"]
    assert {check["state"] for check in lost} == {"warning"}
    assert "cannot be listed" in about(found, "nodes")[0]["said"]
    assert {c["state"] for c in about(found, "kind")} == {"ok"}, "everybody may ask what is served"
    api_server.kubectl("create", "role", "jobs", "-n", namespace, "--verb=*", "--resource=rltrainingjobs.ratchet.dev")
    account = f"--serviceaccount={namespace}:nobody"
    api_server.kubectl("create", "rolebinding", "jobs", "-n", namespace, "--role=jobs", account)
    lost = about(doctor("-n", namespace, **env)[2], "you")
    assert {check["state"] for check in lost} == {"warning"}, "pods and events are still not his"


def manifest(tmp_path: Path, **spec: Any) -> str:
    said = yaml.safe_load((ROOT / "examples/sums.yaml").read_text())
    said["spec"] |= spec
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(said))
    return str(file)


def test_what_a_manifest_names_is_looked_for(api_server, namespace, tmp_path):
    file = manifest(
        tmp_path,
        podTemplate={"serviceAccountName": "trainer"},
        jobSetTemplate={"labels": {"kueue.x-k8s.io/queue-name": "team"}},
    )
    code, _, found = doctor(file, "-n", namespace, **api_server.env())
    assert code == 1
    states = {name: about(found, name)[0] for name in ("queue", "persistentvolumeclaim", "serviceaccount", "placement")}
    assert {check["state"] for check in states.values()} == {"error"}
    assert "Kueue is not installed" in states["queue"]["said"]
    assert "node-pools create" in states["placement"]["mend"]
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "checkpoints"},
             "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "none",
                      "resources": {"requests": {"storage": "1Gi"}}}}  # fmt: skip
    api_server.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(claim))
    api_server.kubectl("create", "serviceaccount", "trainer", "-n", namespace)
    _, _, found = doctor(file, "-n", namespace, **api_server.env())
    assert about(found, "serviceaccount") == []
    pending, shared = about(found, "persistentvolumeclaim")
    assert (pending["state"], shared["state"]) == ("warning", "error")
    assert "ReadWriteOnce, and 2 hosts write to it" in shared["said"]


def test_a_bucket_that_cannot_be_reached_is_told_before_any_pod(tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "x")
    file = manifest(tmp_path, checkpoint={"directory": "gs://bucket/sums", "everySteps": 10})
    code, _, found = doctor("--local", file)
    assert code == 1
    assert "gs://bucket/sums cannot be read from this machine" in about(found, "checkpoints")[0]["said"]
    file = manifest(tmp_path, checkpoint={"directory": "/somewhere", "everySteps": 10})
    assert "without a claim" in about(doctor("--local", file)[2], "checkpoints")[0]["said"]


def test_a_manifest_with_problems_is_no_question_for_a_cluster(tmp_path):
    (tmp_path / "job.yaml").write_text("kind: RLTrainingJob\napiVersion: ratchet.dev/v1alpha1\nmetadata: {name: x}\n")
    assert doctor(str(tmp_path / "job.yaml"))[0] == 65
    assert doctor(str(tmp_path / "none.yaml"))[0] == 66


# --- versions of the definition -------------------------------------------------------------------------------------


def test_the_installed_definition_is_compared_field_by_field(api_server):
    installed = json.loads(api_server.kubectl("get", "crd", "rltrainingjobs.ratchet.dev", "-o", "json"))
    assert installation.differences(installed, crd()) == []
    fields = installed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    del fields["evaluations"]
    fields["sparkle"] = {"type": "object", "properties": {"inside": {"type": "string"}}}
    older, newer = installation.differences(installed, crd())
    assert "older than this program: it lacks spec.evaluations" in str(older)
    assert "ratchet crd" in older.mend
    assert str(newer).startswith("warning")
    assert newer.wrong.endswith("it has spec.sparkle, too")


# --- the operator ---------------------------------------------------------------------------------------------------


def deployment(ready: int = 2, replicas: int = 2, version: str = "0.1.0") -> dict[str, Any]:
    image = {"containers": [{"image": f"ghcr.io/x/ratchet:{version}"}]}
    return {"metadata": {"name": "ratchet", "namespace": "sys"}, "status": {"readyReplicas": ready},
            "spec": {"replicas": replicas, "template": {"spec": image}}}  # fmt: skip


def lease(age: float = 3.0, holder: str | None = "a") -> dict[str, Any]:
    renewed = (NOW - timedelta(seconds=age)).isoformat().replace("+00:00", "Z")
    return {"metadata": {"name": "ratchet-operator", "namespace": "sys"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed}}  # fmt: skip


WAITING = {
    "metadata": {"name": "ratchet-1"},
    "status": {
        "containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]
    },
}


@pytest.mark.parametrize(
    ("deployments", "pods", "leases", "words"),
    [
        ([deployment()], [], [lease()], None),
        ([], [], [lease()], None),
        ([], [], [], "error: operator: there is no Deployment"),
        ([], [], [lease(age=600)], "error: operator: there is no Deployment"),
        ([deployment(replicas=0, ready=0)], [], [lease()], "scaled to 0 replicas; kubectl scale deployment ratchet"),
        ([deployment(ready=0)], [WAITING], [lease()], "pod ratchet-1 waits: ImagePullBackOff: no such image"),
        ([deployment(ready=0)], [], [lease()], "none of its pods is ready"),
        ([deployment(ready=1)], [], [lease()], "warning: operator sys/ratchet: 1 of 2 pods are ready"),
        ([deployment(version="0.0.9")], [], [lease()], "it is version 0.0.9, this program is 0.1.0"),
        ([deployment()], [], [], "error: Lease sys/ratchet-operator: there is none"),
        ([deployment()], [], [lease(age=600)], "nobody has renewed it for 600 s"),
        ([deployment()], [], [lease(holder=None)], "nobody holds it"),
    ],
)
def test_what_keeps_the_operator_from_working(deployments, pods, leases, words):
    found = [str(finding) for finding in running.findings(deployments, pods, leases, "0.1.0", NOW)]
    assert (found == []) if words is None else (len(found) == 1 and words in found[0]), found


# --- queues, objects, rights ----------------------------------------------------------------------------------------

LOCAL = {"metadata": {"name": "team"}, "spec": {"clusterQueue": "all"}}
ABOVE = {"metadata": {"name": "all"}, "status": {"conditions": [{"type": "Active", "status": "True"}]}}
IDLE = {"metadata": {"name": "all"}, "status": {"conditions": [{"type": "Active", "status": "False", "message": "m"}]}}


@pytest.mark.parametrize(
    ("queue", "local", "above", "words"),
    [
        ("team", [LOCAL], [ABOVE], None),
        ("team", None, [], "Kueue is not installed"),
        ("other", [LOCAL], [ABOVE], "no LocalQueue of that name in namespace n; there is team"),
        ("team", [LOCAL], [], "its ClusterQueue all does not exist"),
        ("team", [LOCAL], [IDLE], "its ClusterQueue all is not active: m"),
    ],
)
def test_a_queue_that_a_job_names(queue, local, above, words):
    found = [str(finding) for finding in queues.findings(queue, "n", local, above)]
    assert (found == []) if words is None else words in found[0]


def spec_of(**changes: Any) -> Any:
    data = yaml.safe_load((ROOT / "examples/sums.yaml").read_text())["spec"] | changes
    return RLTrainingJob.model_validate({"spec": data}).spec


def test_a_bound_claim_that_many_may_write_is_well():
    claim = {"status": {"phase": "Bound"}, "spec": {"accessModes": ["ReadWriteMany"]}}
    there: dict[Any, Any] = {("persistentvolumeclaim", "checkpoints"): claim, ("serviceaccount", "default"): {}}
    assert objects.findings(spec_of(), "n", there) == []
    lost = copy.deepcopy(there)
    lost["persistentvolumeclaim", "checkpoints"]["status"]["phase"] = "Lost"
    assert "its volume is gone" in str(objects.findings(spec_of(), "n", lost)[0])
    assert objects.findings(spec_of(), "n", {}) == [], "what may not be looked at is not called missing"


def test_every_right_that_is_needed_is_granted_by_the_chart():
    command = [ensure_binaries() / "helm", "template", "r", str(ROOT / "helm/ratchet"), "--kube-version", "1.36.3"]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    granted = {
        (verb, group, resource)
        for document in yaml.safe_load_all(rendered)
        if document and document["kind"] in ("ClusterRole", "Role")
        for rule in document["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert [str(r) for r in rights.OPERATOR if (r.verb, r.group, r.resource) not in granted] == []


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_result_fits_narrow_terminals(width):
    checks = [
        Check("nodes", "ok", "node pool a", "tpu-v6e-slice 2x4, 2 nodes, spot, pods get 15 s when it goes"),
        Check("nodes", "error", "placement spot", "x" * 90, "gcloud container node-pools create " + "y" * 60),
    ]
    plain = [line.replace("\x1b[0m", "") for line in lines(checks, width)]
    bare = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in plain]
    assert max(map(len, bare)) <= width
    assert "y" * 60 in "".join(line.strip() for line in bare)


def test_a_mend_of_many_findings_is_said_once():
    checks = [Check("rights", "warning", f"you {i}", "may not", "ask for it") for i in range(3)]
    assert sum("do: ask for it" in line for line in lines(checks, 80)) == 1
