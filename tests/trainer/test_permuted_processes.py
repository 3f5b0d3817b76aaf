"""Which process has which rows may change at a restart: what was decoded before goes on, and no bit tells.

On TPUs `jax.process_index()` follows where a host stands, and a job that starts again may have its hosts in another
order. Real processes, told to go in the middle of decoding, whose devices lie on the mesh in another order afterwards.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from four_devices import run_on_four_devices

from ratchet_api.job import RLTrainingJob
from ratchet_api.protocol import Exit
from ratchet_trainer.rollout.sampler import CHUNK
from ratchet_trainer.tools.local import Folder, Gang
from ratchet_trainer.tools.prove import HASHES

PERMUTED = (sys.executable, str(Path(__file__).with_name("permuted.py")))
CHUNKS, STEPS = 3, 1
SUMS = {"max_terms": 2, "max_digits": 1, "operators": ["+"], "allow_parentheses": False}


def job(rl: dict[str, Any], **spec: Any) -> RLTrainingJob:
    """Responses of three chunks, which random weights hardly ever end earlier."""
    lengths = {"maxPromptTokens": 26, "maxResponseTokens": CHUNKS * CHUNK - 8}
    stage = {"dataset": "sums", "promptsPerStep": 4, "groupSize": 2, **lengths, **rl}
    plain = {
        "model": {"preset": "tiny"},
        "seed": 7,
        "datasets": [{"name": "sums", "reasoningGym": {"task": "basic_arithmetic", "size": 20, "config": SUMS}}],
        "stages": [{"name": "a", "rl": stage, "advance": {"steps": STEPS}}],
        "checkpoint": {"directory": "/replaced"},
        "placements": [{"name": "here", "cpu": {"hosts": 1}}],
        **spec,
    }
    return RLTrainingJob.model_validate({"spec": plain})


EXACT = {"reproducibility": {"mode": "Exact", "virtualShards": 4}}
CASES = {
    "processes": (job({}), 1, "0,1", "1,0"),
    "processes-refilled": (job({"promptsInFlight": 2}), 1, "0,1", "1,0"),
    # With more than two summands the order of a sum shows, so it must be fixed: mode Exact. Rows of a process are no
    # neighbours any more.
    "devices": (job({}, **EXACT), 2, "0,1,2,3", "2,0,3,1"),
    "devices-refilled": (job({"promptsInFlight": 4, "promptsPerStep": 8}, **EXACT), 2, "0,1,2,3", "3,1,0,2"),
}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=[] if name == "processes" else [pytest.mark.soak]) for name in CASES]
)
def test_a_drain_in_mid_generation_and_other_rows_afterwards(tmp_path: Path, monkeypatch, case: str) -> None:
    spec, devices, order, other_order = CASES[case]

    def attempt(folder: Folder, order: str, told: int = 0) -> list[list[int]]:
        """The positions of the chunks that each process decoded."""
        for name, value in {"DEVICE_ORDER": order, "TOLD_TO_GO": told, "DECODED": folder.local / "decoded"}.items():
            monkeypatch.setenv(name, str(value))
        gang = Gang.start(folder, 2, command=PERMUTED, devices=devices)
        try:
            codes = gang.wait(800)
        finally:
            gang.end()
        text = (folder.local / "process-0.log").read_text()[-3000:]
        assert codes == [Exit.DRAINED if told else Exit.DONE] * 2, text
        return [[int(at) for at in (folder.local / f"decoded-{p}").read_text().split()] for p in range(2)]

    calm, folder = (Folder(tmp_path / name, "sums", spec, tmp_path / "cache") for name in ("calm", "told"))
    whole = attempt(calm, order)[0]
    assert whole.count(0) >= STEPS
    first = attempt(folder, order, told=2)
    assert first == [whole[:2]] * 2
    rollouts = sorted(file.name for file in (folder.path / "rollouts").iterdir())
    assert rollouts == ["0-of-2", "1-of-2"]
    second = attempt(folder, other_order)
    assert second == [whole[2:]] * 2, "what was decoded is not decoded again"
    found, expected = folder.result(), calm.result()
    for name in ("step", *HASHES):
        assert found[name] == expected[name], name
    assert found["ledger"]["stepsReplayed"] == 0


ON_DEVICES = """
import jax, numpy as np
from squares import SMALL
from ratchet_api.job import Parallelism
from ratchet_trainer.algorithm import keys
from ratchet_trainer.learning.exact import ExactSampler, VirtualShards
from ratchet_trainer.model.policy import Policy, lay_out_prompts
from ratchet_trainer.model.sharding import of_parameters, place
from ratchet_trainer.process.device_grid import AXES, device_grid
from ratchet_trainer.rollout.sampler import CHUNK, Sampler

PROMPTS = [(3, 4, 5), (6, 7), (8, 9, 10, 11), (12, 13)]
init = jax.tree.map(np.asarray, jax.jit(Policy(SMALL).init)(keys.seed_words(1)))

def begun(order, sizes, exact, kept=None):
    devices = [jax.devices()[i] for i in order]
    kinds = (jax.sharding.AxisType.Auto,) * 3
    mesh = jax.sharding.Mesh(device_grid(devices, Parallelism(**sizes)), AXES, axis_types=kinds)
    sampler = ExactSampler(Policy(SMALL), VirtualShards(mesh, 4), ()) if exact else Sampler(Policy(SMALL), mesh, ())
    params = place(init, of_parameters(mesh, init))
    words = keys.row_words(0, [0, 1, 2, 3], [0] * 4)
    rest = lay_out_prompts(PROMPTS, 4, 8), words, np.arange(2), 2 * CHUNK, 1.0, kept
    return sampler, sampler.begin(params, keys.seed_words(0), *rest)

for sizes, exact in ({}, False), ({}, True), ({"tensor": 2}, False):
    expected = begun([0, 1, 2, 3], sizes, exact)[1].finish()
    sampler, going = begun([0, 1, 2, 3], sizes, exact)
    going.advance()
    kept = going.kept()
    assert sorted(kept.parts) == sampler.first_rows(4) == ([0, 2] if sizes else [0, 1, 2, 3])
    other, going = begun([2, 0, 3, 1], sizes, exact, kept)
    assert other.first_rows(4) == sampler.first_rows(4)
    found = going.finish()
    for name, array in vars(expected).items():
        np.testing.assert_array_equal(array, getattr(found, name), err_msg=f"{name} {sizes} {exact}")
"""


@pytest.mark.timeout(900)
def test_a_decoding_goes_on_on_devices_in_another_order(tmp_path: Path) -> None:
    run_on_four_devices(ON_DEVICES, tmp_path)
