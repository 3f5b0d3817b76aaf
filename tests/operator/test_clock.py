"""The API server's time from `Date` headers: right to milliseconds, never backwards, unimpressed by jumps."""

from __future__ import annotations

import re
from email.utils import formatdate

from hypothesis import given
from hypothesis import strategies as st

from ratchet_operator.clock import Clock

SERVER = 1_800_000_000.0  # server time at monotonic 0


class Machine:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def hear(clock: Clock, machine: Machine, server: float, latency: float = 0.004) -> None:
    """One request that the server answers in the middle of its way."""
    sent = machine.at
    machine.at += latency
    clock.hear(formatdate(int(server + sent + latency / 2), usegmt=True), sent, machine.at)


@given(st.lists(st.floats(0.001, 5.0), min_size=40, max_size=120))
def test_it_converges_and_never_runs_backwards(pauses):
    machine = Machine()
    clock = Clock(machine)
    shown = []
    for pause in pauses:
        machine.at += pause
        hear(clock, machine, SERVER)
        shown.append(clock.seconds())
        assert shown[-1] <= SERVER + machine.at, "ahead of the server"
        assert shown[-1] > SERVER + machine.at - 1.01, "a whole second behind although Date has a resolution of one"
    assert shown == sorted(shown)


def test_answers_around_a_full_second_give_milliseconds():
    machine = Machine()
    clock = Clock(machine)
    machine.at = 100.001  # the server's second has just begun
    hear(clock, machine, SERVER)
    assert abs(clock.seconds() - (SERVER + machine.at)) < 0.01
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", clock.now())


def test_a_jump_is_reported_once_and_changes_no_duration():
    machine, jumps = Machine(), []
    clock = Clock(machine, jumps.append)
    hear(clock, machine, SERVER)
    before = clock.seconds()
    for _ in range(5):
        machine.at += 1.0
        hear(clock, machine, SERVER + 3600)
    assert len(jumps) == 1
    assert abs(jumps[0] - 3600) < 2
    assert abs(clock.seconds() - before - 5.0) < 0.1
    hear(clock, machine, SERVER)
    hear(clock, machine, SERVER - 3600)
    assert len(jumps) == 2
    assert clock.seconds() >= before


def test_a_clock_that_drifts_is_followed_both_ways():
    for rate in (0.999, 1.001):
        machine = Machine()
        clock, server = Clock(machine), SERVER + machine.at
        for _ in range(4000):
            machine.at += 0.5
            server += 0.5 * rate
            clock.hear(formatdate(int(server), usegmt=True), machine.at, machine.at)
        assert abs(clock.seconds() - server) < 1.1


def test_nonsense_is_ignored():
    machine = Machine()
    clock = Clock(machine)
    for date in (None, "", "yesterday", "99999999"):
        clock.hear(date, machine.at, machine.at)
    assert not clock.known
