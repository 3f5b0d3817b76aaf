"""What results depend on and the machine must not decide."""

from __future__ import annotations

import pytest

from ratchet_api.exact_environment import exact_environment


@pytest.mark.parametrize(
    ("cpu", "threads"),
    [
        (None, "1"), ("", "1"), ("4", "4"), ("1500m", "1"), ("2500m", "2"), ("0.5", "1"), ("3.9", "3"), ("500m", "1"),
    ],
)  # fmt: skip
def test_threads_are_the_whole_part_of_the_requested_cpus(cpu, threads):
    assert exact_environment(cpu)["NPROC"] == threads
    assert "NPROC" not in exact_environment(cpu, tpu=True)
    assert exact_environment(cpu, 64, tpu=True)["NPROC"] == "64"
