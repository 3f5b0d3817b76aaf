"""`ratchet status`, `top` and `approve` on a real API server: what they say, and what where nothing can be said."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import jsonschema
import yaml
from jobs_in_a_cluster import condition, create, running, write

from ratchet_cluster.cluster import Cluster


def valid(document: str, schema: str) -> dict:
    found = json.loads(document)
    jsonschema.validate(found, json.loads(files("ratchet_cli").joinpath(f"schemas/{schema}.json").read_text()))
    return found


def test_one_screen_says_what_where_how_fast_and_what_it_cost(api_server, namespace, ratchet):
    create(api_server, namespace, status=running())
    said = ratchet("status", "sums", "-n", namespace)
    assert said.exit_code == 0
    for part in (
        "sums  Running", "stage 2 of 2: reason", "warm-up at 10", "30/50", "50 %", "generate", "2 on placement spot",
        "8/8 pods ready", "tpu-v6e-slice 4x4 · Spot · 2 slices · 8 hosts · 32 chips", "2764 tokens/s", "steps/s",
        "✓ Learning  reward 0.4  accuracy 0.25", "step 20", "1 preemption", "3 steps lost", "back in 27.5 s",
        "attempt 1 NodeLost", "node a no longer exists", f"ratchet watch sums -n {namespace}",
    ):  # fmt: skip
        assert part in said.stdout, part
    assert "waiting" not in said.stdout


def test_the_documents_fit_their_schemas(api_server, namespace, ratchet, tmp_path):
    create(api_server, namespace, status=running())
    create(api_server, namespace, "fresh")
    one = valid(ratchet("status", "sums", "-n", namespace, "-o", "json").stdout, "job-status")
    assert (one["progress"]["step"], one["place"]["chips"], one["cost"]["stepsLost"]) == (30, 32, 3)
    assert 0.9 < one["cost"]["goodput"] < 1
    file = tmp_path / "jobs.json"
    shown = ratchet("status", "-n", namespace, "--json", str(file))
    assert "sums" in shown.stdout
    jobs = valid(file.read_text(), "job-list")["jobs"]
    assert [(j["name"], j["phase"]) for j in jobs] == [("fresh", "New"), ("sums", "Running")]
    assert yaml.safe_load(ratchet("status", "sums", "-n", namespace, "-o", "yaml").stdout)["name"] == "sums"
    unwritable = ratchet("status", "-n", namespace, "--json", str(tmp_path / "no" / "such.json"))
    assert unwritable.exit_code == os.EX_CANTCREAT
    assert unwritable.stderr.count("\n") == 1


def test_what_waits_is_said_with_what_to_do(api_server, namespace, ratchet):
    status = running() | {"phase": "AwaitingApproval"}
    status["conditions"] = [
        condition("AwaitingApproval", "True", "ApprovalNeeded", "stage warm-up ended at step 10"),
        condition("Placed", "False", "AwaitingApproval", "not placed before that"),
        condition("Learning", "False", "NoInformativeGroups", "all answers earn the same"),
    ]
    status["stages"] = status["stages"][:1]
    create(api_server, namespace, status=status)
    said = ratchet("status", "sums", "-n", namespace).stdout
    assert "ApprovalNeeded" in said
    assert "not placed before that" not in said  # the other condition repeated
    assert f"ratchet approve sums warm-up -n {namespace}" in said
    assert f"ratchet samples sums -n {namespace} --wrong" in said

    approved = ratchet("approve", "sums", "-n", namespace)  # the one that waits
    assert (approved.exit_code, approved.stdout) == (0, "warm-up is approved: stage reason may begin\n")
    assert "already" in ratchet("approve", "sums", "warm-up", "-n", namespace).stdout
    wrong = ratchet("approve", "sums", "warmup", "-n", namespace)
    assert wrong.exit_code == os.EX_DATAERR
    assert "did you mean warm-up?" in wrong.stderr


def test_a_job_that_no_operator_has_seen_yet_is_shown_as_such(api_server, namespace, ratchet):
    create(api_server, namespace)
    said = ratchet("status", "sums", "-n", namespace)
    assert said.exit_code == 0
    assert "no operator has looked at the job yet" in said.stdout
    assert "ratchet doctor" in said.stdout


def test_a_status_of_another_version_is_read_as_far_as_it_goes(api_server, namespace, ratchet):
    """Of 500 attempts, with a phase, a reason and texts that nobody foresaw."""
    status = running() | {"phase": "Running"}
    status["attempt"]["number"] = 500
    status["counters"]["attempts"] = 500
    status["attempts"] = [
        {"number": n, "verdict": "SwallowedByAWhale", "chargedTo": "preemptions"} for n in range(480, 500)
    ]
    status["conditions"] = [
        condition("Placed", "False", "FromTheFuture", "wait \x1b[31mred\x07\u202e for it\r\nplease")
    ]
    status["progress"] = {"step": 3, "tokensPerSecond": "NaN", "reward": "a lot"}
    del status["checkpoint"], status["stage"]
    create(api_server, namespace, status=status)
    said = ratchet("status", "sums", "-n", namespace)
    assert said.exit_code == 0
    assert "FromTheFuture" in said.stdout
    assert "wait [31mred for it please" in said.stdout
    assert not any(c in said.stdout for c in "\x1b\x07\u202e\r")
    assert "SwallowedByAWhale" in said.stdout
    assert (
        valid(ratchet("status", "sums", "-n", namespace, "-o", "json").stdout, "job-status")["attempt"]["number"] == 500
    )
    assert ratchet("status", "-n", namespace).exit_code == ratchet("top", "-n", namespace).exit_code == 0


def test_the_table_of_a_pipe_has_every_column_and_no_control_codes(api_server, namespace, ratchet):
    create(api_server, namespace, status=running())
    create(api_server, namespace, "other", status=running() | {"phase": "Recovering"}, suspend=True)
    lines = ratchet("status", "-n", namespace).stdout.splitlines()
    assert lines[0].split() == (
        [
            "NAME",
            "PHASE",
            "STAGE",
            "STEP",
            "REWARD",
            "ACCURACY",
            "LEARNS",
            "TOKENS/S",
            "LEFT",
            "CHIPS",
            "PREEMPTED",
            "AGE",
            "WHY",
        ]
    )
    assert [line.split()[:2] for line in lines[1:]] == [["other", "Recovering"], ["sums", "Running"]]
    assert "\x1b" not in "".join(lines)
    everywhere = ratchet("status", "-A").stdout.splitlines()
    assert everywhere[0].startswith("NAMESPACE")
    assert any(line.split()[:2] == [namespace, "sums"] for line in everywhere)
    top = ratchet("top", "-n", namespace, "--sort", "restarts").stdout.splitlines()
    assert top[0].split()[:5] == ["NAME", "CHIPS", "TOKENS/S", "GOODPUT", "RESTARTS"]
    assert {line.split()[1] for line in top[1:]} == {"32"}


def test_a_name_that_is_not_there_is_answered_with_those_that_are(api_server, namespace, ratchet):
    create(api_server, namespace, "lonely", running())
    cases = {
        ("status", "lonly", "-n", namespace): "did you mean lonely?",
        ("status", "lonely", "-n", f"{namespace}x"): f"namespace {namespace}x does not exist; did you mean {namespace}",
        ("status", "-n", f"{namespace}x"): "does not exist",
        ("status", "lonely", "-n", "default"): f"-n {namespace}",
        ("status", "su/ms", "-n", namespace): "no name of a job",
        ("suspend", "Lonely", "-n", namespace): "did you mean lonely?",
    }
    for arguments, words in cases.items():
        said = ratchet(*arguments)
        assert (said.exit_code, said.stdout) == (os.EX_NOINPUT, ""), arguments
        assert words in said.stderr, arguments
        assert said.stderr.count("\n") == 1, arguments
    assert ratchet("status", "rltrainingjob.ratchet.dev/lonely", "-n", namespace).exit_code == 0


def test_an_empty_namespace_is_said_to_be_empty(namespace, ratchet):
    said = ratchet("status", "-n", namespace)
    assert (said.exit_code, said.stdout) == (0, "")
    assert "no jobs in namespace" in said.stderr


def kubeconfig_of(api_server: Cluster, folder: Path, user: dict, server: str | None = None) -> str:
    found = yaml.safe_load(api_server.kubeconfig.read_text())
    found["users"][0]["user"] = user
    if server is not None:
        found["clusters"][0]["cluster"]["server"] = server
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(found))
    return str(file)


def test_without_rights_for_pods_and_events_the_rest_is_shown(api_server, namespace, ratchet, monkeypatch, tmp_path):
    create(api_server, namespace, status=running())
    api_server.kubectl("create", "serviceaccount", "reader", "-n", namespace)
    token = api_server.kubectl("create", "token", "reader", "-n", namespace).strip()
    monkeypatch.setenv("KUBECONFIG", kubeconfig_of(api_server, tmp_path, {"token": token}))
    refused = ratchet("status", "sums", "-n", namespace)
    assert (refused.exit_code, refused.stdout) == (os.EX_UNAVAILABLE, "")
    assert "no right to read" in refused.stderr
    assert refused.stderr.count("\n") == 1

    api_server.kubectl(
        "create", "role", "reader", "--verb=get,list", "--resource=rltrainingjobs.ratchet.dev", "-n", namespace
    )
    api_server.kubectl(
        "create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:reader", "-n", namespace
    )
    said = ratchet("status", "sums", "-n", namespace)
    assert (said.exit_code, said.stderr) == (0, "")
    assert "pods: no right to list them (403)" in said.stdout
    assert "events: no right to list them (403)" in said.stdout
    assert "30/50" in said.stdout
    patch = ratchet("suspend", "sums", "-n", namespace)
    assert patch.exit_code == os.EX_UNAVAILABLE
    assert "no right to change" in patch.stderr


def test_a_cluster_that_does_not_answer_is_one_line(api_server, namespace, ratchet, monkeypatch, tmp_path):
    with socket.socket() as held:  # bound and not listened on: nobody answers there
        held.bind(("127.0.0.1", 0))
        closed = f"https://127.0.0.1:{held.getsockname()[1]}"
        cases = [
            (kubeconfig_of(api_server, tmp_path, {"token": "not-a-token"}), [], "sign in again"),
            (str(tmp_path / "none"), [], "kubectl config get-contexts"),
            (str(api_server.kubeconfig), ["--context", "nowhere"], "context nowhere"),
        ]
        for file, more, words in cases:
            monkeypatch.setenv("KUBECONFIG", file)
            said = ratchet("status", "-n", namespace, *more)
            assert (said.exit_code, said.stdout) == (os.EX_UNAVAILABLE, ""), words
            assert words in said.stderr
            assert said.stderr.count("\n") == 1
        monkeypatch.setenv("KUBECONFIG", kubeconfig_of(api_server, tmp_path, {"token": "x"}, closed))
        said = ratchet("status", "-n", namespace)
        assert said.exit_code == os.EX_UNAVAILABLE
        assert "connection refused; is the cluster up?" in said.stderr
        plugin = {
            "exec": {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": "no-such-plugin",
                "interactiveMode": "Never",
            }
        }
        monkeypatch.setenv("KUBECONFIG", kubeconfig_of(api_server, tmp_path, plugin))
        said = ratchet("status", "-n", namespace)
        assert said.exit_code == os.EX_UNAVAILABLE
        assert "no-such-plugin" in said.stderr
        assert said.stderr.count("\n") == 1


def test_a_credential_plugin_signs_in_as_it_does_for_kubectl(api_server, namespace, ratchet, monkeypatch, tmp_path):
    create(api_server, namespace, status=running())
    api_server.kubectl("create", "serviceaccount", "plugged", "-n", namespace)
    api_server.kubectl(
        "create", "rolebinding", "plugged", "--clusterrole=cluster-admin", f"--serviceaccount={namespace}:plugged",
        "-n", namespace,
    )  # fmt: skip
    token = api_server.kubectl("create", "token", "plugged", "-n", namespace).strip()
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": token}}
    (tmp_path / "answer").write_text(json.dumps(answer))
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1", "command": "cat", "args": [str(tmp_path / "answer")],
        "interactiveMode": "Never",
    }  # fmt: skip
    monkeypatch.setenv("KUBECONFIG", kubeconfig_of(api_server, tmp_path, {"exec": plugin}))
    assert "30/50" in ratchet("status", "sums", "-n", namespace).stdout


def test_without_kubectl_the_python_client_answers_the_same(api_server, namespace, ratchet, monkeypatch, tmp_path):
    create(api_server, namespace, status=running())
    with_kubectl = json.loads(ratchet("status", "-n", namespace, "-o", "json").stdout)["jobs"]
    monkeypatch.setenv("PATH", str(tmp_path))
    without = json.loads(ratchet("status", "-n", namespace, "-o", "json").stdout)["jobs"]
    for one in (*with_kubectl, *without):
        del one["ageSeconds"], one["secondsLeft"], one["goodput"]
    assert without == with_kubectl
    missing = ratchet("status", "summs", "-n", namespace)
    assert (missing.exit_code, "did you mean sums?" in missing.stderr) == (os.EX_NOINPUT, True)
    elsewhere = ratchet("status", "-n", namespace, "--context", "nowhere")
    assert (elsewhere.exit_code, elsewhere.stderr.count("\n")) == (os.EX_UNAVAILABLE, 1)
    monkeypatch.setitem(sys.modules, "kubernetes", None)  # as where the extra is not installed
    neither = ratchet("status", "-n", namespace)
    assert neither.exit_code == os.EX_UNAVAILABLE
    assert "no kubectl on PATH" in neither.stderr


def test_a_kind_of_another_version_is_told_from_a_job_that_is_missing(api_server, namespace, ratchet, monkeypatch):
    monkeypatch.setattr("ratchet_cli.kube.jobs.API_VERSION", "ratchet.dev/v9")
    for arguments in (("status",), ("status", "sums")):
        said = ratchet(*arguments, "-n", namespace)
        assert said.exit_code == os.EX_UNAVAILABLE
        assert "install the chart, or `ratchet crd | kubectl apply --server-side -f -`" in said.stderr
        assert said.stderr.count("\n") == 1


def test_a_list_of_many_pages_is_whole(api_server, namespace, ratchet, monkeypatch):
    monkeypatch.setattr("ratchet_cli.kube.ask.PAGE", 2)
    names = [f"run-{i}" for i in range(5)]
    for name in names:
        create(api_server, namespace, name)
    write(api_server, namespace, "run-3", running())
    jobs = json.loads(ratchet("status", "-n", namespace, "-o", "json").stdout)["jobs"]
    assert [job["name"] for job in jobs] == names
    assert [job["phase"] for job in jobs] == ["New", "New", "New", "Running", "New"]


def test_a_closed_pipe_ends_without_a_traceback(api_server, namespace):
    create(api_server, namespace, status=running())
    command = f"{sys.executable} -m ratchet_cli.main status sums -n {namespace} | head -1"
    done = subprocess.run(
        ["bash", "-c", command], env=os.environ | api_server.env(), capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("sums  Running")
    assert done.stderr == ""


def test_a_killed_command_takes_its_kubectl_with_it(api_server):
    script = (
        "import os, signal, sys\n"
        "from ratchet_cli.kube import connect\n"
        "with connect() as kube:\n"
        "    print(kube._transport._folder, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | api_server.env(), capture_output=True, text=True, timeout=60
    )
    folder = Path(done.stdout.strip())
    assert str(folder) != "."
    assert subprocess.run(["timeout", "20", "sh", "-c", f"while [ -e {folder} ]; do sleep 0.05; done"]).returncode == 0


def test_the_commands_are_listed_without_what_draws():
    """`ratchet trainer` starts through the same program."""
    script = "import sys, ratchet_cli.main; print([m for m in ('rich', 'pydantic', 'kubernetes') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
