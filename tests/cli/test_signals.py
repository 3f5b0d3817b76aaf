"""A command leaves the signals of its process as they were."""

from __future__ import annotations

import os
import signal

import pytest
from click.testing import CliRunner

from ratchet_cli.main import main
from ratchet_cli.signals import handled


def test_signals_do_afterwards_what_they_did_before() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with handled(lambda number, _: came.append(number), signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), signal.SIGINT)
        assert came == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_training_in_this_process_takes_signals_only_for_its_time(tmp_path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    found = CliRunner().invoke(
        main, ["train", "examples/minimal.yaml", "--workdir", f"{tmp_path}/w", "--until-step", "1"]
    )
    assert found.exit_code == 0, found.output
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
