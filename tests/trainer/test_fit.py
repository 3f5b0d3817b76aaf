"""`ratchet fit` with the real TPU compiler: what fits, what does not, advice that was compiled, a cache by JAX's keys.

Skipped where the TPU compiler is not installed (the extra `tpu`).
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ratchet_api.tpu_chips import CHIPS

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="the TPU compiler is not here"),
    pytest.mark.timeout(900),
]
ONE_CHIP = {"name": "one", "accelerator": "tpu-v5-lite-podslice", "topology": "1x1", "chipsPerNode": 1}


def job(placement: dict[str, Any] = ONE_CHIP, **rl: Any) -> dict[str, Any]:
    lengths = {"promptsPerStep": 8, "groupSize": 2, "maxPromptTokens": 16, "maxResponseTokens": 16}
    return {
        "model": {"preset": "tiny"},
        "datasets": [{"name": "d", "reasoningGym": {"task": "chain_sum", "size": 100}}],
        "stages": [{"name": "one", "rl": {"dataset": "d", "method": "grpo", **lengths, **rl}, "advance": {"steps": 1}}],
        "checkpoint": {"directory": "/c", "claimName": "c"},
        "placements": [placement],
    }


def fit(spec: dict[str, Any], **request: Any) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "ratchet_trainer.tools.fit"],
        input=json.dumps({"spec": spec, **request}),
        capture_output=True,
        text=True,
    )
    assert done.stdout, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def programs(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {record["program"]: record for record in records if "program" in record}


def test_what_fits_is_said_with_what_takes_it(tmp_path: Path) -> None:
    several = job(updatesPerStep=2)  # with one the old policy is the new one itself
    records = fit(several, cache=str(tmp_path / "cache"), advise=False)
    found = programs(records)
    assert set(found) == {"sampling weights", "prefill", "decode", "log-probabilities", "update"}
    assert all(record["fits"] for record in found.values())
    assert {"weights", "moments"} <= found["update"]["parts"].keys()
    assert {"weights", "moments", "sampling weights", "cache"} <= found["decode"]["parts"].keys()
    assert all(record["bytes"] == sum(record["parts"].values()) for record in found.values())
    assert found["update"]["flops"] > found["log-probabilities"]["flops"] > 0
    written = {file.name for file in (tmp_path / "cache").glob("*.program")}
    assert len(written) >= len(found)
    again = tmp_path / "again"
    fit(several, cache=str(again), advise=False)
    assert {file.name for file in again.glob("*.program")} == written, "another process names the programs alike"


def test_advice_is_the_first_knob_and_fits_when_it_is_followed() -> None:
    lengths = {"promptsPerStep": 64, "groupSize": 4, "maxResponseTokens": 1024}
    records = fit(job(**lengths))
    found = programs(records)
    assert not found["update"]["fits"]
    assert found["decode"]["fits"]
    knobs = next(record["advice"] for record in records if "advice" in record)["knobs"]
    assert list(knobs) == ["stages[0].rl.rowsPerPass"]
    followed = programs(fit(job(**lengths, rowsPerPass=next(iter(knobs.values())))))
    assert all(record["fits"] for record in followed.values())


NEWER = """
from dataclasses import replace
from ratchet_trainer.tools import fit_topology
fit_topology.set_environment({})
from ratchet_api import tpu_chips
from ratchet_api.placements import Placement
tpu_chips.CHIPS["tpu-v6e-slice"] = replace(tpu_chips.V6E, compiler="v99x")
try:
    fit_topology.devices_of(Placement(name="far", accelerator="tpu-v6e-slice", topology="4x4"))
except fit_topology.ConfigurationInvalid as error:
    print(error)
"""
ON_EACH = """
from ratchet_trainer.tools import fit_topology
fit_topology.set_environment({})
from ratchet_api.job import Parallelism
from ratchet_api.placements import Placement
from ratchet_api.tpu_chips import CHIPS
from ratchet_api.tpu_topologies import ACCELERATORS
from ratchet_api.validate import devices
for name in CHIPS:
    kind = ACCELERATORS[name]
    topology = kind.multi_host[0] if kind.multi_host else kind.single_host[4]
    placement = Placement(name="p", accelerator=name, topology=topology, chipsPerNode=4)
    found = fit_topology.devices_of(placement)
    assert len(found) == devices(placement), (name, topology, len(found), devices(placement))
    assert fit_topology.mesh_on(found, Parallelism(fsdp=4)).shape["fsdp"] == 4
    print(name)
"""


def said(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_topology_that_the_compiler_does_not_know_is_named() -> None:
    assert "placement far: the TPU compiler that is installed does not know v99x:4x4 (" in said(NEWER)


def test_every_kind_of_chip_has_the_devices_that_admission_counts() -> None:
    assert said(ON_EACH).split() == list(CHIPS)
