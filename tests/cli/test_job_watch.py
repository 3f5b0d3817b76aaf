"""`ratchet watch`, `suspend`, `resume`, `logs` and completion on a real API server; screens in a real terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator

import pytest
from jobs_in_a_cluster import condition, create, running, write

from ratchet_cluster.cluster import Cluster


@contextlib.contextmanager
def later(act, seconds: float = 1.5) -> Iterator[None]:
    """Does something a moment after the command began."""
    timer = threading.Timer(seconds, act)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def over(phase: str) -> dict:
    status = running() | {"phase": phase}
    status["conditions"] = [condition(phase, "True", "AllStagesDone"), *status["conditions"][:5]]
    status["progress"] |= {"step": 50}
    return status


def test_a_pipe_gets_a_line_for_each_change_until_the_job_is_over(api_server, namespace, ratchet):
    create(api_server, namespace, status=running())
    with later(lambda: write(api_server, namespace, "sums", over("Completed"))):
        said = ratchet("watch", "sums", "-n", namespace, "--timeout", "60")
    assert said.exit_code == 0
    first, *_, last = said.stdout.splitlines()
    assert " Running stage=reason step=30/50 " in first
    assert " Completed " in last
    assert "\x1b" not in said.stdout


def test_a_script_waits_for_a_condition_and_not_for_ever(api_server, namespace, ratchet):
    create(api_server, namespace, status=running())
    cases = {
        "phase=Running": 0,
        "Learning": 0,
        "placed=allpodsscheduled": 0,
        "condition=Suspended=False": 0,
        "Learning=False": os.EX_TEMPFAIL,
    }
    for wanted, code in cases.items():
        said = ratchet("watch", "sums", "-n", namespace, "--until", wanted, "--timeout", "1")
        assert said.exit_code == code, wanted
    assert "time is up: Learning=False does not hold; job sums is Running" in said.stderr
    with later(lambda: write(api_server, namespace, "sums", over("Failed"))):
        said = ratchet("watch", "sums", "-n", namespace, "--until", "Completed", "--timeout", "60")
    assert said.exit_code == 1
    assert "job sums is Failed: Completed will not come" in said.stderr
    wrong = ratchet("watch", "sums", "-n", namespace, "--until", "phase=")
    assert wrong.exit_code == os.EX_USAGE
    with later(lambda: api_server.kubectl("delete", "rlj", "sums", "-n", namespace)):
        said = ratchet("watch", "sums", "-n", namespace, "--until", "Completed=False", "--timeout", "60")
    assert said.exit_code in (1, os.EX_NOINPUT)


def test_a_job_that_is_deleted_ends_its_watch(api_server, namespace, ratchet):
    create(api_server, namespace, status=running())
    with later(lambda: api_server.kubectl("delete", "rlj", "sums", "-n", namespace)):
        said = ratchet("watch", "sums", "-n", namespace, "--timeout", "60")
    assert said.exit_code == os.EX_NOINPUT
    assert said.stderr == "job sums was deleted\n"


def test_suspend_and_resume_say_what_they_mean_and_wait(api_server, namespace, ratchet):
    create(api_server, namespace, status=running())
    rests = running() | {"phase": "Suspended"}
    rests["conditions"] = [condition("Suspended", "True", "Suspended", "all pods have ended")]
    with later(lambda: write(api_server, namespace, "sums", rests)):
        said = ratchet("suspend", "sums", "-n", namespace, "--wait", "--timeout", "60")
    assert said.exit_code == 0
    assert "commits its last step, then its pods end and their capacity is free" in said.stdout
    assert f"ratchet resume sums -n {namespace}" in said.stdout
    assert "sums is Suspended after" in said.stdout
    assert "already" in ratchet("suspend", "sums", "-n", namespace).stdout
    late = ratchet("resume", "sums", "-n", namespace, "--wait", "--timeout", "1")
    assert late.exit_code == os.EX_TEMPFAIL
    assert "sums goes on from step 20" in late.stdout
    assert "not yet Running" in late.stderr
    assert api_server.kubectl("get", "rlj", "sums", "-n", namespace, "-o", "jsonpath={.spec.suspend}") == "false"
    assert "is not suspended" in ratchet("resume", "sums", "-n", namespace).stdout
    rests["conditions"] = [condition("Suspended", "True", "BudgetSpent", "raise spec.budgets")]
    write(api_server, namespace, "sums", rests)
    spent = ratchet("resume", "sums", "-n", namespace)
    assert (spent.exit_code, "raise spec.budgets" in spent.stderr) == (os.EX_DATAERR, True)
    write(api_server, namespace, "sums", over("Completed"))
    for command in ("suspend", "resume"):
        done = ratchet(command, "sums", "-n", namespace)
        assert (done.exit_code, "it is over" in done.stderr) == (os.EX_DATAERR, True)


def screen(server: Cluster, *arguments: str, keys: bytes, columns: int, seconds: float) -> tuple[str, int, list]:
    """What a terminal was sent until the keys had their effect, the exit code, and the terminal's settings before and
    after."""
    program = [sys.executable, "-m", "ratchet_cli.main", *arguments]
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    before = termios.tcgetattr(slave)
    env = {**os.environ, **server.env(), "TERM": "xterm-256color"}
    env.pop("COLUMNS", None)
    process = subprocess.Popen(program, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True,
                               preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))  # fmt: skip
    sent, told, deadline = b"", False, time.monotonic() + 2 * seconds
    while process.poll() is None and time.monotonic() < deadline:
        if select.select([master], [], [], 0.1)[0]:
            sent += os.read(master, 65536)
        if not told and b"q ends" in sent:
            os.write(master, keys)
            told = True
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    while select.select([master], [], [], 0.1)[0]:
        sent += os.read(master, 65536)
    after = termios.tcgetattr(slave)
    os.close(master)
    os.close(slave)
    return sent.decode(errors="replace"), process.wait(), [before, after]


@pytest.mark.parametrize(
    ("keys", "arguments"), [(b"q", ("watch", "sums")), (b"\x03", ("watch", "sums")), (b"q", ("top",))]
)
def test_a_screen_ends_on_q_and_on_an_interrupt_and_leaves_the_terminal_as_it_was(
    api_server, namespace, keys, arguments
):
    create(api_server, namespace, status=running())
    sent, code, (before, after) = screen(
        api_server, *arguments, "-n", namespace, "--interval", "0.5", keys=keys, columns=80, seconds=60
    )
    assert code == 0, f"it was sent: {sent[-3000:]!r}"
    assert "sums" in sent
    assert sent.rindex("\x1b[?1049l") > sent.rindex("\x1b[?1049h")  # the screen from before is back
    assert sent.rindex("\x1b[?25h") > sent.rindex("\x1b[?25l")  # and so is the cursor
    assert before == after


POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "spec": {
        "restartPolicy": "Never",
        "containers": [
            {"name": "trainer", "image": "any", "command": ["sh", "-c", "echo one; printf 'two \\033[31m\\n'"]}
        ],
    },
}


def test_logs_go_across_attempts_and_name_what_is_gone(cluster, api_server, namespace, ratchet):
    status = running()
    status["attempt"]["number"] = 3
    status["counters"]["attempts"] = 3
    create(api_server, namespace, status=status)
    nothing = ratchet("logs", "sums", "-n", namespace, "--attempt", "1")
    assert nothing.exit_code == os.EX_NOINPUT
    assert "NodeLost: node a no longer exists" in nothing.stderr
    assert "/checkpoints/sums has metrics.jsonl" in nothing.stderr
    uid = api_server.kubectl("get", "rlj", "sums", "-n", namespace, "-o", "jsonpath={.metadata.uid}")
    for attempt in ("2", "3"):
        labels = {"ratchet.dev/job-name": "sums", "ratchet.dev/job-uid": uid, "ratchet.dev/attempt": attempt}
        pod = POD | {"metadata": {"name": f"sums-a{attempt}-s-0-0-x", "labels": labels}}
        api_server.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(pod))
    for attempt in ("2", "3"):
        phase = "--for=jsonpath={.status.phase}=Succeeded"
        api_server.kubectl("wait", phase, "pod", f"sums-a{attempt}-s-0-0-x", "-n", namespace, "--timeout=60s")
    said = ratchet("logs", "sums", "-n", namespace)
    assert said.exit_code == 0
    gone, second, one, two, third, *_ = said.stdout.splitlines()
    assert gone.startswith("==== attempt 1: its pods are gone, --attempt 1 shows what was kept of its log; ended ")
    assert second.startswith("==== attempt 2, process 0: pod sums-a2-s-0-0-x on ")
    assert (one, two) == ("one", r"two \x1b[31m")
    assert third.startswith("==== attempt 3, process 0: pod sums-a3")
    last = ratchet("logs", "sums", "-n", namespace, "--attempt", "3", "--tail", "1").stdout.splitlines()
    assert last[1:] == [r"two \x1b[31m"]
    for arguments, code in ((("--attempt", "9"), 65), (("--process", "99"), 65), (("--process", "3"), 66)):
        said = ratchet("logs", "sums", "-n", namespace, *arguments)
        assert (said.exit_code, said.stderr != "") == (code, True), arguments
    assert ratchet("logs", "sums", "-n", namespace, "--since", "yesterday").exit_code == 2
    write(api_server, namespace, "sums", over("Completed"))
    followed = ratchet("logs", "sums", "-n", namespace, "-f")  # ends, because the job is over
    assert followed.stdout.splitlines()[-1] == "==== job sums is Completed"


def test_a_log_whose_pods_are_gone_is_read_beside_the_checkpoints(api_server, namespace, ratchet, tmp_path):
    volume = f"{namespace}-kept"
    common = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    host = {"capacity": {"storage": "1Gi"}, "hostPath": {"path": str(tmp_path)}}
    claim = common | {"volumeName": volume, "resources": {"requests": {"storage": "1Gi"}}}
    reference = {"claimRef": {"namespace": namespace, "name": "checkpoints"}}
    for kind, name, spec in (
        ("PersistentVolume", volume, common | host | reference),
        ("PersistentVolumeClaim", "checkpoints", claim),
    ):
        body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        api_server.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(body))
    folder = tmp_path / "sums" / "logs" / "a1-0a1b2c3d"
    folder.mkdir(parents=True)
    (folder / "process-1.log").write_text("one\ntwo \x1b[31m\n")
    create(api_server, namespace, status=running())
    said = ratchet("logs", "sums", "-n", namespace, "--attempt", "1", "--process", "1", "--tail", "1")
    assert said.exit_code == 0, said.stderr
    mark, line = said.stdout.splitlines()
    assert mark.startswith(f"==== attempt 1, process 1: the end of its log, from {folder}/process-1.log; ended ")
    assert line == r"two \x1b[31m"
    nothing = ratchet("logs", "sums", "-n", namespace, "--attempt", "1")
    assert nothing.exit_code == os.EX_NOINPUT
    api_server.kubectl("delete", "persistentvolumeclaim", "checkpoints", "-n", namespace, "--wait=false")
    api_server.kubectl("delete", "persistentvolume", volume, "--wait=false")


def test_a_shell_is_told_of_commands_and_jobs(api_server, namespace, ratchet, monkeypatch, capsys):
    create(api_server, namespace, status=running())
    bash = ratchet("completion", "bash").stdout
    assert subprocess.run(["bash", "-n"], input=bash, text=True).returncode == 0
    for shell in ("zsh", "fish"):
        assert "_RATCHET_COMPLETE" in ratchet("completion", shell).stdout
        if program := shutil.which(shell):
            subprocess.run([program, "-n"], input=ratchet("completion", shell).stdout, text=True, check=True)
    words = ["ratchet", "status", "-n", namespace, "su"]
    env = {**os.environ, "_RATCHET_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": "4"}
    code = "import sys; from ratchet_cli.main import main; main(prog_name='ratchet')"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout == "plain,sums\n"

    from ratchet_cli.completion import kubectl_complete

    for typed, expected in ((["sus"], "suspend\tLet a job rest"), (["status", "-n", namespace, ""], "sums\n:4")):
        monkeypatch.setattr(sys, "argv", ["kubectl_complete-ratchet", *typed])
        kubectl_complete()
        assert expected in capsys.readouterr().out
