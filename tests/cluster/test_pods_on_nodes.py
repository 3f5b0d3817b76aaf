"""Pods on the real control plane: what a kubelet would do, as kubectl shows it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

SERVER = """python -c "
import http.server as h, os
h.ThreadingHTTPServer((os.environ['IP'], 8080), h.SimpleHTTPRequestHandler).serve_forever()
" """
IP = {"env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]}


def terminated(status: dict) -> dict:
    return status["containerStatuses"][0]["state"]["terminated"]


@pytest.mark.parametrize(
    ("script", "phase", "code", "reason"),
    [
        ("exit 0", "Succeeded", 0, "Completed"),
        ("exit 75", "Failed", 75, "Error"),
        ("kill -9 $$$$", "Failed", 137, "Error"),
        ("kill -6 $$$$", "Failed", 134, "Error"),
    ],
)
def test_exit_codes(desk, script: str, phase: str, code: int, reason: str) -> None:
    desk.create(desk.pod("p", script))
    status = desk.ended("p")
    assert (status["phase"], terminated(status)["exitCode"], terminated(status)["reason"]) == (phase, code, reason)
    assert status["containerStatuses"][0]["imageID"].startswith("example/trainer@sha256:")
    assert status["podIP"].startswith("127.")


def test_a_program_that_is_not_there_fails_to_start(desk) -> None:
    desk.create(desk.pod("p", "", container={"command": ["/no/such/program"]}))
    status = desk.ended("p")
    assert (terminated(status)["exitCode"], terminated(status)["reason"]) == (128, "StartError")
    assert "/no/such/program" in terminated(status)["message"]


@pytest.mark.parametrize(
    ("script", "container", "message"),
    [
        ("echo -n '{\"v\": 1}' > /dev/termination-log; exit 75", {}, '{"v": 1}'),
        ("echo -n here > /tmp/of-this-test; exit 1", {"terminationMessagePath": "/tmp/of-this-test"}, "here"),
        ("head -c 5000 /dev/zero | tr '\\0' x > /dev/termination-log", {}, "x" * 4096),
        ("echo last words; exit 1", {"terminationMessagePolicy": "FallbackToLogsOnError"}, "last words"),
        ("echo last words; exit 0", {"terminationMessagePolicy": "FallbackToLogsOnError"}, None),
    ],
)
def test_termination_messages(desk, script: str, container: dict, message: str | None) -> None:
    desk.create(desk.pod("p", script, container=container))
    assert terminated(desk.ended("p")).get("message") == message


def test_logs_come_through_kubectl_and_stay_after_the_pod_was_deleted(desk) -> None:
    desk.create(desk.pod("p", "for i in 1 2 3; do echo line $i; done"))
    desk.ended("p")
    assert desk.kubectl("logs", "p", "--tail=2") == "line 2\nline 3\n"
    desk.kubectl("delete", "pod", "p")
    assert desk.cluster.pod_log(desk.namespace, "p") == "line 1\nline 2\nline 3\n"


def test_a_followed_log_ends_with_the_pod(desk) -> None:
    desk.create(desk.pod("p", "echo one; sleep 1; echo two"))
    desk.says("p", "one")
    assert desk.kubectl("logs", "p", "--follow") == "one\ntwo\n"


def test_the_checkout_s_programs_come_first_and_the_host_name_is_the_pod_s(desk) -> None:
    desk.create(desk.pod("p", "command -v python; hostname; echo $JAX_PLATFORMS"))
    desk.ended("p")
    assert desk.log("p").splitlines() == [f"{sys.prefix}/bin/python", "p", "cpu"]


def test_sigterm_then_the_grace_that_the_pod_asked_for(desk) -> None:
    desk.create(desk.pod("p", "trap 'echo asked; sleep 0.2; exit 75' TERM; echo up; while :; do sleep 0.05; done"))
    desk.says("p", "up")
    desk.kubectl("delete", "pod", "p", "--grace-period=30")
    assert desk.cluster.pod_log(desk.namespace, "p") == "up\nasked\n"


def test_who_ignores_sigterm_is_killed_when_the_grace_is_over(desk) -> None:
    script = "trap 'echo ignored' TERM; echo up; while :; do sleep 0.05; done"
    desk.create(desk.pod("p", script, terminationGracePeriodSeconds=600))
    desk.says("p", "up")
    desk.kubectl("delete", "pod", "p", "--wait=false")
    desk.says("p", "ignored")
    assert "deletionTimestamp" in desk.get("p")["metadata"]
    desk.kubectl("delete", "pod", "p", "--grace-period=1")  # a later call shortens the time that is left
    assert desk.get("p") is None


def test_everything_that_a_container_started_ends_with_it(desk, tmp_path) -> None:
    script = f"setsid sh -c 'while :; do sleep 0.05; done' & echo $! > {tmp_path}/pid; exit 3"
    desk.create(desk.pod("p", script))
    assert terminated(desk.ended("p"))["exitCode"] == 3
    pid = (tmp_path / "pid").read_text().strip()
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return
    assert state.rsplit(")", 1)[1].split()[0] == "Z", "it may wait for init to take note, no more"


def test_restart_policies(desk) -> None:
    count = "n=$(cat $DIR/n 2>/dev/null || echo 0); echo $((n+1)) > $DIR/n; echo run $n; "
    volume = {"volumes": [{"name": "v", "emptyDir": {}}]}
    container = {"env": [{"name": "DIR", "value": "/counts"}], "volumeMounts": [{"name": "v", "mountPath": "/counts"}]}
    until_third = count + "[ $n = 2 ] || exit 1"
    desk.create(
        desk.pod("never", until_third, restartPolicy="Never", container=container, **volume),
        desk.pod("on-failure", until_third, restartPolicy="OnFailure", container=container, **volume),
        desk.pod("always", count + "[ $n != 2 ] || sleep 600", restartPolicy="Always", container=container, **volume),
    )
    assert desk.ended("never")["containerStatuses"][0]["restartCount"] == 0
    status = desk.ended("on-failure")
    assert (status["phase"], status["containerStatuses"][0]["restartCount"]) == ("Succeeded", 2)
    desk.says("always", "run 2")
    status = desk.status("always")
    assert (status["phase"], status["containerStatuses"][0]["restartCount"]) == ("Running", 2)
    assert status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 0


def test_init_containers_come_first_and_a_failing_one_ends_the_pod(desk) -> None:
    volume = {"volumes": [{"name": "v", "emptyDir": {}}]}
    mount = {"volumeMounts": [{"name": "v", "mountPath": "/shared"}]}
    init = {"name": "first", "image": "i", "command": ["sh", "-c", "echo made > /shared/file"], **mount}
    desk.create(
        desk.pod("good", "cat /shared/file", initContainers=[init], container=mount, **volume),
        desk.pod("bad", "echo never", initContainers=[{**init, "command": ["false"]}], container=mount, **volume),
    )
    assert desk.ended("good")["phase"] == "Succeeded"
    assert desk.log("good") == "made\n"
    status = desk.ended("bad")
    assert (status["phase"], status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"]) == ("Failed", 1)


def test_volumes_of_every_kind_are_where_the_pod_wants_them(desk, tmp_path) -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"job.json": "{}", "x": "y"}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"key": "hidden"}}
    items = [{"path": "app", "fieldRef": {"fieldPath": "metadata.labels['app']"}}]
    volumes = [
        {"name": "config", "configMap": {"name": "c", "items": [{"key": "job.json", "path": "deep/job.json"}]}},
        {"name": "secret", "secret": {"secretName": "s", "defaultMode": 0o400}},
        {"name": "host", "hostPath": {"path": str(tmp_path / "made"), "type": "DirectoryOrCreate"}},
        {"name": "all", "projected": {"sources": [{"configMap": {"name": "c"}}, {"downwardAPI": {"items": items}}]}},
    ]
    paths = {"config": "/etc/ratchet/job", "secret": "/secret", "host": "/data", "all": "/all"}
    mounts = [{"name": name, "mountPath": path} for name, path in paths.items()]
    script = (
        "cat /etc/ratchet/job/deep/job.json /secret/key /all/x /all/app; echo; stat -Lc %a /secret/key;"
        "echo kept > /data/file; touch /all/no || exit 9"
    )
    metadata = {"labels": {"app": "p"}}
    desk.create(
        config, secret, desk.pod("p", script, container={"volumeMounts": mounts}, volumes=volumes, metadata=metadata)
    )
    status = desk.ended("p")
    assert desk.log("p").splitlines()[:2] == ["{}hiddenyp", "400"]
    assert terminated(status)["exitCode"] == 9, "volumes from the API server are read-only"
    assert (tmp_path / "made/file").read_text() == "kept\n"


def test_a_claim_keeps_what_was_written(desk) -> None:
    """The cluster comes with the claim `checkpoints` in `default`."""
    name = f"{desk.namespace}-claim"
    claim = [{"name": "c", "persistentVolumeClaim": {"claimName": "checkpoints"}}]
    mount = {"volumeMounts": [{"name": "c", "mountPath": "/checkpoints"}]}
    one = desk.__class__(desk.cluster, "default")
    one.create(desk.pod(name, f"echo 1 > /checkpoints/{name}", container=mount, volumes=claim))
    try:
        assert one.ended(name)["phase"] == "Succeeded"
        assert (desk.cluster.folder / "volumes/checkpoints" / name).read_text() == "1\n"
    finally:
        one.kubectl("delete", "pod", name)


def test_a_changed_annotation_reaches_the_running_pod(desk) -> None:
    items = [{"path": "word", "fieldRef": {"fieldPath": "metadata.annotations['ratchet.dev/word']"}}]
    script = "until grep -q second /etc/ratchet/word/word; do cat /etc/ratchet/word/word; sleep 0.05; done; echo seen"
    desk.create(
        desk.pod(
            "p", script, metadata={"annotations": {"ratchet.dev/word": "first "}},
            container={"volumeMounts": [{"name": "w", "mountPath": "/etc/ratchet/word"}]},
            volumes=[{"name": "w", "downwardAPI": {"items": items}}],
        )
    )  # fmt: skip
    desk.says("p", "first")
    desk.kubectl("annotate", "pod", "p", "ratchet.dev/word=second", "--overwrite")
    assert desk.ended("p")["phase"] == "Succeeded"
    assert desk.log("p").endswith("seen\n")


def test_a_missing_reference_is_waited_for_and_named(desk) -> None:
    env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "a"}}}]
    desk.create(desk.pod("p", "echo $A", container={"env": env}))
    waiting = desk.wait_until(
        lambda: [c["state"].get("waiting") for c in desk.status("p").get("containerStatuses", [])]
    )
    assert waiting[0]["reason"] == "CreateContainerConfigError"
    assert 'configmap "late" not found' in waiting[0]["message"]
    desk.kubectl("create", "configmap", "late", "--from-literal=a=arrived")
    assert desk.ended("p")["phase"] == "Succeeded"
    assert desk.log("p") == "arrived\n"


def test_an_image_that_cannot_be_pulled(desk) -> None:
    desk.create(desk.pod("p", "echo never", container={"image": "invalid.example/trainer:1"}))
    waiting = desk.wait_until(
        lambda: [c["state"].get("waiting") for c in desk.status("p").get("containerStatuses", [])]
    )
    assert waiting[0]["reason"] == "ImagePullBackOff"
    desk.kubectl("delete", "pod", "p")
    assert desk.get("p") is None


def test_probes_decide_ready_and_restart(desk) -> None:
    fast = {"periodSeconds": 1, "failureThreshold": 1}
    port = {"ports": [{"name": "http", "containerPort": 8080}], **IP}
    http = {"httpGet": {"path": "/", "port": "http"}}
    file = {"exec": {"command": ["test", "-e", "/state/ok"]}}
    volume = {"volumes": [{"name": "v", "emptyDir": {}}]}
    mount = {"volumeMounts": [{"name": "v", "mountPath": "/state"}]}
    serve = f"cd /state; sleep 1; exec {SERVER}"
    toggled = "touch /state/ok; until [ -e /state/end ]; do sleep 0.05; done; rm /state/ok; sleep 600"
    desk.create(
        desk.pod("serving", serve, container={**port, **mount, "readinessProbe": {**http, **fast}}, **volume),
        desk.pod("toggled", toggled, container={**mount, "readinessProbe": {**file, **fast}}, **volume),
        desk.pod(
            "dying", "sleep 600", restartPolicy="Always", terminationGracePeriodSeconds=1,
            container={"livenessProbe": {"tcpSocket": {"port": 9}, **fast}},
        ),
        desk.pod("slow", "sleep 600", container={"startupProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1}}),
    )  # fmt: skip
    for name in ("serving", "toggled"):
        desk.kubectl("wait", "pod", name, "--for=condition=Ready", "--timeout=30s")
    folder = desk.cluster.folder / "pods" / desk.get("toggled")["metadata"]["uid"] / "volumes/v"
    (folder / "end").touch()
    desk.kubectl("wait", "pod", "toggled", "--for=condition=Ready=false", "--timeout=30s")
    desk.wait_until(lambda: desk.status("dying")["containerStatuses"][0]["restartCount"] >= 1)
    assert desk.status("slow")["containerStatuses"][0]["started"] is False


def test_members_of_a_headless_service_find_each_other(desk) -> None:
    """Two indexed pods of a JobSet: names, addresses, what GKE's webhook injects."""
    script = (
        "until getent hosts run-s-0-$((1-JOB_COMPLETION_INDEX)).run; do sleep 0.05; done;"
        "echo $TPU_WORKER_ID $TPU_WORKER_HOSTNAMES"
    )
    template = desk.pod("unused", script, container={"resources": {"limits": {"google.com/tpu": 4}}}, tolerations=[
        {"key": "google.com/tpu", "operator": "Exists"}
    ])["spec"]  # fmt: skip
    job = {"parallelism": 2, "completions": 2, "completionMode": "Indexed", "template": {"spec": template}}
    desk.create({
        "apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "metadata": {"name": "run"},
        "spec": {"replicatedJobs": [{"name": "s", "replicas": 1, "template": {"spec": job}}]},
    })  # fmt: skip
    desk.kubectl("wait", "jobset", "run", "--for=condition=Completed", "--timeout=60s")
    pods = json.loads(desk.kubectl("get", "pods", "-o", "json"))["items"]
    logs = sorted(desk.cluster.pod_log(desk.namespace, pod["metadata"]["name"]).splitlines()[-1] for pod in pods)
    assert logs == ["0 run-s-0-0.run,run-s-0-1.run", "1 run-s-0-0.run,run-s-0-1.run"]
    assert len({pod["status"]["podIP"] for pod in pods}) == 2
    assert {pod["spec"]["nodeName"].rsplit("-", 1)[0] for pod in pods} <= {"pool-a", "pool-b"}


def test_a_pod_with_a_service_account_speaks_to_the_api_server_under_rbac(desk) -> None:
    call = (
        "A=/var/run/secrets/kubernetes.io/serviceaccount; curl -s -o /dev/null -w '%{http_code}\\n' --cacert $A/ca.crt "
        '-H "Authorization: Bearer $(cat $A/token)" '
        "https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/api/v1/namespaces/$(cat $A/namespace)/"
    )
    desk.kubectl("create", "serviceaccount", "reader")
    desk.kubectl("create", "role", "reader", "--verb=list", "--resource=pods")
    desk.kubectl("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={desk.namespace}:reader")
    script = f"{call}pods; {call}secrets"
    desk.create(desk.pod("p", script, serviceAccountName="reader", automountServiceAccountToken=True))
    desk.ended("p")
    assert desk.log("p").split() == ["200", "403"]
