"""What makes a manifest fit: the cheapest knob of a ladder, and of its sizes the least saving that is enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ratchet_api.job import Spec
from ratchet_api.placements import Placement
from ratchet_api.tpu_topologies import Shape
from ratchet_api.validate import placement_shape
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.tools import fit, fit_topology
from ratchet_trainer.tools.fit_advice import Change, advice, larger


def start(**model: Any) -> Change:
    place = {"name": "spot", "accelerator": "tpu-v5-lite-podslice", "topology": "2x4", "chipsPerNode": 4}
    rl = {"dataset": "d", "method": "grpo", "promptsPerStep": 64, "groupSize": 8}
    spec = Spec.model_validate(
        {
            "model": {"preset": "tiny", **model},
            "datasets": [{"name": "d", "reasoningGym": {"task": "chain_sum", "size": 100}}],
            "stages": [
                {"name": "warm-up", "sft": {"dataset": "d"}, "advance": {"steps": 1}},
                {"name": "reason", "rl": rl, "advance": {"steps": 1}},
            ],
            "checkpoint": {"directory": "/c", "claimName": "c"},
            "placements": [place],
        }
    )
    return Change(spec, spec.placements[0])


def rows_of(change: Change) -> int:
    rl = change.spec.stages[1].rl
    assert rl is not None
    return rl.rows_per_pass or 64


FITS: dict[str, tuple[Callable[[Change], bool], dict[str, Any] | None]] = {
    "fewer rows": (lambda c: rows_of(c) <= 10, {"stages[1].rl.rowsPerPass": 8}),
    "no number of rows": (
        lambda c: bool(c.spec.model.activation_checkpointing),
        {"model.activationCheckpointing": True},
    ),
    "both": (
        lambda c: bool(c.spec.model.activation_checkpointing) and rows_of(c) <= 4,
        {"model.activationCheckpointing": True, "stages[1].rl.rowsPerPass": 4},
    ),
    "spread": (lambda c: c.spec.parallelism.fsdp >= 4, {"parallelism.fsdp": 4}),
    "spread and fewer rows": (
        lambda c: c.spec.parallelism.fsdp == 8 and rows_of(c) <= 16,
        {"parallelism.fsdp": 8, "stages[1].rl.rowsPerPass": 16},
    ),
    "a larger slice": (
        lambda c: c.placement.topology == "4x4" and c.spec.parallelism.fsdp == 16,
        {"placements[0].topology": "4x4", "parallelism.fsdp": 16},
    ),
    "nothing": (lambda c: False, None),
}


@pytest.mark.parametrize("what", FITS)
def test_the_first_knob_that_helps_is_named(what: str) -> None:
    fits, wanted = FITS[what]
    found = advice(start(), [1], 64, fits)
    assert (found and found.knobs) == wanted
    if found is not None:
        assert found.valid
        assert fits(found)


def test_what_is_valid_only_is_tried() -> None:
    tried: list[Change] = []
    advice(start(), [1], 64, lambda change: bool(tried.append(change)))
    assert tried
    assert all(change.valid for change in tried)


def test_samples_that_are_too_large_are_not_mended_by_smaller_updates() -> None:
    tried: list[Change] = []
    advice(start(), [], 1, lambda change: bool(tried.append(change)))
    assert {path for change in tried for path in change.knobs} == {"parallelism.fsdp", "placements[0].topology"}


def test_larger_slices_are_the_next_ones_that_exist() -> None:
    assert larger(start().placement) == ["4x4", "4x8", "8x8"]


def test_a_slice_that_is_given_by_its_hosts_is_advised_as_any_other() -> None:
    given = start().placement.model_copy(update={"hosts": 2, "devices_per_chip": 1})
    first = Change(start().spec.model_copy(update={"placements": [given]}), given)
    found = advice(first, [1], 64, lambda change: change.placement.topology == "4x4")
    assert found is not None
    assert found.knobs == {"placements[0].topology": "4x4"}
    assert placement_shape(found.placement) == Shape(4, 4)


def test_without_a_topology_nothing_can_be_compiled_and_that_is_said() -> None:
    place = Placement.model_validate({"name": "new", "accelerator": "tpu-v6e-slice", "hosts": 2, "chipsPerNode": 4})
    with pytest.raises(ConfigurationInvalid, match=r"placement new: hosts and chipsPerNode .* add its topology"):
        fit_topology.devices_of(place)


def test_slices_that_differ_in_their_hosts_are_not_taken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [
        {"name": f"of-{n}", "accelerator": "tpu-v6e-slice", "topology": "16x32", "hosts": n, "chipsPerNode": 4}
        for n in (64, 128)
    ]
    spec = start().spec.model_copy(update={"placements": [Placement.model_validate(place) for place in places]})
    monkeypatch.setattr(fit_topology, "require_compiler", lambda: None)
    monkeypatch.setattr(fit, "_of_placement", lambda spec, placement, absent, *, advise: [{"compiled": placement.name}])
    assert list(fit.fit({"spec": spec.manifest()})) == [{"compiled": "of-64"}, {"compiled": "of-128"}]
