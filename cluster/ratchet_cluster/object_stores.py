"""Object stores on this machine, for tests and the local cluster: a server of Google Cloud Storage's API, one of S3's.

Decides how they are had (fake-gcs-server compiled once from `fake_gcs/go.mod`, moto installed once from
`moto/requirements.txt`; both are kept in the user's cache) and started on loopback, and what a client's environment
must say. Both honour conditional writes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ratchet_cluster.build import BuildError, Progress, cache_folder, compile_module, find_go

HERE = Path(__file__).parent
START_SECONDS = 60.0
PROJECT = "test"


def fake_gcs_server(progress: Progress = lambda line: None) -> Path:
    """The program, built first if needed (three minutes on two cores). Raises BuildError."""
    module = HERE / "fake_gcs"
    go, version = find_go()

    def make(folder: Path) -> None:
        progress("building fake-gcs-server from source (once)")
        env = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "", "CGO_ENABLED": "0", "GOWORK": "off"}
        command = [str(go), "build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags=-s -w"]
        compile_module([*command, "-o", f"{folder}/", "tool"], env, folder.parent / "fake-gcs.log", progress, module)

    return _once("fake-gcs", [version, *_contents(module, "go.mod", "go.sum")], make) / "fake-gcs-server"


def moto_python(progress: Progress = lambda line: None) -> Path:
    """The Python of a virtual environment with moto, which is made first if needed (a minute). Raises BuildError."""
    requirements = HERE / "moto" / "requirements.txt"
    pip = ["-m", "pip", "install", "--quiet", "--no-compile", "-r", str(requirements)]

    def make(folder: Path) -> None:
        progress("installing moto (once)")
        for command in (
            [sys.executable, "-m", "venv", str(folder)],
            [str(folder / "bin" / "python"), *pip],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise BuildError(f"{' '.join(command)} failed: {done.stderr.strip()[-1000:]}")

    return _once("moto", [sys.version, requirements.read_text()], make) / "bin" / "python"


@dataclass
class ObjectStore:
    """A server on loopback. `kind` is gs or s3; `folder` has its data and log. That of S3 keeps objects in memory."""

    kind: str
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def begin(cls, kind: str, folder: Path, progress: Progress = lambda line: None) -> ObjectStore:
        """A server that answers. Raises BuildError, and TimeoutError with the end of its log."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        store = cls(kind, folder, port)
        store.start(progress)
        return store

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, progress: Progress = lambda line: None) -> None:
        """Starts it, or again after `stop`: then it has the objects that it had (gs)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        data = self.folder / "objects"
        data.mkdir(exist_ok=True)
        command = {
            "gs": lambda: [
                str(fake_gcs_server(progress)), "-scheme", "http", "-host", "127.0.0.1", "-port", str(self.port),
                "-public-host", f"127.0.0.1:{self.port}", "-backend", "filesystem", "-filesystem-root", str(data),
            ],
            "s3": lambda: [str(moto_python(progress)), str(HERE / "moto" / "serve.py"), str(self.port)],
        }[self.kind]()  # fmt: skip
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self.process.poll() is not None:
                tail = (self.folder / "server.log").read_text(errors="replace")[-1000:]
                raise TimeoutError(f"{command[0]} does not answer on {self.endpoint}: {tail}")
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGKILL) -> None:
        """Ends it, by default as if the machine had lost power."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait()
            self.process = None

    def make_bucket(self, name: str) -> None:
        """Makes an empty bucket."""
        if self.kind == "gs":
            body = json.dumps({"name": name}).encode()
            self.ask("POST", f"/storage/v1/b?project={PROJECT}", body, {"Content-Type": "application/json"})
        else:
            self.ask("PUT", f"/{name}", b"", {})

    def ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        """The answer to a request of HTTP. Raises OSError for one that was refused."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status >= 400:
                raise OSError(f"{self.endpoint}{path}: {answer.status} {content[:300].decode(errors='replace')}")
            return content

    def env(self) -> dict[str, str]:
        """What a client's environment must say, of TensorStore as of others."""
        if self.kind == "gs":
            return {
                "TENSORSTORE_GCS_HTTP_URL": self.endpoint,
                "STORAGE_EMULATOR_HOST": self.endpoint,
                "GOOGLE_AUTH_TOKEN_FOR_TESTING": "any",
            }
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _answers(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return bool(self.ask("GET", "/storage/v1/b?project=test" if self.kind == "gs" else "/", b"", {}))
        return False


def _contents(folder: Path, *names: str) -> Iterator[str]:
    return ((folder / name).read_text() for name in names)


def _once(name: str, parts: list[str], make: Callable[[Path], None]) -> Path:
    """A folder of the cache that `make` fills; one that a killed maker left is made anew."""
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    folder = cache_folder() / "bin" / f"{name}-{digest}"
    if (folder / "complete").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)  # at its place: a virtual environment cannot be moved
            (folder / "complete").touch()
    return folder


def main() -> None:
    """`python -m ratchet_cluster.object_stores`: makes both, so that no test waits for it."""
    try:
        for program in (fake_gcs_server, moto_python):
            program(lambda line: print(line, file=sys.stderr, flush=True))
    except BuildError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
