"""What is drawn of a job, whatever its status holds and however narrow the window is: pure functions, no cluster."""

from __future__ import annotations

import copy
import io
import json
import os
import signal
from datetime import UTC, datetime, timedelta
from importlib.resources import files

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs_in_a_cluster import ago, condition, job, running
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from ratchet_cli.job_view import block_chart, columns, cost, live, one_line, rows, screen, until
from ratchet_cli.job_view.curve_source import curves
from ratchet_cli.job_view.document import plain
from ratchet_cli.job_view.gather import view
from ratchet_cli.job_view.terminal import ASCII, BLOCKS, console, glyphs
from ratchet_cli.job_view.words import bar, short, span

NOW = datetime.now(UTC)
SCHEMA = json.loads(files("ratchet_cli").joinpath("schemas/job-status.json").read_text())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(ago(5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def whole(name: str = "sums", status: dict | None = None) -> dict:
    """A job as the API server has it."""
    found = job(name) | {"status": running() if status is None else status}
    found["metadata"] |= {"namespace": "team", "uid": "u", "creationTimestamp": ago(1000), "generation": 1}
    return found


def pod(index: int, phase: str = "Running", **status) -> dict:
    labels = {
        "ratchet.dev/attempt": "2", "batch.kubernetes.io/job-completion-index": str(index % 4),
        "jobset.sigs.k8s.io/job-index": str(index // 4),
    }  # fmt: skip
    ready = [{"type": "Ready", "status": "True" if phase == "Running" else "False"}]
    return {
        "metadata": {"name": f"sums-a2-s-{index // 4}-{index % 4}-x", "labels": labels},
        "spec": {"nodeName": f"gke-pool-{index}"},
        "status": {"phase": phase, "conditions": ready, **status},
    }


def paths(found, before=()):
    """Every place in an object."""
    inside = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    for key, value in inside:
        yield (*before, key)
        yield from paths(value, (*before, key))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_status_can_break_the_screen(data):
    """Anything may stand in any place: an operator of another version writes it, a trainer runs users' code."""
    found = whole()
    places = [path for path in paths(found) if path[0] in ("status", "spec")]
    for path in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=3)):
        part = found
        for key in path[:-1]:
            part = part[key] if isinstance(part, dict | list) and (not isinstance(part, dict) or key in part) else {}
        if isinstance(part, dict) or (isinstance(part, list) and isinstance(path[-1], int) and path[-1] < len(part)):
            part[path[-1]] = data.draw(VALUES)
    said = data.draw(st.none() | st.dictionaries(st.sampled_from(["step", "phase", "learning", "reward"]), VALUES))
    document = view(found, [pod(0)], [{"message": found["status"], "count": said}], said, {}, NOW)
    jsonschema.validate({"version": "ratchet.dev/job-status/v1", **plain(document)}, SCHEMA)
    for line in screen.lines(document, Console(file=io.StringIO(), width=60), BLOCKS):
        assert "\x1b" not in line.plain
    one = rows.row(found, NOW)
    assert "\n" not in one_line.line(one, NOW, named=True)
    columns.table(*rows.cells(rows.STATUS, [one], namespaces=True), 80)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_nothing_is_wider_than_the_window(width):
    status = running()
    status["conditions"] = [condition("Placed", "False", "WaitingForCapacity", "0/9 nodes are available: " + "x" * 300)]
    found = whole("a-name-of-thirty-nine-characters-in-all", status)
    points = [(step, step / 100) for step in range(1, 80)]
    document = view(found, [pod(i) for i in range(8)], [], None, {"reward": points, "entropy": points}, NOW)
    terminal = Console(file=io.StringIO(), width=width, height=60)
    for lines in (screen.lines(document, terminal, BLOCKS), live.job(document, terminal, BLOCKS, "q ends " * 30)):
        for line in lines[:-1]:
            assert cell_len(line.plain) <= width, line.plain
    for layout in (rows.STATUS, rows.TOP):
        table = columns.table(*rows.cells(layout, [rows.row(found, NOW)] * 3, namespaces=True), width)
        assert max(cell_len(line.plain) for line in table) <= width
        assert "a-name" in table[1].plain
        assert "PHASE" in table[0].plain or layout is rows.TOP


def test_pods_that_do_not_run_say_why_once():
    waiting = {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such host"}}}]}
    pods = [pod(0), *(pod(i, "Pending", **waiting) for i in range(1, 8))]
    document = view(whole(), pods, [], None, {}, NOW)
    said = [wait for wait in document.waits if wait.condition == "Pods"]
    assert [(wait.reason, wait.message) for wait in said] == [("ImagePullBackOff", "7 pods: no such host")]


def test_an_answer_of_the_trainer_is_newer_than_status():
    document = view(whole(), [pod(0)], [], {"step": 41, "targetStep": 50, "phase": "update", "reward": 0.75}, {}, NOW)
    assert document.progress is not None
    assert (document.progress.source, document.progress.step, document.progress.doing) == ("trainer", 41, "update")
    assert (document.learning.reward, document.learning.accuracy) == (0.75, 0.25)


def test_goodput_is_what_recoveries_and_repeated_steps_leave():
    start = datetime(2026, 1, 1, tzinfo=UTC)

    def stamp(seconds: float) -> str:
        return f"{start + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"

    record = {"number": 1, "startTime": stamp(0), "endTime": stamp(100), "chargedTo": "preemptions", "stepsLost": 5}
    status = {
        "attempts": [record | {"recovery": {"total": "30"}}],
        "attempt": {"number": 2, "runningTime": stamp(120), "startStep": 10},
        "progress": {"step": 50, "updatedAt": stamp(200)},  # two seconds a step
    }
    found = whole(status=status)
    assert cost.goodput(found, start + timedelta(seconds=200)) == pytest.approx(1 - (30 + 5 * 2) / 200)
    rested = status | {"attempts": [record | {"chargedTo": "nothing", "stepsLost": 0}]}
    assert cost.goodput(whole(status=rested), start + timedelta(seconds=200)) == 1.0  # nobody's loss
    assert cost.goodput(whole(status={}), start) is None


def test_a_condition_holds_only_in_a_status_of_the_present_spec():
    found = whole()
    assert until.parse("Running").met(found)
    found["status"]["observedGeneration"] = 0
    assert not until.parse("Running").met(found)
    assert until.cannot_come(until.parse("Completed"), whole(status={"phase": "Failed"}))
    for wrong in ("", "=True", "Learning="):
        with pytest.raises(ValueError, match="say a condition"):
            until.parse(wrong)


def test_curves_are_read_from_the_committed_stream():
    stream = b'half a line"}}\n'
    stream += b"".join(
        json.dumps({"step": step, "metrics": {"train/reward": str(step), "train/entropy": "nan"}}).encode() + b"\n"
        for step in range(1, 301)
    )
    found = curves(stream + b'{"step": 301, "metr', points=100)
    assert list(found) == ["reward"]
    assert found["reward"][0] == (3, 2.0)
    assert (len(found["reward"]), found["reward"][-1][0]) == (100, 300)


def test_a_chart_spans_its_values():
    rising = [(step, step / 10) for step in range(1, 11)]
    assert block_chart.sparkline(rising, 10) == "▁▂▃▃▄▅▆▆▇█"
    assert block_chart.sparkline([(1, 2.0)] * 3, 3) == "▁▁▁"
    top, *_, axis, steps = block_chart.chart(rising, 30, 4)
    assert top.startswith("      1│")
    assert top.endswith("█")
    assert axis.startswith("      0└")
    assert steps.endswith("step 10")
    assert block_chart.worth_drawing({"reward": rising, "accuracy": rising, "loss": rising}) == [("accuracy", rising)]


def test_an_output_without_block_characters_gets_ascii():
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert glyphs(file) is ASCII
    terminal = console(file)
    for line in screen.lines(view(whole(), [pod(0)], [], None, {}, NOW), terminal, ASCII):
        terminal.print(line, soft_wrap=True)
    terminal.print("an answer of a model: ∞", soft_wrap=True)
    file.flush()
    written = file.buffer.getvalue()  # type: ignore[attr-defined]
    assert b"#####" in written
    assert b"a model: ?" in written


def test_spans_and_numbers_are_short():
    assert [span(s) for s in (0, 44, 192, 19200, 187200, 10**9)] == ["0s", "44s", "3m12s", "5h20m", "2d4h", "11574d"]
    assert [short(v) for v in (None, 0.12345, 2763.99, 123456, 1.2e7)] == ["-", "0.123", "2764", "123k", "12M"]
    assert bar(0.5, 4) == "━━╌╌"
    assert copy.copy(bar(2.0, 4, plain=True)) == "####"


def test_an_interrupt_while_the_screen_begins_gives_the_terminal_back():
    """rich leaves the other screen on when Ctrl-C comes during its first drawing."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, height=24)

    def draw(_: Console) -> list[Text]:
        os.kill(os.getpid(), signal.SIGINT)
        return [Text("one")]

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        live.run(console, draw, lambda: False, 0.5)
    assert out.getvalue().rindex("\x1b[?1049l") > out.getvalue().rindex("\x1b[?1049h")
    assert signal.getsignal(signal.SIGINT) is before
