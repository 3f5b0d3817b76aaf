"""Tests of the commands import their helpers by name, and call commands as a shell does."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ratchet_cli.main import main
from ratchet_cluster.cluster import Cluster

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def ratchet(api_server: Cluster, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command as it is run in a shell whose kubeconfig is the control plane's."""
    for name, value in api_server.env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("COLUMNS", raising=False)  # workers of pytest-xdist have that of a terminal

    def run(*arguments: str) -> Result:
        found = CliRunner().invoke(main, arguments)
        assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
        return found

    return run
