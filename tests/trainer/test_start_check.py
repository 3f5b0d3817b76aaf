"""A start that is not what the placement asked for ends at once, in words that say what to do."""

from __future__ import annotations

import pytest
from fake_tpus import tpus

from ratchet_api.job import RLTrainingJob
from ratchet_api.protocol import Exit
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.process.start_check import Asked, Found, check
from ratchet_trainer.tools.local import Folder, train

TPU = Asked("tpu", devices_per_process=4, slices=2)
HERE = Found.of(tpus("tpu-v6e-slice", "4x4", 2))


def test_what_was_asked_for_is_found() -> None:
    assert Found("tpu", 8, (4,), 2) == HERE
    assert Found.of(tpus("tpu7x", "2x2x2", cores=2)) == Found("tpu", 2, (8,), 1)
    check(TPU, 8, HERE, {})
    check(Asked(), 1, Found("cpu", 1, (3,), 1), {})


@pytest.mark.parametrize(
    ("asked", "processes", "found", "environment", "words"),
    [
        (TPU, 8, Found("cpu", 8, (1,), 1), {"JAX_PLATFORMS": "tpu,cpu"}, r"TPUs, .* no libtpu: .* \(spec.image\)"),
        (TPU, 8, Found("cpu", 8, (1,), 1), {"JAX_PLATFORMS": "cpu"}, "is cpu: take it out of podTemplate.env"),
        (TPU, 4, HERE, {}, "of 8 processes, the attempt has 4 pods; .* those of the node pool"),
        (Asked("tpu", 8, 2), 8, HERE, {}, "sees 4 devices in a process, the placement has 8; chipsPerNode"),
        (Asked("tpu", 4, 4), 8, HERE, {"MEGASCALE_NUM_SLICES": "2"}, r"2 slices, .* has 4 \(MEGASCALE_NUM_SLICES=2\)"),
        (Asked("tpu", 4, 1), 8, HERE, {}, "sees 2 slices, the placement has 1"),
    ],
)
def test_what_is_wrong_is_said_with_a_way_out(asked, processes, found, environment, words) -> None:
    with pytest.raises(ConfigurationInvalid, match=words):
        check(asked, processes, found, environment)


def small() -> RLTrainingJob:
    spec = {
        "model": {"preset": "tiny"},
        "datasets": [{"name": "d", "jsonl": {"path": "/unused"}}],
        "stages": [{"name": "only", "sft": {"dataset": "d"}, "advance": {"steps": 1}}],
        "checkpoint": {"directory": "/replaced"},
        "placements": [{"name": "here", "cpu": {"hosts": 1}}],
    }
    return RLTrainingJob.model_validate({"spec": spec})


@pytest.mark.parametrize(
    ("platforms", "asked", "words"),
    [
        ("tpu,cpu", {"PLATFORM": "tpu"}, "the image has no libtpu: take one that was built with"),
        ("cpu", {"PLATFORM": "tpu"}, "JAX_PLATFORMS is cpu: take it out of podTemplate.env"),
        ("cpu", {"SLICES": "2"}, "JAX sees 1 slice, the placement has 2 (no MEGASCALE variable is set)"),
        ("cpu", {"DEVICES_PER_PROCESS": "4"}, "JAX sees 1 devices in a process, the placement has 4"),
    ],
    ids=["no-libtpu", "platform-forced", "slices", "devices"],
)
def test_a_trainer_that_starts_on_something_else_ends_as_wrongly_configured(
    tmp_path, monkeypatch, platforms, asked, words
) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    for name, value in asked.items():
        monkeypatch.setenv(f"RATCHET_{name}", value)
    code, message = train(Folder(tmp_path / "work", "small", small()), 1)
    assert (code, message["reason"]) == (Exit.CONFIGURATION_INVALID, "ConfigurationInvalid"), message
    assert words in message["message"]
