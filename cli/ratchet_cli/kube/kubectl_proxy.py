"""The way through kubectl: `kubectl proxy` on a socket in a folder that only this user can enter.

Decides how kubectl is started and ended. One kubectl serves all questions of a command: contexts, impersonation,
proxies and credential plugins work exactly as with kubectl itself, a plugin is asked once, and a request costs
milliseconds where a kubectl of its own would cost a tenth of a second. A shell waits beside it for the end of this
process, however that comes, and takes kubectl with it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ratchet_cli.kube.ask import Answer, Place
from ratchet_cli.kube.errors import Unreachable, one_line, unreachable

START_SECONDS = 30.0
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
GUARD = """
at=$1; shift
"$@" </dev/null & child=$!
read -r _
kill $child 2>/dev/null; wait $child 2>/dev/null
rm -rf "$at"
"""
"""Runs its arguments until its standard input is closed, which the kernel does when this process ends; then removes
$1."""


class KubectlProxy:
    """A running `kubectl proxy`. Raises Unreachable where there is none to be had."""

    def __init__(self, program: str, context: str | None):
        flags = [f"--context={context}"] if context is not None else []
        self._folder = Path(tempfile.mkdtemp(prefix="ratchet-", dir=_short_folder()))
        self._socket = self._folder / "api"
        self._said: list[str] = []
        ours, theirs = os.pipe()  # the guard reads, this process holds the other end open
        command = [program, "proxy", f"--unix-socket={self._socket}", *flags]
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", GUARD, "sh", str(self._folder), *command],
                stdin=ours,  # not by its number: a shell may know one digit alone
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        finally:
            os.close(ours)
        self._alive = theirs
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            self.place = _place(program, flags)
            self._until_open()
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def open(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str], seconds: float | None
    ) -> Iterator[Answer]:
        connection = _Connection(str(self._socket), seconds)
        try:
            try:
                connection.request(method, target, body, dict(headers))
                answer = connection.getresponse()
            except TimeoutError:
                raise unreachable(str(self.place), f"no answer within {seconds:.0f} s (i/o timeout)") from None
            except (OSError, http.client.HTTPException) as error:
                raise unreachable(str(self.place), self._last_words() or str(error)) from None
            if answer.status >= 500 and answer.headers.get("Audit-Id") is None:  # kubectl's own words
                raise unreachable(str(self.place), answer.read(2000).decode(errors="replace"))
            yield answer
        finally:
            connection.close()

    def close(self) -> None:
        """Ends kubectl and removes its folder."""
        with contextlib.suppress(OSError):
            os.close(self._alive)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said = [*self._said[-20:], line]

    def _last_words(self) -> str:
        return one_line(self._said[-1]) if self._said else ""

    def _until_open(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
                probe.connect(str(self._socket))
                return
            time.sleep(0.005)
        raise Unreachable(f"kubectl proxy did not start: {self._last_words() or 'it says nothing'}")


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, seconds: float | None):
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _short_folder() -> str | None:
    """A socket's path may have some hundred characters, and macOS' folder for temporary files is half of that."""
    return "/tmp" if os.access("/tmp", os.W_OK) else None


def _place(program: str, flags: list[str]) -> Place:
    done = subprocess.run(
        [program, "config", "view", "--minify", "--output=json", *flags],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=START_SECONDS,
    )
    if done.returncode:
        if not flags and "KUBERNETES_SERVICE_HOST" in os.environ and (ACCOUNT / "token").is_file():
            return Place((ACCOUNT / "namespace").read_text().strip(), None, None)
        said = one_line(done.stderr).removeprefix("error: ")
        if "current-context must exist" in said:
            raise Unreachable(
                "no cluster is chosen: the kubeconfig has no current context; `kubectl config get-contexts` lists "
                'what there is, and eval "$(ratchet cluster env)" chooses the local one'
            )
        raise Unreachable(f"kubeconfig: {said}; `kubectl config get-contexts` lists what there is")
    said = json.loads(done.stdout)
    context = (said.get("contexts") or [{}])[0]
    cluster = (said.get("clusters") or [{}])[0].get("cluster") or {}
    namespace = (context.get("context") or {}).get("namespace") or "default"
    return Place(namespace, context.get("name"), cluster.get("server"))
