"""A plain HTTP client of the real API server, for tests that care about its exact answers."""

from __future__ import annotations

import base64
import json
import ssl
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))  # helpers beside the tests


class ApiServer:
    """Sends one request and gives code and text back, whatever they are."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._server = cluster["server"]
        self._tls = ssl.create_default_context(cadata=self._bytes(cluster, "certificate-authority").decode())
        with tempfile.NamedTemporaryFile() as file:
            file.write(self._bytes(user, "client-certificate") + self._bytes(user, "client-key"))
            file.flush()
            self._tls.load_cert_chain(file.name)

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._server + path, data=data, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, context=self._tls, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    @staticmethod
    def _bytes(entry: dict[str, str], key: str) -> bytes:
        return base64.b64decode(entry[f"{key}-data"]) if f"{key}-data" in entry else Path(entry[key]).read_bytes()


@pytest.fixture(scope="session")
def server(api_server) -> ApiServer:
    """The API server of the local control plane, our CRD installed."""
    return ApiServer(api_server.kubeconfig)
