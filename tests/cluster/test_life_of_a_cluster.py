"""Starting twice, half-started, killed, taken ports, and what is left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from ratchet_cli.cluster import cluster as command
from ratchet_cluster import pools, processes, sandbox
from ratchet_cluster.cluster import Cluster, ClusterError

SMALL = [pools.make("pool-a", "tpu-v6e-slice", "1x1")]


def _listening(port: int) -> socket.socket | None:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError:
        return None


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of this test alone; a deep folder, so that socket addresses have to cope."""
    one = Cluster(tmp_path / "a-folder-with-quite-a-long-name" / "and-another-one-below-it-to-be-sure" / "state")
    yield one
    one.down(purge=True)
    assert processes.belonging({processes.DIR: str(one.folder)}) == {}


def test_a_cluster_lives_through_what_can_happen_to_it(own: Cluster, wait_until) -> None:
    own.up(SMALL)
    first = own.status()
    assert first["up"]
    assert [node["name"] for node in first["nodes"]] == ["pool-a-0", "system"]
    own.kubectl("create", "configmap", "mine")
    own.kubectl("run", "sleeper", "--image=i", "--restart=Never", "--command", "--", "sleep", "600")
    wait_until(lambda: own.kubectl("get", "pod", "sleeper", "-o", "jsonpath={.status.phase}") == "Running")

    own.up(SMALL)
    assert own.status()["processes"] == first["processes"], "started twice changes nothing"

    # The node agents are killed: their pods go with them, `up` brings the nodes back and says what became of the pods.
    os.kill(first["processes"]["agent"], signal.SIGKILL)
    wait_until(lambda: "agent" in own.status()["missing"])
    assert not own.status()["up"]
    own.up(SMALL)
    ended = wait_until(lambda: own.kubectl("get", "pod", "sleeper", "-o", "jsonpath={.status.phase}") == "Failed")
    assert ended
    assert processes.belonging({processes.DIR: str(own.folder), processes.POD: None}) == {}

    # One part of the plane is killed.
    for part in ("kube-scheduler", "etcd"):
        os.kill(own.status()["processes"][part], signal.SIGKILL)
        wait_until(lambda part=part: own.status()["missing"] == [part])
        own.up(SMALL)
        assert own.status()["up"]

    # Everything is killed, and one of the ports is somebody else's now.
    port = own.plane.ports["etcd"]
    processes.kill({processes.DIR: str(own.folder)})
    with wait_until(lambda: _listening(port)):  # a passing connection may have got the number for a moment
        own.up(SMALL)
    assert own.plane.ports["etcd"] != port
    assert own.status()["up"]
    own.kubectl("get", "configmap", "mine")

    (own.folder / "volumes/checkpoints/kept").touch()
    own.down()
    assert processes.belonging({processes.DIR: str(own.folder)}) == {}
    assert (own.folder / "volumes/checkpoints/kept").exists(), "checkpoints survive"
    assert not own.kubeconfig.exists()
    own.down()


def test_what_an_outage_wrote_about_nodes_and_pods_is_put_right(own: Cluster, wait_until) -> None:
    """After a long outage the node controller gives up machines that were well all the time, and their pods."""
    own.up(SMALL)
    own.kubectl("run", "sleeper", "--image=i", "--restart=Never", "--command", "--", "sleep", "600")
    ready = ("get", "pod", "sleeper", "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}")
    wait_until(lambda: own.kubectl(*ready) == "True")
    for kind, name, status in (("node", "pool-a-0", "Unknown"), ("pod", "sleeper", "False")):
        patch = {"status": {"conditions": [{"type": "Ready", "status": status}]}}
        own.kubectl("patch", kind, name, "--subresource=status", "-p", json.dumps(patch))
    wait_until(lambda: own.kubectl(*ready) == "True" and all(node["ready"] for node in own.nodes()))


def test_pods_live_while_the_api_server_is_started_again(own: Cluster, wait_until) -> None:
    own.up(SMALL)
    own.kubectl("run", "sleeper", "--image=i", "--restart=Never", "--command", "--", "sleep", "600")
    wait_until(lambda: own.kubectl("get", "pod", "sleeper", "-o", "jsonpath={.status.phase}") == "Running")
    pods = processes.belonging({processes.DIR: str(own.folder), processes.POD: None})
    assert pods
    for part in ("kube-apiserver", "kube-controller-manager"):
        os.kill(own.status()["processes"][part], signal.SIGKILL)
        wait_until(lambda part=part: own.status()["missing"] == [part])
        own.up(SMALL)
    assert processes.belonging({processes.DIR: str(own.folder), processes.POD: None}) == pods
    assert own.kubectl("get", "pod", "sleeper", "-o", "jsonpath={.status.phase}") == "Running"


def test_what_runs_is_said_of_an_api_server_that_does_not_answer(own: Cluster) -> None:
    own.up(SMALL, nodes=False)
    pid = own.status()["processes"]["kube-apiserver"]
    os.kill(pid, signal.SIGSTOP)  # connections are taken, and nothing answers
    try:
        found = own.status()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (found["up"], found["nodes"]) == (False, [])
    assert found["processes"]["kube-apiserver"] == pid
    assert found["trouble"].startswith("the API server could not be asked")


def test_a_cluster_goes_with_the_process_that_it_was_started_for(own: Cluster, wait_until) -> None:
    with subprocess.Popen(["sleep", "600"]) as owner:
        own.up(SMALL, nodes=False, owner=owner.pid)
        assert "guard" in own.status()["processes"]
        owner.kill()
    wait_until(lambda: processes.belonging({processes.DIR: str(own.folder)}) == {})


def test_without_namespaces_pods_find_their_files_under_other_names(own: Cluster, monkeypatch) -> None:
    monkeypatch.setenv(sandbox.FORCE, sandbox.NONE)
    own.up([pools.make("cpus", hosts=1)])
    script = 'cat /etc/ratchet/job/job.json; echo "$WHERE"; echo -n said > /dev/termination-log; test ! -e /etc/ratchet'
    container = {
        "name": "main", "image": "i", "command": ["bash", "-c", script],
        "env": [{"name": "WHERE", "value": "/etc/ratchet/job/job.json"}],
        "volumeMounts": [{"name": "job", "mountPath": "/etc/ratchet/job"}],
    }  # fmt: skip
    volumes = [{"name": "job", "configMap": {"name": "job"}}]
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"restartPolicy": "Never", "containers": [container], "volumes": volumes},
    }  # fmt: skip
    own.kubectl("create", "configmap", "job", "--from-literal=job.json={}")
    own.kubectl("create", "-f", "-", stdin=json.dumps(pod))
    own.kubectl("wait", "pod", "p", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s")
    content, where = own.kubectl("logs", "p").strip().split("}")
    assert content == "{"
    assert Path(where).is_relative_to(own.folder)
    message = own.kubectl("get", "pod", "p", "-o", "jsonpath={.status.containerStatuses[0].state.terminated.message}")
    assert message == "said"


def test_what_was_half_started_is_ended_by_down(own: Cluster) -> None:
    own.folder.mkdir(parents=True)
    processes.start(own.folder, "etcd", ["sleep", "600"])
    own.down()
    assert processes.running(own.folder) == {}


def test_a_program_that_does_not_start_is_named_with_its_last_words(own: Cluster, plane: Cluster, monkeypatch) -> None:
    """Here etcd finds a data folder that it cannot use."""
    own.folder.mkdir(parents=True)
    (own.folder / "etcd").write_text("not a folder")
    with pytest.raises(RuntimeError) as caught:
        own.up(SMALL)
    assert "Its last words" in str(caught.value)
    assert "logs/" in str(caught.value)
    assert processes.running(own.folder) == {}


def test_what_needs_a_cluster_says_so_when_there_is_none(tmp_path: Path) -> None:
    one = Cluster(tmp_path / "none")
    one.down()
    with pytest.raises(ClusterError, match="ratchet cluster up"):
        one.env()
    for arguments, code in ((["env"], 69), (["status"], 69), (["preempt", "pool-a-0"], 69), (["logs", "p"], 69)):
        done = CliRunner().invoke(command, ["--dir", str(tmp_path / "none"), *arguments])
        assert done.exit_code == code, done.output
    assert CliRunner().invoke(command, ["--dir", str(tmp_path), "up", "--pool", "a=tpu-v6e-slice:3x3"]).exit_code == 65


def test_the_environment_that_is_printed_can_be_used_by_a_shell(plane: Cluster) -> None:
    done = CliRunner().invoke(command, ["--dir", str(plane.folder), "env"])
    assert f"export KUBECONFIG={plane.kubeconfig}" in done.output
    assert f"export PATH={plane.bin}:$PATH" in done.output
