"""A TPU that is still held, or half up, is waited for; then it is the machine's fault, not the job's."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from test_start_check import small

from ratchet_api.protocol import Exit
from ratchet_trainer.errors import AcceleratorUnavailable, ConfigurationInvalid
from ratchet_trainer.process.accelerator import PATIENCE_SECONDS, device_files, devices, is_held
from ratchet_trainer.tools.local import Folder, Gang

BUSY = (
    "Unable to initialize backend 'tpu': UNKNOWN: TPU initialization failed: open(/dev/vfio/0): Device or resource busy"
)
MISSING = "Unable to initialize backend 'tpu': INTERNAL: Failed to open libtpu.so: libtpu.so: cannot open shared object"
BUSY_TPU = (sys.executable, str(Path(__file__).with_name("busy_tpu.py")))


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def pause(self, seconds: float) -> None:
        self.now += seconds


def after(failures: int, text: str) -> tuple[Any, list[int]]:
    """A connection that works after so many failures, and how often it was tried."""
    tried: list[int] = []

    def connect() -> list[Any]:
        tried.append(1)
        if len(tried) <= failures:
            raise RuntimeError(text)
        return ["a device"]

    return connect, tried


@pytest.mark.parametrize("failures", [0, 1, 20])
def test_a_tpu_that_comes_up_late_is_waited_for(failures: int) -> None:
    clock, (connect, tried) = Clock(), after(failures, BUSY)
    assert devices("tpu", connect, now=lambda: clock.now, pause=clock.pause) == ["a device"]
    assert len(tried) == failures + 1


def test_a_tpu_that_never_comes_up_is_the_machines_fault() -> None:
    clock, (connect, _) = Clock(), after(10**9, BUSY)
    with pytest.raises(AcceleratorUnavailable, match=r"/dev/vfio/0.* Another attempt may get other machines") as error:
        devices("tpu", connect, now=lambda: clock.now, pause=clock.pause)
    assert error.value.exit == Exit.ACCELERATOR_UNAVAILABLE
    assert 60 <= PATIENCE_SECONDS < clock.now <= 120


def test_libtpu_does_not_touch_chips_that_somebody_holds() -> None:
    """It may not look again, once it has failed."""
    clock, (connect, tried) = Clock(), after(0, "")
    freed = lambda path: clock.now < 10 or len(tried) > 0  # noqa: E731
    found = devices("tpu", connect, ["/dev/vfio/0"], now=lambda: clock.now, pause=clock.pause, held=freed)
    assert (found, len(tried)) == (["a device"], 1)
    assert clock.now >= 10


def test_a_missing_library_is_not_waited_for() -> None:
    connect, tried = after(10**9, MISSING)
    with pytest.raises(ConfigurationInvalid, match="no libtpu"):
        devices("tpu", connect)
    assert len(tried) == 1


def test_elsewhere_errors_are_what_they_are() -> None:
    connect, tried = after(1, BUSY)
    with pytest.raises(RuntimeError, match="busy"):
        devices(None, connect)
    assert len(tried) == 1


def test_a_file_that_cannot_be_opened_for_another_reason_is_left_to_libtpu(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "0").touch()
    (tmp_path / "vfio").touch()
    assert device_files([f"{tmp_path}/[0-9]*"]) == [str(tmp_path / "0")]
    assert not is_held(str(tmp_path / "0"))
    assert not is_held(str(tmp_path / "nothing"))

    def refuse(*_: Any) -> int:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(os, "open", refuse)
    assert is_held("/dev/vfio/0")


def test_a_chip_that_a_failed_start_of_this_process_has_open_is_no_reason_to_wait(tmp_path: Path, monkeypatch) -> None:
    """libtpu may fail half-way, with some chips open: nobody else could ever free them, and the next try may do."""
    chip = tmp_path / "0"
    chip.touch()
    clock, (connect, tried) = Clock(), after(1, "TPU initialization failed: the slice is not complete")

    def refuse(*_: Any) -> int:
        raise OSError(errno.EBUSY, "Device or resource busy")

    with open(chip):
        monkeypatch.setattr(os, "open", refuse)
        found = devices("tpu", connect, [str(chip)], now=lambda: clock.now, pause=clock.pause)
        monkeypatch.undo()
    assert found == ["a device"]
    assert len(tried) == 2


def test_a_trainer_on_a_held_tpu_leaves_with_a_code_of_its_own(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RATCHET_PLATFORM", "tpu")
    gang = Gang.start(Folder(tmp_path / "work", "small", small()), 1, command=BUSY_TPU)
    assert gang.wait(120) == [Exit.ACCELERATOR_UNAVAILABLE]
    message = gang.termination()
    assert message["reason"] == "AcceleratorUnavailable"
    assert "/dev/vfio/0" in message["message"]
