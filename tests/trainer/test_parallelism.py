"""Meshes, number formats and activation checkpointing: they change what a device holds and how long it takes, and
nothing that is learned but for rounding."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import sums

from ratchet_api.job import Model, Parallelism, RLTrainingJob
from ratchet_api.protocol import Exit
from ratchet_trainer.algorithm import keys
from ratchet_trainer.checkpoints.identity import flags_with_devices
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.model.architecture import Architecture, Layer
from ratchet_trainer.model.computation import Computation
from ratchet_trainer.model.policy import Policy, lay_out_prompts
from ratchet_trainer.model.presets import PRESETS
from ratchet_trainer.model.sharding import of_parameter
from ratchet_trainer.process import distributed
from ratchet_trainer.step.dtype_probe import DTYPES
from ratchet_trainer.step.stage import Programs
from ratchet_trainer.tools.local import Folder, train
from ratchet_trainer.tools.prove import computed_in

SPREAD = Path(__file__).with_name("spread.py")


ALONE = (1, 1, 1, "float32", "no", 1)
"""Devices, fsdp, tensor, format, whether activations are computed again, passes."""


@functools.cache
def numbers(devices: int, *arguments: Any) -> dict[str, Any]:
    flags = {"XLA_FLAGS": flags_with_devices(os.environ["XLA_FLAGS"], devices), "JAX_PLATFORMS": "cpu", "NPROC": "1"}
    command = [sys.executable, SPREAD, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | flags)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_spread_model_learns_what_it_learns_on_one_device() -> None:
    alone, found = numbers(*ALONE), numbers(4, 2, 2, "float32", "recompute", 2)
    assert found["tokens"] == alone["tokens"]
    assert found["passes"] == 2
    assert found["mismatch"] < 5e-6
    np.testing.assert_allclose(found["updates"], alone["updates"], rtol=2e-4, atol=2e-4)
    assert found["weights"] == pytest.approx(alone["weights"], rel=2e-4)
    assert found["held"] == pytest.approx(1 / 4, rel=0.05)  # vectors are everywhere


@pytest.mark.parametrize("mesh", [(2, 1, 1), (2, 2, 1)], ids=["data", "fsdp"])
def test_devices_that_sample_rows_of_their_own_do_not_wait_for_one_another(mesh) -> None:
    """Each collective is a wait for the slowest process, and there is a token every few milliseconds."""
    assert numbers(*mesh, "float32", "no", 1)["collectivesPerToken"] == 0
    assert numbers(4, 2, 2, "float32", "recompute", 2)["collectivesPerToken"] > 0, "products of parts are added"


def test_bfloat16_keeps_the_masters_in_float32_and_the_ratio_near_one() -> None:
    alone, found = numbers(*ALONE), numbers(4, 2, 2, "bfloat16", "no", 1)
    assert found["mismatch"] <= 2e-2
    assert found["weights"] == pytest.approx(alone["weights"], rel=1e-2)
    np.testing.assert_allclose([u[0] for u in found["updates"]], [u[0] for u in alone["updates"]], atol=0.2)
    policy = Policy(PRESETS["tiny"], Computation("bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(policy.abstract)} == {np.dtype("float32")}


def test_what_is_recomputed_is_not_kept() -> None:
    shape = Architecture(vocabulary=64, width=64, heads=4, hidden=512, layers=(Layer(),) * 8)
    prompts, responses = lay_out_prompts([], 4, 8), np.ones((4, 2, 64), np.int32)

    def program(recompute: bool) -> Any:
        policy = Policy(shape, Computation(recompute=recompute))
        loss = lambda params, *rows: policy.judge(params, *rows, np.float32(1))[0].sum()  # noqa: E731
        return jax.jit(jax.value_and_grad(loss)).lower(policy.abstract, prompts, responses).compile()

    again, kept = program(True), program(False)
    assert again.memory_analysis().temp_size_in_bytes < kept.memory_analysis().temp_size_in_bytes / 3
    params = jax.jit(Policy(shape).init)(keys.seed_words(0))
    for one, other in zip(*(jax.tree.leaves(f(params, prompts, responses)) for f in (again, kept)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_a_mesh_that_does_not_fit_is_refused_with_a_way_out() -> None:
    with pytest.raises(ConfigurationInvalid, match=r"data x 7 x 1 .* does not fit the 1 devices .* must divide them"):
        distributed.mesh(Parallelism(fsdp=7))
    with pytest.raises(ConfigurationInvalid, match="data is best left out"):
        distributed.mesh(Parallelism(data=3))


def test_parameters_lie_by_the_end_of_their_path() -> None:
    mesh = jax.sharding.AbstractMesh((1, 4, 2), ("data", "fsdp", "tensor"))
    lies = lambda path, *shape: of_parameter(mesh, path, shape).spec  # noqa: E731
    assert lies("optimizer/mu/blocks/0/attention/input", 64, 192) == jax.P("fsdp", "tensor")
    assert lies("critic/params/trunk/blocks/1/mlp/output", 176, 64) == jax.P("tensor", "fsdp")
    assert lies("params/embedding", 259, 64) == jax.P(None, "fsdp")  # 2 does not divide 259
    assert lies("blocks/0/attention/input_adapter/q_proj/a", 64, 8) == jax.P("fsdp", None)
    assert lies("blocks/0/attention/input_adapter/q_proj/b", 8, 64) == jax.P(None, "fsdp")
    assert lies("norm/scale", 64) == jax.P()


def test_a_machine_takes_format_and_checkpointing_from_the_manifest() -> None:
    mesh = distributed.one_device()
    how = Programs(Model(preset="tiny", activationCheckpointing=True), mesh, None, "bfloat16").policy.how
    assert (how.dtype, how.recompute, how.mesh) == ("bfloat16", True, None)


def test_auto_is_answered_once_in_the_life_of_a_job(tmp_path: Path) -> None:
    spec = sums.job({"method": "grpo"})
    job = RLTrainingJob.model_validate({"spec": spec | {"model": {"preset": "tiny", "dtype": "auto"}}})
    folder = Folder(tmp_path, "sums", job)
    for until in (1, 2):
        assert train(folder, 1, until_step=until)[0] == Exit.DONE
        assert (folder.local / "process-0.log").read_text().count("dtype auto:") == 1  # of all attempts
    found = folder.result()["dtype"]
    assert found in DTYPES
    assert computed_in(job, found).spec.model.dtype == found  # as the other run of a proof
