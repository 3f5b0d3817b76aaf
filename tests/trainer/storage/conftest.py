"""Places of every kind: a folder of this machine, and buckets of real servers on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratchet_trainer.storage import Location


@pytest.fixture(params=["path"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """An empty place."""
    return Location.parse(tmp_path / "place")
