"""What the TPU compiler says of a program that is too large, in both of its ways, and how much a device has for it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ratchet_api.tpu_chips import CHIPS
from ratchet_trainer.tools import fit_memory

STATE = {"weights": 1 << 30, "moments": 2 << 30, "reference": 1 << 30, "sampling weights": 1 << 29}


@pytest.mark.parametrize(
    "said",
    [
        # libtpu 0.0.42 and 0.0.50, word for word
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (42.50G) exceeds "
        "available HBM (15.75G).",
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (42.50G) exceeds available HBM (31.24G). HLO module: jit_update.\nSee https://openxla.org",
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 42.50G of "
        "15.75G hbm. Exceeded hbm capacity by 26.75G.",
    ],
    ids=["before it is laid out", "newer words", "after it is laid out"],
)
def test_a_program_that_the_compiler_refuses_has_a_size(said: str) -> None:
    need = fit_memory.of_refusal("update", RuntimeError(said), STATE)
    assert need is not None
    assert not need.exact
    assert need.total == 42.5 * 2**30 + STATE["reference"], "what lies beside the program comes on top"
    assert need.parts["temporaries"] == 39.5 * 2**30


def test_gradients_are_temporaries_of_an_update() -> None:
    """Where there are any: a compiler may keep those of a tiny model beside the matrix units."""
    sizes = {"argument": 3 << 30, "output": 3 << 30, "alias": 3 << 30, "temp": 5 << 28, "generated_code": 0}
    said = SimpleNamespace(**{f"{name}_size_in_bytes": size for name, size in sizes.items()})
    compiled = SimpleNamespace(memory_analysis=lambda: said)
    parts = fit_memory.of_program("update", compiled, STATE, trained=1 << 30).parts
    assert parts == {
        "weights": 1 << 30,
        "moments": 2 << 30,
        "reference": 1 << 30,
        "gradients": 1 << 30,
        "temporaries": 1 << 28,
    }
    said.temp_size_in_bytes = 0
    assert "gradients" not in fit_memory.of_program("update", compiled, STATE, trained=1 << 30).parts


def test_what_is_refused_for_something_else_is_no_size() -> None:
    assert fit_memory.of_refusal("update", RuntimeError("INVALID_ARGUMENT: no such layout"), STATE) is None


def test_programs_never_get_all_of_a_chip_but_what_the_compiler_grants() -> None:
    """A part of HBM is the runtime's: 31.5 of 32 GiB on a v6e would be said to fit, and fail on the machine."""
    assert {name: chip.hbm_bytes / 2**30 for name, chip in CHIPS.items()} == {
        "tpu-v4-lite-device": 30.75,
        "tpu-v4-podslice": 30.75,
        "tpu-v5-lite-device": 15.75,
        "tpu-v5-lite-podslice": 15.75,
        "tpu-v5p-slice": 95,
        "tpu-v6e-slice": pytest.approx(31.24),
        "tpu7x": pytest.approx(94.74),
    }
